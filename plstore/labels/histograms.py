"""How many labels of each class have which confidence: small files beside a label set.

A selection needs no more than these counts to know how many images of each class it keeps at
any floor and quota. They are written when labels are committed, cover shards by name, and can
be made again from those at any time; shards are never changed, so counts never go stale.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from plstore import storage
from plstore.fingerprint import content_hash
from plstore.machine import num_cores

if TYPE_CHECKING:
    from plstore.labels.label_sets import LabelSet
    from plstore.store import Shard, Store, Table

NUM_BUCKETS: Final = 1000
"""Buckets of confidence; bucket b holds what is above b / 1000 and up to (b + 1) / 1000, both
edges as float, so that a floor of three decimals falls between two buckets."""

HISTOGRAM: Final = pa.schema(
    [
        pa.field("class_id", pa.int32()),
        pa.field("bucket", pa.int32()),
        pa.field("num_labels", pa.int64()),
    ]
)

_COVERS = b"plstore.shards"
_MOST_CELLS = 1 << 22
_MOST_PARTS = 8
_FILES_AT_ONCE = 16


@dataclass(frozen=True)
class KeptCounts:
    """Files with counts of some shards.

    Attributes:
        paths: The files; no shard is counted twice.
        covered: Paths of the shards that they count.
        uncovered: Shards that no file has counts of.
    """

    paths: Sequence[Path]
    covered: Sequence[str]
    uncovered: "list[Shard]"

    def read(self) -> pa.Table:
        """Return the counts, as `HISTOGRAM`, added up by class and bucket."""
        total = HISTOGRAM.empty_table()
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            for start in range(0, len(self.paths), _FILES_AT_ONCE):
                part = pool.map(_read, self.paths[start : start + _FILES_AT_ONCE])
                total = _added_up(pa.concat_tables([total, *part]))
        return total


def write_histograms(
    store: "Store", shards: "Sequence[Shard]", count: "Count | None" = None
) -> None:
    """Count the labels of unlabeled images in shards that were committed, once.

    Args:
        store: The store.
        shards: Files of labels.
        count: What counts them; `count_labels` unless given.
    """
    count = count_labels if count is None else count
    folders: dict[Path, list[Shard]] = {}
    for shard in shards:
        if shard.partition["split"] == "unlabeled":
            folders.setdefault(_folder(store, shard.partition), []).append(shard)
    for folder, members in folders.items():
        covered = sorted(shard.path for shard in members)
        path = _path(folder, covered)
        if not path.exists():
            _write(path, count(store, members), covered)
            pa.default_memory_pool().release_unused()  # it goes on to be used for other things


def count_labels(store: "Store", shards: "Sequence[Shard]") -> pa.Table:
    """Return the counts of shards from their rows, as `HISTOGRAM`, by class and bucket."""
    table, num_cells = store.table("soft_labels"), len(store.class_names) * NUM_BUCKETS
    count = _count_few if num_cells <= _MOST_CELLS else _count_many
    width = num_cores()
    with ThreadPoolExecutor(width) as pool:
        parts = [shards[number::width] for number in range(width)]
        found = list(pool.map(lambda part: count(table, part, num_cells), parts))
    cells, places = np.unique(np.concatenate([c for c, _ in found]), return_inverse=True)
    counts = np.zeros(len(cells), np.int64)
    np.add.at(counts, places, np.concatenate([n for _, n in found]))
    columns = [cells // NUM_BUCKETS, cells % NUM_BUCKETS, counts]
    arrays = [pa.array(c).cast(f.type) for c, f in zip(columns, HISTOGRAM, strict=True)]
    return pa.Table.from_arrays(arrays, schema=HISTOGRAM)


Count = Callable[["Store", "Sequence[Shard]"], pa.Table]
"""Returns the counts of shards from their rows, as `HISTOGRAM`."""

_Counted = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]  # cells, and how often each is


def _count_few(table: "Table", shards: "Sequence[Shard]", num_cells: int) -> _Counted:
    """Count in an array of all cells there may be."""
    sums = np.zeros(num_cells, np.int64)
    for shard in shards:
        np.add.at(sums, _cells(table, shard), 1)
    cells = np.flatnonzero(sums)
    return cells, sums[cells]


def _count_many(table: "Table", shards: "Sequence[Shard]", _: int) -> _Counted:
    """Count in an array of the cells that there are."""
    cells, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for shard in shards:
        here, times = np.unique(_cells(table, shard), return_counts=True)
        cells, places = np.unique(np.concatenate([cells, here]), return_inverse=True)
        counts = np.bincount(places, np.concatenate([counts, times])).astype(np.int64)
    return cells, counts


def _cells(table: "Table", shard: "Shard") -> npt.NDArray[np.int64]:
    """Return class and bucket of each row of a file as one number."""
    path = storage.arrow_path(str(table.root / shard.path))
    with pq.ParquetFile(path, filesystem=storage.arrow_filesystem(table.root)) as file:
        rows = file.read(columns=["class_id", "confidence"], use_threads=False)
    cells = bucket_of(rows["confidence"].to_numpy())
    cells += rows["class_id"].to_numpy().astype(np.int64) * NUM_BUCKETS
    return cells


def bucket_of(confidence: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the bucket of each confidence, as SQL's `confidence_bucket` does."""
    exact = confidence.astype(np.float64)
    buckets = np.floor(exact * NUM_BUCKETS).astype(np.int64)
    buckets -= confidence <= (buckets / NUM_BUCKETS).astype(np.float32)
    return np.clip(buckets, 0, NUM_BUCKETS - 1, out=buckets)


