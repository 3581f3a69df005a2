"""The files of a snapshot of `images`, read some at a time; what was found in them is kept.

A reader of Parquet keeps the footers of all files of a query: gigabytes of a hundred thousand.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from plstore import storage
from plstore.errors import StoreError
from plstore.fingerprint import content_hash

if TYPE_CHECKING:
    from plstore.store import Shard, Store

_KEY: Final = b"plstore.images"
_NOTES: Final = b"plstore.notes"
_FILES_AT_ONCE: Final = 256


def some_at_a_time(
    connection: duckdb.DuckDBPyConnection, store: "Store", shards: "Sequence[Shard]"
) -> Iterator[None]:
    """Make `images` of a connection some of the files, and then the next."""
    table = store.table("images")
    for start in range(0, len(shards), _FILES_AT_ONCE):
        part = shards[start : start + _FILES_AT_ONCE]
        if storage.is_remote(store.root):
            connection.register("images", table.dataset_of(part))
        else:  # in half the time that Arrow takes
            files = [str(table.root / shard.path) for shard in part]
            try:
                rows = connection.read_parquet(files, hive_partitioning=False)
            except duckdb.IOException as error:  # one is gone since
                raise StoreError(f"cannot read the images of {store.root}: {error}") from error
            rows.create_view("images", replace=True)
        yield


@dataclass(frozen=True)
class KeptFinding:
    """What was found in files, in the store's cache: the next selection does not look again.

    Attributes:
        path: Where it is kept.
        key: Of the files.
    """

    path: Path
    key: bytes

    @classmethod
    def of(cls, store: "Store", name: str, shards: "Sequence[Shard]") -> "KeptFinding":
        """Return the place of what is found in some files."""
        key = content_hash(json.dumps([shard.path for shard in shards]).encode())
        return cls(store.cache_folder(f"{name}.parquet"), key.encode())

    def read(self, schema: pa.Schema) -> tuple[pa.Table, Mapping[str, Any]] | None:
        """Return rows and notes, if there are any of these files that can be read."""
        try:
            table = pq.read_table(self.path)
        except (OSError, pa.ArrowInvalid):
            return None
        about = table.schema.metadata or {}
        if about.get(_KEY) != self.key:
            return None
        rows = table.replace_schema_metadata(None).cast(schema)
        return rows, json.loads(about.get(_NOTES, b"{}"))

    def write(self, rows: pa.Table, notes: Mapping[str, Any] | None = None) -> None:
        """Keep rows and notes; who may only read looks each time."""
        about = {_KEY: self.key, _NOTES: json.dumps(dict(notes or {})).encode()}
        with suppress(OSError, StoreError):
            sink = pa.BufferOutputStream()
            pq.write_table(rows.replace_schema_metadata(about), sink)
            storage.write_atomically(self.path, memoryview(sink.getvalue()))
