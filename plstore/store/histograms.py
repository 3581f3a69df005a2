"""How many labels of each class have which confidence: small files beside a label set.

A selection needs no more than these counts to know how many images of each class it keeps at
any floor and quota. They are written when labels are committed, cover shards by name, and can
be made again from those at any time; shards are never changed, so counts never go stale.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from plstore import storage
from plstore.errors import StoreError
from plstore.fingerprint import content_hash

if TYPE_CHECKING:
    from plstore.store.labels import LabelSet
    from plstore.store.shard import Shard
    from plstore.store.store import Store

NUM_BUCKETS: Final = 1000
"""Buckets of confidence; bucket b holds what is above b / 1000 and up to (b + 1) / 1000, both
edges as float, so that a floor of three decimals falls between two buckets."""

BUCKET_SQL: Final = (
    "greatest(0, least(999, cast(floor(cast({0} as double) * 1000) as integer)"
    " - cast({0} <= cast(floor(cast({0} as double) * 1000) / 1000 as float) as integer)))"
)
"""The bucket of a confidence, in SQL that DuckDB and Spark read alike."""

HISTOGRAM: Final = pa.schema(
    [
        pa.field("class_id", pa.int32()),
        pa.field("bucket", pa.int32()),
        pa.field("num_labels", pa.int64()),
    ]
)

_COVERS = b"plstore.shards"
_COUNT = f"""
select
    class_id,
    {BUCKET_SQL.format("confidence")} as bucket,
    count(*) as num_labels
from labels
group by all
"""  # noqa: S608  no text of a user in it
_CELLS = f"""
select (class_id * {NUM_BUCKETS} + {BUCKET_SQL.format("confidence")})::integer as cell
from labels
"""  # noqa: S608
_MOST_CELLS = 1 << 22
_COUNTED_ROWS = 500_000
_FILES_AT_ONCE = 512


@dataclass(frozen=True)
class KeptCounts:
    """Files with counts of some shards.

    Attributes:
        paths: The files; no shard is counted twice.
        uncovered: Shards that no file has counts of.
    """

    paths: Sequence[Path]
    uncovered: "list[Shard]"

    def read(self) -> pa.Table:
        """Return the counts, as `HISTOGRAM`; of several files, rows are to be added up."""
        tables = [_read(path) for path in self.paths]
        return pa.concat_tables(tables) if tables else HISTOGRAM.empty_table()


def register_labels(
    connection: duckdb.DuckDBPyConnection,
    store: "Store",
    shards: "Sequence[Shard]",
    *,
    name: str,
) -> None:
    """Make the rows of label shards a view of a connection that is not locked yet.

    DuckDB reads the files of a folder itself, which takes half the time that Arrow takes; those
    of an object store come through Arrow.
    """
    table = store.table("soft_labels")
    if storage.is_remote(store.root) or not shards:
        connection.register(name, table.dataset_of(shards))
        return
    files = [str(table.root / shard.path) for shard in shards]
    try:
        connection.read_parquet(files, hive_partitioning=False).create_view(name, replace=True)
    except duckdb.IOException as error:
        raise StoreError(
            f"a file of labels is gone: it was collected, because neither the newest snapshot "
            f"nor a tag or view needs it, or it was lost; 'plstore verify' tells ({error})"
        ) from error


def write_histograms(store: "Store", shards: "Sequence[Shard]") -> None:
    """Count the labels of unlabeled images in shards that were committed, once."""
    folders: dict[Path, list[Shard]] = {}
    for shard in shards:
        if shard.partition["split"] == "unlabeled":
            folders.setdefault(_folder(store, shard.partition), []).append(shard)
    for folder, members in folders.items():
        covered = sorted(shard.path for shard in members)
        path = folder / f"{content_hash(json.dumps(covered).encode())}.parquet"
        if not path.exists():
            _write(path, count_labels(store, members), covered)
            pa.default_memory_pool().release_unused()  # it goes on to be used for other things


def count_labels(store: "Store", shards: "Sequence[Shard]") -> pa.Table:
    """Return the counts of shards from their rows, as `HISTOGRAM`, by class and bucket."""
    num_classes = len(store.class_names)
    with closing(duckdb.connect(":memory:")) as connection:
        if num_classes * NUM_BUCKETS > _MOST_CELLS:
            register_labels(connection, store, shards, name="labels")
            rows = connection.sql(_COUNT).to_arrow_table().cast(HISTOGRAM)
            return rows.sort_by([("class_id", "ascending"), ("bucket", "ascending")])
        # Few cells are counted in half the time and a quarter of the memory of a hash table.
        cells = np.zeros(num_classes * NUM_BUCKETS, np.int64)
        for start in range(0, len(shards), _FILES_AT_ONCE):
            part = shards[start : start + _FILES_AT_ONCE]
            register_labels(connection, store, part, name="labels")
            for batch in connection.sql(_CELLS).to_arrow_reader(_COUNTED_ROWS):
                cells += np.bincount(batch["cell"].to_numpy(), minlength=len(cells))
    found = np.flatnonzero(cells)
    columns = [found // NUM_BUCKETS, found % NUM_BUCKETS, cells[found]]
    arrays = [pa.array(c).cast(f.type) for c, f in zip(columns, HISTOGRAM, strict=True)]
    return pa.Table.from_arrays(arrays, schema=HISTOGRAM)


def find_counts(
    store: "Store", label_set: "LabelSet", shards: "Collection[Shard]"
) -> KeptCounts:
    """Return where counts of a label set's shards are kept, and which shards have none."""
    missing = {shard.path: shard for shard in shards}
    paths = []
    for path in _files(_folder(store, label_set.partition)):
        covered = _covered(path)
        if covered and covered <= missing.keys():
            paths.append(path)
            for name in covered:
                del missing[name]
    return KeptCounts(paths, list(missing.values()))


