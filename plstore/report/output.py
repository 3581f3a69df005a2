"""Rows on stdout, for people or for machines."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Format = Literal["table", "json", "csv"]
StreamFormat = Literal["table", "json", "jsonl", "csv"]
Rows = Sequence[Mapping[str, object]]

LONGEST_CELL = 80
_BYTES_SHOWN = 12
_TABLE_ROWS = 1000


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
        cells = [[_csv_cell(row[n]) for n in names] for row in rows]
        return _csv_lines([names, *cells]).rstrip("\n")
    return "\n".join([*_table_lines(rows, names, longest), _counted(len(rows))])


def stream(
    blocks: Iterable[Rows], format_: StreamFormat, columns: Sequence[str]
) -> Iterator[str]:
    """Yield rows as text as they come; of as many as there may be, a block is in memory.

    A table has its widths, and its header, anew for every 1,000 rows. JSON is an array of one
    object a line; jsonl the same objects without the array.

    Args:
        blocks: Of rows, mappings with the columns as keys.
        format_: As of `render`, or "jsonl".
        columns: Their names, in order.
    """
    if format_ == "table":
        yield from _tables(blocks, columns)
    elif format_ == "csv":
        yield _csv_lines([columns])
        for rows in blocks:
            yield _csv_lines([[_csv_cell(row[n]) for n in columns] for row in rows])
    else:
        objects = ([json_text({n: row[n] for n in columns}) for row in rows] for rows in blocks)
        yield from _json_array(objects) if format_ == "json" else map(_lines, objects)


def _tables(blocks: Iterable[Rows], columns: Sequence[str]) -> Iterator[str]:
    held: list[Mapping[str, object]] = []
    count = 0
    for rows in blocks:
        held += rows
        while len(held) >= _TABLE_ROWS:
            yield _lines(_table_lines(held[:_TABLE_ROWS], columns, LONGEST_CELL))
            held = held[_TABLE_ROWS:]
            count += _TABLE_ROWS
    if held or not count:
        yield _lines(_table_lines(held, columns, LONGEST_CELL))
    yield _lines([_counted(count + len(held))])


def _json_array(blocks: Iterable[Sequence[str]]) -> Iterator[str]:
    is_first = True
    for objects in blocks:
        if objects:
            yield ("[\n" if is_first else ",\n") + ",\n".join(objects)
            is_first = False
    yield "[]\n" if is_first else "\n]\n"


def _lines(texts: Sequence[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def _csv_lines(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


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


def _table_lines(rows: Rows, names: Sequence[str], longest: int) -> list[str]:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        numbers = all(isinstance(row[name], int | float | Decimal) for row in rows)
        table.add_column(escape(name), justify="right" if numbers and rows else "left")
    for row in rows:
        table.add_row(*(escape(_cell(row[name], longest)) for name in names))
    console = Console(width=10_000, file=io.StringIO(), highlight=False)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def _counted(count: int) -> str:
    return f"({count} row{'' if count == 1 else 's'})"


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
