"""How a table's rows become the bytes of a Parquet file."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plstore.schema import Profile, TableSpec

_ROW_GROUP_BYTES = 8 << 20
_MAX_ROW_GROUP_ROWS = 65_536
_COUNTED = ("sample_id", "draw")


def parquet_bytes(rows: pa.Table, spec: TableSpec, profile: Profile) -> memoryview:
    """Return a Parquet file of rows.

    Encodings: zstd with a dictionary for every column; compressed images and coded tails
    without a dictionary; sample ids and draws, which ascend, without one either, and in the
    `compact` profile by DELTA_BINARY_PACKED: DuckDB reads them five times as fast as a
    dictionary. Floats of that profile by BYTE_STREAM_SPLIT. Row groups hold at most 8 MiB of
    Arrow data and 65,536 rows.
    """
    leaves = _leaves(rows.schema)
    raw = set(spec.raw_columns)
    encodings = _encodings(leaves) if profile == "compact" else {}
    binary = {n for n, kind in leaves.items() if kind == pa.binary()}
    no_dictionary = {*encodings, *raw, *binary, *_COUNTED}
    compression = {name: "NONE" if name in raw else "ZSTD" for name in leaves}
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows,
        sink,
        compression=compression,
        compression_level={n: spec.zstd_level for n in leaves if compression[n] == "ZSTD"},
        use_dictionary=[name for name in leaves if name not in no_dictionary],
        column_encoding=encodings or None,
        row_group_size=_row_group_size(rows),
        write_statistics=[name for name in leaves if name not in raw],
    )
    return memoryview(sink.getvalue())


def _row_group_size(rows: pa.Table) -> int:
    row_bytes = max(rows.nbytes // max(rows.num_rows, 1), 1)
    return int(min(max(_ROW_GROUP_BYTES // row_bytes, 64), _MAX_ROW_GROUP_ROWS))


def _encodings(leaves: Mapping[str, pa.DataType]) -> dict[str, str]:
    """Return the encodings of the columns that the `compact` profile writes otherwise."""
    floats = sorted(name for name, kind in leaves.items() if kind == pa.float32())
    encodings = dict.fromkeys(floats, "BYTE_STREAM_SPLIT")
    return encodings | {name: "DELTA_BINARY_PACKED" for name in _COUNTED if name in leaves}


def statistics(rows: pa.Table) -> dict[str, Any]:
    """Return what the commit log says of a file: rows, and the range of sample ids."""
    stats: dict[str, Any] = {"numRecords": rows.num_rows}
    if "sample_id" in rows.column_names and rows.num_rows:
        bounds = pc.min_max(rows["sample_id"]).as_py()
        if bounds["min"] is not None:  # a file that another program left has none
            stats["minValues"] = {"sample_id": bounds["min"]}
            stats["maxValues"] = {"sample_id": bounds["max"]}
    return stats


def _leaves(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return the type of each leaf column by its path as Parquet spells it."""
    leaves: dict[str, pa.DataType] = {}

    def visit(path: str, kind: pa.DataType) -> None:
        if pa.types.is_struct(kind):
            for field in kind:
                visit(f"{path}.{field.name}", field.type)
        elif pa.types.is_list(kind):
            visit(f"{path}.list.element", kind.value_type)
        else:
            leaves[path] = kind

    for field in schema:
        visit(field.name, field.type)
    return leaves
