"""Tables that people have: CSV as programs write it, Parquet, JSON.

Nothing is guessed from what cells look like: columns of a CSV are text, so 007, true and
2024-01-01 stay what they are, unless the caller asks for numbers. Rows are counted from 1, the
first below the header.
"""

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from plstore.errors import InputError

BATCH_ROWS: Final = 2048
"""Rows of a Parquet file that are in memory at a time."""

_DELIMITERS = ",;\t|"
_BLOCK_BYTES = 1 << 24  # of a CSV in memory; one row must fit, and quoted texts are long
_PEEK_BYTES = 1 << 16
_PARQUET = {".parquet", ".pq"}
_JSON = {".json", ".jsonl", ".ndjson"}
_WHOLE = r"^\s*-?[0-9]{1,18}(\.0*)?\s*$"


def read_table(path: Path) -> pa.Table:
    """Read a table.

    Args:
        path: Parquet, JSON (a list of objects), JSON lines, or else CSV: with a header,
            separated by commas, semicolons, tabs or bars, in UTF-8 or, with its mark, UTF-16.

    Returns:
        All columns that have a name; those of a CSV are text, an empty cell an empty text.

    Raises:
        InputError: If it is not there, cannot be read, or two columns have one name.
    """
    schema = table_schema(path)
    return pa.Table.from_batches(table_batches(path, dict.fromkeys(schema.names)), schema)


def table_schema(path: Path) -> pa.Schema:
    """Return the columns of a table that have a name, see `read_table`.

    Raises:
        InputError: If it is not there, cannot be read, or two columns have one name.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; wanted a CSV, Parquet or JSON file")
    kind = path.suffix.lower()
    if kind in _PARQUET:
        with _told(path, "Parquet"):
            fields = list(pq.read_schema(path))
    elif kind in _JSON:
        fields = list(_json_table(path).schema)
    else:
        fields = [pa.field(name, pa.string()) for name in _dialect(path).names]
    counts = Counter(field.name for field in fields if field.name)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(
            f"{path} has {counts[twice[0]]} columns named {twice[0]!r}; wanted every name once"
        )
    return pa.schema([field for field in fields if field.name])


def table_metadata(path: Path) -> Mapping[bytes, bytes]:
    """Return what a Parquet file says of itself; nothing of others.

    Raises:
        InputError: If it cannot be read.
    """
    if path.suffix.lower() not in _PARQUET:
        return {}
    with _told(path, "Parquet"):
        return pq.read_schema(path).metadata or {}


def table_batches(
    path: Path, columns: Mapping[str, pa.DataType | None]
) -> Iterator[pa.RecordBatch]:
    """Yield some columns of a table, in the order asked for, part by part.

    Args:
        path: See `read_table`.
        columns: Which, and for each the type that is wanted; None leaves it as it is.

    Raises:
        InputError: If it cannot be read, or a cell is not of the type.
    """
    names = list(columns)
    kind = path.suffix.lower()
    if kind in _JSON:
        parts = iter(_json_table(path).select(names).to_batches(max_chunksize=BATCH_ROWS))
    elif kind in _PARQUET:
        parts = _parquet_batches(path, names)
    else:
        parts = _csv_batches(path, columns)
    start = 0
    for part in parts:
        yield _cast(path, part, columns, start)
        start += part.num_rows


def whole_numbers(values: pa.Array | pa.ChunkedArray, what: str) -> pa.Array:
    """Return a column as int64: integers, whole floats, or text of such.

    Args:
        values: The column.
        what: Its name, for the message.

    Raises:
        InputError: If a value is none of these, or missing; the message names the row.
    """
    column = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    kind = column.type
    if pa.types.is_dictionary(kind):
        return whole_numbers(column.cast(kind.value_type), what)
    if column.null_count:
        row = pc.index(column.is_null(), value=True).as_py() + 1
        raise InputError(
            f"{what} is {kind} with {column.null_count} nulls, the first in row {row}; wanted "
            "whole numbers without nulls"
        )
    fits, digits = _whole(column)
    if pc.all(fits).as_py() is False:
        row = pc.index(fits, value=False).as_py()
        raise InputError(
            f"{what} is {kind}, and {column[row].as_py()!r} in row {row + 1}; wanted whole "
            "numbers without nulls"
        )
    try:
        return digits.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise InputError(f"{what} is {kind}; wanted whole numbers: {error}") from error


def _whole(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return which values are whole numbers, and what to cast of them."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        digits = pc.replace_substring_regex(pc.utf8_trim_whitespace(column), r"\.0*$", "")
        return pc.match_substring_regex(column, _WHOLE), digits
    if pa.types.is_floating(kind):
        return pc.equal(column, pc.trunc(column)), column
    return pa.repeat(pa.scalar(pa.types.is_integer(kind)), len(column)), column


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text in UTF-8 or, with its mark, UTF-16, without empty last ones.

    Raises:
        InputError: If it cannot be read.
    """
    return [line.removesuffix("\r") for line in _text(path).rstrip("\r\n").split("\n")]


