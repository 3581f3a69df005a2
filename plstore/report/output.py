"""Rows on stdout, for people or for machines."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
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
        return json_text([{n: row[n] for n in names} for row in rows], indent=2)
    if format_ == "csv":
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([[_csv_cell(row[n]) for n in names] for row in rows])
        return stream.getvalue().rstrip("\n")
    return _table(rows, names, longest)


def json_text(value: object, *, indent: int | None = None, depth: int = 0) -> str:
    """Return a value as JSON that every reader takes.

    Numbers are exact: whole ones of any size, and decimals with all of their digits. What JSON
    has no number for (NaN, infinity) is null; bytes are hexadecimal text.

    Args:
        value: Of mappings, sequences and scalars; what JSON does not know is text.
        indent: Spaces by which each level is moved in; all in one line unless given.
        depth: Level that the value itself is on.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else "null"
    if isinstance(value, Mapping):
        items = [
            f"{json.dumps(str(key))}: {json_text(item, indent=indent, depth=depth + 1)}"
            for key, item in value.items()
        ]
        return _enclosed("{}", items, indent, depth)
    if isinstance(value, list | tuple):
        parts = [json_text(item, indent=indent, depth=depth + 1) for item in value]
        return _enclosed("[]", parts, indent, depth)
    return json.dumps(_plain(value))


def _enclosed(marks: str, items: Sequence[str], indent: int | None, depth: int) -> str:
    if not items or indent is None:
        return marks[0] + ", ".join(items) + marks[1]
    inner, outer = (f"\n{' ' * indent * level}" for level in (depth + 1, depth))
    return marks[0] + inner + f",{inner}".join(items) + outer + marks[1]


def _plain(value: object) -> object:
    """Return what JSON knows as it is, bytes as hexadecimal text, all else as its text."""
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _csv_cell(value: object) -> object:
    """Return a cell: exact text of a number, JSON of what is nested."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, Mapping | list | tuple):
        return json_text(value)
    return _plain(value)


def _table(rows: Rows, names: Sequence[str], longest: int) -> str:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        numbers = all(isinstance(row[name], int | float | Decimal) for row in rows)
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
    text = str(_csv_cell(value)).replace("\n", " ")
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
