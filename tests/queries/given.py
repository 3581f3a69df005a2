"""Cases of saved queries: a TOML file of given rows, parameters and expected rows each.

Rows name only the columns that matter; the others have the values below. `p` of a soft label
is its distribution: class, confidence, entropy and the coded label follow from it. A column
that is missing from an expected row is expected to be null.
"""

import tomllib
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from plstore.codec import Codec, encode
from plstore.query.functions import create_functions
from plstore.query.table_macros import create_table_macros
from plstore.schema import TABLES

FOLDER = Path(__file__).parent
CLASSES = ("cat", "dog", "owl")
_DEFAULTS: dict[str, dict[str, Any]] = {
    "images": {"dataset": "pets", "split": "unlabeled", "verdict": "accepted"},
    "soft_labels": {"iteration": 1, "teacher_id": "t0", "split": "unlabeled"},
    "perturbed_labels": {"teacher_id": "t0", "split": "test"},
    "view_rows": {"view": "v", "version": 1, "kind": "pseudo", "copies": 1},
    "views": {"view": "v", "version": 1, "parameters": "{}"},
    "embeddings": {"model": "net", "split": "unlabeled"},
}


def cases() -> list[Path]:
    """Return the case files; their paths are those of the queries."""
    return sorted(FOLDER.rglob("*.toml"))


def read_case(path: Path) -> dict[str, Any]:
    """Read a case."""
    return tomllib.loads(path.read_text())


def connect_given(
    given: dict[str, list[dict[str, Any]]], *, threads: int = 2, reverse: bool = False
) -> duckdb.DuckDBPyConnection:
    """Open DuckDB with tables of the given rows, and all others empty."""
    connection = duckdb.connect(config={"threads": threads})
    names = [{"class_id": n, "name": name} for n, name in enumerate(CLASSES)]
    rows = {"classes": names, **given}
    for name, spec in TABLES.items():
        filled = [_filled(name, row) for row in rows.get(name, [])]
        if reverse:
            filled.reverse()
        connection.register(name, pa.Table.from_pylist(filled, schema=spec.columns))
    create_functions(connection, len(CLASSES))
    create_table_macros(connection)
    return connection


def _filled(table: str, row: dict[str, Any]) -> dict[str, Any]:
    filled = {**_DEFAULTS.get(table, {}), **row}
    if table == "images":
        filled.setdefault("key", f"{row['sample_id']}.png")
        filled.setdefault("content_hash", str(row["sample_id"]))
    if "p" in row:
        coded = encode(np.array([row["p"]], np.float32), Codec())
        found = {
            "class_id": int(coded.class_ids[0]),
            "confidence": float(coded.confidence[0]),
            "entropy": float(coded.entropy[0]),
            "label": coded.labels[0].as_py(),
        }
        filled = {**found, **filled}
    return filled