def stale_counts(store: "Store") -> Iterator[storage.FileEntry]:
    """Yield files with counts of shards that are gone, by their paths below the store."""
    folder = store.work_folder("histograms")
    table = store.table("soft_labels")
    there = {entry.path for entry in storage.files_below(table.root)}
    for entry in storage.files_below(folder):
        path = folder.joinpath(*entry.path.split("/"))
        if path.suffix == ".parquet" and path.name[0] != "." and not _covered(path) <= there:
            yield replace(entry, path=f"_plstore/histograms/{entry.path}")


def _folder(store: "Store", partition: Mapping[str, str | int]) -> Path:
    names = (f"{key}={partition[key]}" for key in ("iteration", "teacher_id", "split"))
    return store.work_folder("histograms", *names)


def _files(folder: Path) -> list[Path]:
    names = [entry.path for entry in storage.files_below(folder)]
    shown = [name for name in names if not name.startswith(".")]
    # Those that cover most come first, so that parts do not keep out the whole.
    return sorted(
        (folder / name for name in shown), key=lambda path: (-len(_covered(path)), path.name)
    )


def _write(path: Path, counts: pa.Table, covered: list[str]) -> None:
    sink = pa.BufferOutputStream()
    described = counts.replace_schema_metadata({_COVERS: json.dumps(covered).encode()})
    pq.write_table(described, sink, compression="ZSTD")
    storage.write_atomically(path, memoryview(sink.getvalue()))


def _read(path: Path) -> pa.Table:
    table = pq.read_table(storage.arrow_path(path), filesystem=storage.arrow_filesystem(path))
    return table.replace_schema_metadata(None).cast(HISTOGRAM)


def _covered(path: Path) -> set[str]:
    """Return the shards that a file counts; none if it cannot be read."""
    try:
        schema = pq.read_schema(
            storage.arrow_path(path), filesystem=storage.arrow_filesystem(path)
        )
    except (OSError, pa.ArrowInvalid):
        return set()
    names: list[str] = json.loads((schema.metadata or {}).get(_COVERS, b"[]"))
    return set(names)
