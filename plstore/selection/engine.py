"""DuckDB as the engine of selections: a connection of its own, which no user's SQL shares."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa

from plstore import storage
from plstore.machine import memory_bytes
from plstore.query import create_macros, stream
from plstore.selection.pool import Pool
from plstore.store import Store

_FILES_AT_ONCE = 256
_DAY = 86_400
_PERCENT = 80


class DuckDBEngine:
    """Runs the steps of a selection over a pool, some of its files after the others.

    Every step decides a row alone, or adds up; so parts of the pool give parts of the answer,
    and memory is that of one part: DuckDB keeps the footers of all files that a query reads.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        pool: Pool,
        *,
        with_label: bool = False,
        files_at_once: int = _FILES_AT_ONCE,
    ) -> None:
        """Name the candidates.

        Args:
            connection: Of `scratch_connection`.
            pool: The candidates.
            with_label: Whether they have their label.
            files_at_once: Of one part.
        """
        self._connection = connection
        self._pool = pool
        self._with_label = with_label
        self._files_at_once = files_at_once

    def rows(
        self, sql: str, parameters: Mapping[str, Any], tables: Mapping[str, pa.Table]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a query over `candidates` and some small tables."""
        for name, table in tables.items():  # with statistics, which a registered table lacks
            self._connection.register("given", table)
            self._connection.execute(
                f"create or replace temp table {name} as from given order by all"
            )
            self._connection.unregister("given")
        for part in self._pool.parts(self._files_at_once):
            part.register(self._connection, with_label=self._with_label)
            yield from stream(self._connection, sql, parameters)


def scratch_folder(store: Store) -> Path:
    """Return a local folder for what lives as long as one selection.

    Not in the cache: a deletion empties that, and must not take from a selection that runs.
    What a killed one left there is deleted a day later.
    """
    folder = store.work_folder("select")
    if storage.is_remote(store.root):
        cache = store.cache_folder()
        folder = cache.with_name(f"{cache.name}-select")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        with suppress(OSError):  # another process was first
            if time.time() - path.stat().st_mtime > _DAY:
                shutil.rmtree(path, ignore_errors=True)
    return folder


@contextmanager
def scratch_files(store: Store) -> Iterator[Path]:
    """Make a local folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=".pool-", dir=scratch_folder(store)) as name:
        yield Path(name)


@contextmanager
def shared_files(store: Store, *, elsewhere: bool) -> Iterator[Path]:
    """Make a folder that is gone afterwards, for work that is done `elsewhere` or here alone.

    Whoever sees a store's folder or bucket sees it. In a bucket, what a killed selection leaves
    is of `plstore gc`.
    """
    if not (elsewhere and storage.is_remote(store.root)):
        with tempfile.TemporaryDirectory(prefix=".pack-", dir=scratch_folder(store)) as name:
            yield Path(name)
        return
    folder = store.work_folder("select", f".pack-{uuid4().hex}")
    try:
        yield folder
    finally:
        for entry in storage.files_below(folder):
            storage.delete_file(folder / entry.path)


@contextmanager
def scratch_connection(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open DuckDB with the macros of selections and a local folder to spill to.

    It takes at most 80 % of the memory that this process can have, of its container's too.
    """
    with tempfile.TemporaryDirectory(prefix=".spill-", dir=folder) as spill:
        memory = f"{memory_bytes() * _PERCENT // 100 >> 20}MiB"
        connection = duckdb.connect(
            ":memory:", config={"temp_directory": spill, "memory_limit": memory}
        )
        # Where an order matters, a query asks for it.
        connection.execute("set preserve_insertion_order = false")
        try:
            create_macros(connection)
            yield connection
        finally:
            connection.close()
