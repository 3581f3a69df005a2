"""Images to train on whose very bytes are also in validation, test or evaluation.

A model that has seen them is not tested by them. Found by content hash, once for the files of a
snapshot of `images`: what comes of it is kept in the store's cache, so that the next selection
does not look again.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from plstore import storage
from plstore.errors import StoreError
from plstore.fingerprint import content_hash
from plstore.query import fetch
from plstore.schema import ACCEPTED
from plstore.schema import HELD_OUT as HELD_OUT_SPLITS

if TYPE_CHECKING:
    from plstore.store import Shard, Store

HELD_OUT: Final = pa.schema([pa.field("sample_id", pa.int64()), pa.field("split", pa.string())])
"""An accepted image of the split labeled or unlabeled that is held out as well."""

_KEY: Final = b"plstore.images"
_FILES_AT_ONCE: Final = 256  # DuckDB keeps the footers of all files that a query reads

_HASHES = f"""
insert into hashes
select content_hash from images
where split in {HELD_OUT_SPLITS!r} and verdict = '{ACCEPTED}'
"""  # noqa: S608  no text of a user in it
_COPIES = f"""
select sample_id, split from images
where
    split in ('labeled', 'unlabeled') and verdict = '{ACCEPTED}'
    and content_hash in (select content_hash from hashes)
"""  # noqa: S608


def held_out_copies(store: "Store", version: int) -> pa.Table:
    """Return the copies in a snapshot of `images`, as `HELD_OUT`, by sample id."""
    shards = store.table("images").shards(version)
    key = content_hash(json.dumps([shard.path for shard in shards]).encode()).encode()
    path = store.cache_folder("held-out.parquet")
    kept = _read(path, key)
    if kept is not None:
        return kept
    found = _find(store, shards)
    with suppress(OSError, StoreError):  # who may only read looks each time
        sink = pa.BufferOutputStream()
        pq.write_table(found.replace_schema_metadata({_KEY: key}), sink)
        storage.write_atomically(path, memoryview(sink.getvalue()))
    return found


def _read(path: Path, key: bytes) -> pa.Table | None:
    """Return what is kept of these files, if it can be read."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        return None
    is_of_these = (table.schema.metadata or {}).get(_KEY) == key
    return table.replace_schema_metadata(None).cast(HELD_OUT) if is_of_these else None


def _find(store: "Store", shards: "Sequence[Shard]") -> pa.Table:
    tables = [HELD_OUT.empty_table()]
    with closing(duckdb.connect(":memory:")) as connection:
        connection.execute("create temp table hashes (content_hash varchar)")
        for _ in _parts(connection, store, shards):
            fetch(connection, _HASHES)
        (count,) = connection.execute("select count(*) from hashes").fetchall()[0]
        if count:
            parts = _parts(connection, store, shards)
            tables += [fetch(connection, _COPIES).cast(HELD_OUT) for _ in parts]
    return pa.concat_tables(tables).sort_by("sample_id").combine_chunks()


def _parts(
    connection: duckdb.DuckDBPyConnection, store: "Store", shards: "Sequence[Shard]"
) -> Iterator[None]:
    """Make `images` some of the files, and then the next."""
    table = store.table("images")
    for start in range(0, len(shards), _FILES_AT_ONCE):
        part = shards[start : start + _FILES_AT_ONCE]
        dataset = table.dataset_of(part)
        if storage.is_remote(store.root):
            connection.register("images", dataset)
        else:  # in half the time that Arrow takes
            files = [str(table.root / shard.path) for shard in part]
            try:
                rows = connection.read_parquet(files, hive_partitioning=False)
            except duckdb.IOException as error:  # one is gone since
                raise StoreError(f"cannot read the images of {store.root}: {error}") from error
            rows.create_view("images", replace=True)
        yield