def each_line(path: Path) -> Iterator[str]:
    """Yield the lines of such a text, without their ends, as they are read.

    Raises:
        InputError: If it cannot be read.
    """
    with _told(path, "text"):
        with path.open("rb") as file:
            codec = _codec(file.read(2))
        with path.open(encoding=codec, newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n").removesuffix("\r")


def _text(path: Path) -> str:
    with _told(path, "text"):
        data = path.read_bytes()
        return data.decode(_codec(data))


@dataclass(frozen=True, kw_only=True)
class _Dialect:
    names: list[str]
    delimiter: str
    encoding: str
    decimal_point: str


def _dialect(path: Path) -> _Dialect:
    """Look at the start of a CSV: what separates its columns, how its numbers are written."""
    with _told(path, "CSV"):
        with pa.input_stream(str(path)) as file:
            codec = _codec(file.read(2))
        with io.TextIOWrapper(pa.input_stream(str(path)), codec, newline="") as text:
            header = _first_record(text)
            peek = text.read(_PEEK_BYTES)
    if not header.strip() or "\0" in header:
        raise InputError(
            f"{path} {'holds zero bytes' if header.strip() else 'is empty'}; wanted a CSV with "
            "a header in UTF-8, or in UTF-16 that starts with its byte-order mark"
        )
    delimiter, names = _columns(header, peek)
    if not names:
        raise InputError(
            f"{path} has no header of a CSV: quotes in {header[:80]!r} do not close"
        )
    cells = re.split(f"[{re.escape(delimiter)}\r\n]", peek)
    comma = delimiter != "," and any(re.fullmatch(r'"?-?\d*,\d+"?', cell) for cell in cells)
    return _Dialect(
        names=names,
        delimiter=delimiter,
        encoding=codec,
        decimal_point="," if comma else ".",
    )


def _first_record(text: io.TextIOWrapper) -> str:
    """Return the first line that is not blank, with those that a quoted name goes on in."""
    record = ""
    for line in text:
        record = record + line if record.strip() else line
        if record.strip() and (record.count('"') % 2 == 0 or len(record) > _BLOCK_BYTES):
            break
    return record.rstrip("\r\n")


def _columns(header: str, rest: str) -> tuple[str, list[str]]:
    """Return the delimiter, and the names of a header: none if no delimiter parses it.

    The delimiter is one that the first row has as often as the header; of several, that which
    makes most columns.
    """
    found: dict[str, tuple[bool, list[str]]] = {}
    for mark in _DELIMITERS:
        names, first = (_first_row(text, mark) for text in (header, rest))
        if names:
            found[mark] = (len(first) == len(names) > 1, names)
    if not found:
        return _DELIMITERS[0], []
    best = max(found, key=lambda mark: (found[mark][0], len(found[mark][1])))
    return best, found[best][1]


def _first_row(text: str, delimiter: str) -> list[str]:
    """Return the cells of the first row; none if quotes do not close, as in what was cut."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return next((row for row in rows if row), [])
    except csv.Error:
        return []


def _csv_batches(
    path: Path, columns: Mapping[str, pa.DataType | None]
) -> Iterator[pa.RecordBatch]:
    dialect = _dialect(path)
    read = pyarrow.csv.ReadOptions(
        use_threads=False,  # with threads, errors name no row
        block_size=_BLOCK_BYTES,
        encoding=dialect.encoding.removesuffix("-sig"),
    )
    parse = pyarrow.csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True)
    convert = pyarrow.csv.ConvertOptions(
        column_types={name: kind or pa.string() for name, kind in columns.items()},
        include_columns=list(columns),
        decimal_point=dialect.decimal_point,
    )
    with (
        _told(path, "CSV"),
        pyarrow.csv.open_csv(
            path, read_options=read, parse_options=parse, convert_options=convert
        ) as reader,
    ):
        yield from reader


def _parquet_batches(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    with _told(path, "Parquet"), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=names):
            yield batch.select(names)


def _json_table(path: Path) -> pa.Table:
    text = _text(path)
    try:
        if path.suffix.lower() == ".json":
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} holds something else; wanted a JSON list of objects")
    names = dict.fromkeys(name for row in rows for name in row)
    with _told(path, "JSON"):
        return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def _cast(
    path: Path, part: pa.RecordBatch, columns: Mapping[str, pa.DataType | None], start: int
) -> pa.RecordBatch:
    arrays = []
    for name, kind in columns.items():
        try:
            arrays.append(part[name] if kind is None else part[name].cast(kind))
        except pa.ArrowException as error:
            raise InputError(
                f"{path} column {name!r} is {part[name].type}; wanted {kind}: {error} (below "
                f"row {start})"
            ) from error
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _codec(start: bytes) -> str:
    """Return how a text is written, by its byte-order mark."""
    marks = {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
    return "utf-16" if start[:2] in marks else "utf-8-sig"


@contextmanager
def _told(path: Path, kind: str) -> Iterator[None]:
    """Say of a file that cannot be read which one it is, and where it is no text."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        is_text = kind != "Parquet" and not isinstance(error, OSError)
        problem = _undecodable(path) if is_text else None
        raise problem or InputError(f"{path} cannot be read as {kind}: {error}") from error


def _undecodable(path: Path) -> InputError | None:
    """Return what to say of the first bytes that are no text, if there are such."""
    place, lines = 0, 1
    with pa.input_stream(str(path)) as file:
        part = file.read(_PEEK_BYTES)
        codec = _codec(part)
        decoder = codecs.getincrementaldecoder(codec.removesuffix("-sig"))()
        while True:
            pending = len(decoder.getstate()[0])
            try:
                lines += decoder.decode(part, final=not part).count("\n")
            except UnicodeDecodeError as error:
                at = place - pending + error.start
                lines += error.object[: error.start].count(b"\n")
                found = error.object[error.start : error.start + 1]
                wanted = codec.removesuffix("-sig").upper()
                return InputError(
                    f"{path} is no {wanted}: byte {at}, in line {lines}, is {found!r}; save "
                    "it as UTF-8"
                )
            if not part:
                return None
            place += len(part)
            part = file.read(_PEEK_BYTES)
