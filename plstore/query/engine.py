"""DuckDB as the engine of selections: a connection of its own, which no user's SQL shares."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from plstore.query.macros import create_macros
from plstore.query.session import stream
from plstore.store import Store


class DuckDBEngine:
    """Runs the steps of a selection over the relation `candidates` of a connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Take a connection that has `candidates`."""
        self.connection = connection

    def rows(
        self, sql: str, parameters: Mapping[str, Any], tables: Mapping[str, pa.Table]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a query over `candidates` and some small tables."""
        for name, table in tables.items():
            self.connection.register(name, table)
        yield from stream(self.connection, sql, parameters)


def scratch_folder(store: Store) -> Path:
    """Return a local folder for what lives as long as one selection."""
    return store.cache_folder("select")


@contextmanager
def scratch_files(store: Store) -> Iterator[Path]:
    """Make a local folder that is gone afterwards."""
    scratch_folder(store).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pool-", dir=scratch_folder(store)) as name:
        yield Path(name)


@contextmanager
def scratch_connection(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open DuckDB with the macros of selections and a local folder to spill to."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".spill-", dir=folder) as spill:
        connection = duckdb.connect(":memory:", config={"temp_directory": spill})
        try:
            create_macros(connection)
            yield connection
        finally:
            connection.close()
