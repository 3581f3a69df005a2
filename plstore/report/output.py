"""Rows on stdout, for people or for machines."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Format = Literal["table", "json", "csv"]
Rows = Sequence[Mapping[str, object]]

LONGEST_CELL = 80
_BYTES_SHOWN = 12


def render(
    rows: Rows,
    format_: Format,
    *,
    columns: Sequence[str] | None = None,
    longest: int = LONGEST_CELL,
) -> str:
    """Return rows as text.

    Args:
        rows: Mappings with the same keys.
        format_: "table" for people, "json" or "csv" for machines.
        columns: Their names; those of the first row unless given.
        longest: Characters of a cell of a table; the rest is cut.
    """
    names = list(columns if columns is not None else (rows[0] if rows else ()))
    if format_ == "json":
        return json.dumps([{n: _plain(row[n]) for n in names} for row in rows], indent=2)
    if format_ == "csv":
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([[_plain(row[n]) for n in names] for row in rows])
        return stream.getvalue().rstrip("\n")
    return _table(rows, names, longest)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _table(rows: Rows, names: Sequence[str], longest: int) -> str:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        numbers = all(isinstance(row[name], int | float) for row in rows)
        table.add_column(escape(name), justify="right" if numbers and rows else "left")
    for row in rows:
        table.add_row(*(escape(_cell(row[name], longest)) for name in names))
    console = Console(width=10_000, file=io.StringIO(), highlight=False)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join([*lines, f"({len(rows)} row{'' if len(rows) == 1 else 's'})"])


def _cell(value: object, longest: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        more = "..." if len(value) > _BYTES_SHOWN else ""
        return f"{value[:_BYTES_SHOWN].hex()}{more} ({len(value)} bytes)"
    text = str(_plain(value)).replace("\n", " ")
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