def find_counts(
    store: "Store", label_set: "LabelSet", shards: "Collection[Shard]"
) -> KeptCounts:
    """Return where counts of a label set's shards are kept, and which shards have none."""
    missing = {shard.path: shard for shard in shards}
    paths, there = [], list[str]()
    for path, covered in _counted(_folder(store, label_set.partition)):
        if covered and covered <= missing.keys():
            paths.append(path)
            there += covered
            for name in covered:
                del missing[name]
        if not missing:
            break
    return KeptCounts(paths, there, list(missing.values()))


def merge_counts(store: "Store", label_set: "LabelSet", kept: KeptCounts) -> KeptCounts:
    """Write the counts of many files as one, to be read instead; return where counts are.

    A labeling leaves a file for each of its ranges: thousands, of much the same cells.
    """
    if len(kept.paths) <= _MOST_PARTS:
        return kept
    covered = sorted(kept.covered)
    path = _path(_folder(store, label_set.partition), covered)
    _write(path, kept.read(), covered)
    return replace(kept, paths=[path], covered=covered)


def stale_counts(store: "Store") -> Iterator[storage.FileEntry]:
    """Yield files with counts that nothing reads, by their paths below the store.

    Their shards are gone, or other files count all of them.
    """
    folder = store.work_folder("histograms")
    table = store.table("soft_labels")
    there = {entry.path for entry in storage.files_below(table.root)}
    files = [(entry, folder.joinpath(*entry.path.split("/"))) for entry in _entries(folder)]
    paths = [path for _, path in files]
    covered = dict(zip(paths, _read_covered(paths), strict=True))
    counted: set[str] = set()
    for entry, path in sorted(files, key=lambda file: (-len(covered[file[1]]), file[1].name)):
        is_needed = covered[path] <= there and not covered[path] <= counted
        if not is_needed:
            yield replace(entry, path=f"_plstore/histograms/{entry.path}")
        else:
            counted |= covered[path]


def _folder(store: "Store", partition: Mapping[str, str | int]) -> Path:
    names = (f"{key}={partition[key]}" for key in ("iteration", "teacher_id", "split"))
    return store.work_folder("histograms", *names)


def _path(folder: Path, covered: list[str]) -> Path:
    return folder / f"{content_hash(json.dumps(covered).encode())}.parquet"


def _entries(folder: Path) -> list[storage.FileEntry]:
    found = storage.files_below(folder)
    return [e for e in found if e.path.endswith(".parquet") and _is_shown(e.path)]


def _is_shown(path: str) -> bool:
    return not path.rpartition("/")[2].startswith(".")


def _counted(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    """Yield files with the shards that they count.

    Large ones come first, since they count most: parts do not keep out the whole, and once all
    shards are found no other file is looked at.
    """
    entries = sorted(_entries(folder), key=lambda entry: (-entry.size_bytes, entry.path))
    paths = [folder / entry.path for entry in entries]
    first = paths[:1]  # as a rule it counts everything
    for part in (first, *(paths[n : n + _FILES_AT_ONCE] for n in _starts(paths))):
        yield from zip(part, _read_covered(part), strict=True)


def _starts(paths: Sequence[Path]) -> range:
    return range(1, len(paths), _FILES_AT_ONCE)


def _read_covered(paths: Sequence[Path]) -> list[set[str]]:
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        return list(pool.map(_covered, paths))


def _added_up(counts: pa.Table) -> pa.Table:
    added = counts.group_by(HISTOGRAM.names[:2]).aggregate([("num_labels", "sum")])
    cells = [(name, "ascending") for name in HISTOGRAM.names[:2]]
    return added.rename_columns(HISTOGRAM.names).cast(HISTOGRAM).sort_by(cells)


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
