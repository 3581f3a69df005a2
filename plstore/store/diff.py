"""What changed between two label sets, or two views: shard by shard, in flat memory."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from plstore import storage
from plstore.store.labels import SHARD_IDS, LabelSet

if TYPE_CHECKING:
    from plstore.store.store import Store
    from plstore.store.table import Shard, Table
    from plstore.store.views import View

_Ids = npt.NDArray[np.int64]
_Classes = npt.NDArray[np.int32]
_Sums = npt.NDArray[np.float64]

_COLUMNS = ["sample_id", "class_id", "confidence"]
_THREADS = 2
_AHEAD = 8
_DENSE_PAIRS = 1 << 21  # up to 1,448 classes: 16 MiB for each of three numbers
_PENDING_PAIRS = 1 << 20

CHANGES = pa.schema(
    [
        pa.field("change", pa.string()),
        pa.field("class_before", pa.int32()),
        pa.field("class_after", pa.int32()),
        pa.field("images", pa.int64()),
        pa.field("confidence_before", pa.float64()),
        pa.field("confidence_after", pa.float64()),
    ]
)
"""One row a kind of change and pair of classes. `change` is kept, flipped, entered or left;
confidences are means over the images; what does not exist is null."""


@dataclass(frozen=True)
class _Side:
    """One side of a pair of aligned shards."""

    sample_ids: _Ids
    class_ids: _Classes
    confidence: npt.NDArray[np.float32]

    def at(self, rows: npt.NDArray[np.bool_] | _Ids) -> "_Side":
        return _Side(self.sample_ids[rows], self.class_ids[rows], self.confidence[rows])


@dataclass(frozen=True)
class _Changes:
    """What changed between two sides: sums by class, and each flipped label."""

    kept: tuple[_Ids, _Sums, _Sums]
    left: tuple[_Ids, _Sums]
    entered: tuple[_Ids, _Sums]
    flipped: tuple[_Side, _Side]


def diff_labels(
    store: "Store",
    before: Sequence[LabelSet],
    after: Sequence[LabelSet],
    *,
    version_before: int | None = None,
    version_after: int | None = None,
) -> pa.Table:
    """Return how labels changed, as `CHANGES`, by pair of classes.

    Shards of the same range of ids are compared side by side; where both hold the same ids
    without a gap, their rows are compared in place, without a join.

    Args:
        store: The store.
        before: Label sets, such as those of one teacher's splits.
        after: Label sets of the same splits.
        version_before: Of `soft_labels`, newest unless given.
        version_after: Of `soft_labels`, newest unless given.
    """
    table = store.table("soft_labels")
    pairs: list[tuple[list[Shard], list[Shard]]] = []
    for split in sorted({s.split for s in (*before, *after)}):
        old = _by_block(table, [x for x in before if x.split == split], version_before)
        new = _by_block(table, [x for x in after if x.split == split], version_after)
        pairs += [(old.get(b, []), new.get(b, [])) for b in sorted(old.keys() | new.keys())]
    totals = _Totals(len(store.class_names))
    for changes in _compared(table, pairs):
        totals.add(changes)
    return totals.table()


def diff_views(before: "View", after: "View") -> pa.Table:
    """Return which images entered, left or changed their class between two views."""
    totals = _Totals(len(before.store.class_names))
    totals.add(_compare(*(_view_side(view) for view in (before, after))))
    return totals.table()


def _view_side(view: "View") -> _Side:
    dataset = view.store.table("view_rows").dataset_of(view.shards())
    rows = dataset.to_table(columns=_COLUMNS).sort_by("sample_id")
    return _Side(*(rows[name].to_numpy() for name in _COLUMNS))


def _by_block(
    table: "Table", sets: Sequence[LabelSet], version: int | None
) -> "dict[int, list[Shard]]":
    blocks: dict[int, list[Shard]] = {}
    for label_set in sets:
        for shard in table.shards(version, label_set.partition):
            blocks.setdefault(shard.first_id // SHARD_IDS, []).append(shard)
    return blocks


def _compared(
    table: "Table", pairs: "Sequence[tuple[list[Shard], list[Shard]]]"
) -> Iterator[_Changes]:
    """Yield the changes of each pair, a few pairs ahead of whoever asks."""

    def work(pair: "tuple[list[Shard], list[Shard]]") -> _Changes:
        old, new = pair
        if _same_ids(old, new):
            ids = np.empty(0, np.int64)  # not looked at
            sides = (_Side(ids, *_read(table, shards, _COLUMNS[1:])) for shards in pair)
            return _compare_rows(*sides)
        sides = (_sorted(_Side(*_read(table, shards, _COLUMNS))) for shards in pair)
        return _compare(*sides)

    source = iter(pairs)
    with ThreadPoolExecutor(_THREADS) as pool:
        while batch := list(islice(source, _AHEAD)):
            yield from pool.map(work, batch)


def _same_ids(old: "list[Shard]", new: "list[Shard]") -> bool:
    """Whether both are one file with the same ids, none missing: known without reading them."""
    if len(old) != 1 or len(new) != 1:
        return False
    bounds = [(s.first_id, s.last_id, s.num_rows) for s in (old[0], new[0])]
    first, last, count = bounds[0]
    return bounds[0] == bounds[1] and last - first + 1 == count


def _read(table: "Table", shards: "list[Shard]", columns: list[str]) -> list[npt.NDArray]:  # type: ignore[type-arg]  # of several types
    parts = [_open(table, shard).read(columns=columns, use_threads=False) for shard in shards]
    if not parts:
        kinds = [table.spec.columns.field(name).type for name in columns]
        return [np.empty(0, kind.to_pandas_dtype()) for kind in kinds]
    rows = pa.concat_tables(parts)
    return [rows[name].to_numpy() for name in columns]


def _open(table: "Table", shard: "Shard") -> pq.ParquetFile:
    path = table.root / shard.path
    if storage.is_remote(path):
        return pq.ParquetFile(
            storage.arrow_path(path), filesystem=storage.arrow_filesystem(path)
        )
    return pq.ParquetFile(path, memory_map=True, pre_buffer=False)  # half the time


def _sorted(side: _Side) -> _Side:
    if (np.diff(side.sample_ids) > 0).all():
        return side
    return side.at(np.argsort(side.sample_ids, kind="stable"))


def _compare(old: _Side, new: _Side) -> _Changes:
    in_both = np.intersect1d(old.sample_ids, new.sample_ids, assume_unique=True)
    changes = _compare_rows(
        old.at(np.searchsorted(old.sample_ids, in_both)),
        new.at(np.searchsorted(new.sample_ids, in_both)),
    )
    left = old.at(~np.isin(old.sample_ids, in_both, assume_unique=True))
    entered = new.at(~np.isin(new.sample_ids, in_both, assume_unique=True))
    return replace(changes, left=_by_class(left), entered=_by_class(entered))


def _compare_rows(old: _Side, new: _Side) -> _Changes:
    """Compare rows of the same images, in the same order."""
    flipped = np.flatnonzero(old.class_ids != new.class_ids)
    before = _Side(flipped, old.class_ids[flipped], old.confidence[flipped])
    after = _Side(flipped, new.class_ids[flipped], new.confidence[flipped])
    # Those that kept their class are all less those that did not: no other row is copied.
    width = int(old.class_ids.max(initial=-1)) + 1
    counts = np.bincount(old.class_ids, minlength=width)
    counts -= np.bincount(before.class_ids, minlength=width)
    sums = [
        np.bincount(old.class_ids, side.confidence, width)
        - np.bincount(before.class_ids, moved.confidence, width)
        for side, moved in ((old, before), (new, after))
    ]
    nothing = np.empty(0, np.int64), np.empty(0)
    return _Changes((counts, *sums), nothing, nothing, (before, after))


def _by_class(side: _Side) -> tuple[_Ids, _Sums]:
    return np.bincount(side.class_ids), np.bincount(side.class_ids, side.confidence)


class _Totals:
    """Sums of changes: in dense arrays, or where there are too many pairs of classes sorted."""

    def __init__(self, num_classes: int) -> None:
        self._width = num_classes
        self._kept = [np.zeros(num_classes) for _ in range(3)]
        self._left = [np.zeros(num_classes) for _ in range(2)]
        self._entered = [np.zeros(num_classes) for _ in range(2)]
        dense = num_classes * num_classes <= _DENSE_PAIRS
        self._dense = [np.zeros(num_classes**2) for _ in range(3)] if dense else None
        self._pairs = np.empty(0, np.int64)
        self._sparse = [np.empty(0) for _ in range(3)]
        self._pending: list[tuple[_Ids, list[_Sums]]] = []

    def add(self, changes: _Changes) -> None:
        """Add the changes of one pair of shards."""
        for totals, found in (
            (self._kept, changes.kept),
            (self._left, changes.left),
            (self._entered, changes.entered),
        ):
            for total, part in zip(totals, found, strict=True):
                total[: len(part)] += part
        before, after = changes.flipped
        pairs = before.class_ids.astype(np.int64) * self._width + after.class_ids
        values = [
            np.ones(len(pairs)),
            before.confidence.astype(np.float64),
            after.confidence.astype(np.float64),
        ]
        if self._dense is not None:
            for total, value in zip(self._dense, values, strict=True):
                np.add.at(total, pairs, value)
            return
        self._pending.append((pairs, values))
        if sum(len(p) for p, _ in self._pending) > max(_PENDING_PAIRS, len(self._pairs)):
            self._settle()

    def _settle(self) -> None:
        parts = [(self._pairs, self._sparse), *self._pending]
        pairs = np.concatenate([p for p, _ in parts])
        self._pairs, index = np.unique(pairs, return_inverse=True)
        self._sparse = [
            np.asarray(
                np.bincount(index, np.concatenate([v[n] for _, v in parts]), len(self._pairs)),
                np.float64,
            )
            for n in range(3)
        ]
        self._pending = []

    def table(self) -> pa.Table:
        """Return the sums as `CHANGES`, most frequent first in each kind."""
        if self._dense is None:
            self._settle()
            pairs, sums = self._pairs, self._sparse
        else:
            pairs = np.flatnonzero(self._dense[0])
            sums = [total[pairs] for total in self._dense]
        kept, left, entered = (
            np.flatnonzero(totals[0]) for totals in (self._kept, self._left, self._entered)
        )
        parts = [
            _rows("entered", None, entered, [t[entered] for t in self._entered]),
            _rows("flipped", pairs // self._width, pairs % self._width, sums),
            _rows("kept", kept, kept, [t[kept] for t in self._kept]),
            _rows("left", left, None, [t[left] for t in self._left]),
        ]
        order = [("change", "ascending"), ("images", "descending")]
        keys = [(name, "ascending") for name in ("class_before", "class_after")]
        return pa.concat_tables(parts).sort_by([*order, *keys])


def _rows(
    change: str, before: _Ids | None, after: _Ids | None, sums: Sequence[_Sums]
) -> pa.Table:
    counts, *confidences = sums
    means = iter([total / counts for total in confidences])
    size = len(counts)
    columns = [pa.repeat(pa.scalar(change), size)]
    for classes in (before, after):
        columns += [pa.nulls(size) if classes is None else pa.array(classes)]
    columns += [pa.array(counts.astype(np.int64))]
    for classes in (before, after):
        columns += [pa.nulls(size) if classes is None else pa.array(next(means))]
    return pa.table(columns, names=CHANGES.names).cast(CHANGES)
