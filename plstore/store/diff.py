"""What changed between two label sets, or two views: shard by shard, in flat memory."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
_COLUMNS = ["sample_id", "class_id", "confidence"]
_THREADS = 2
_AHEAD = 8
_PENDING_ROWS = 1_000_000

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
    class_ids: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]

    def at(self, rows: npt.NDArray[np.bool_] | _Ids) -> "_Side":
        return _Side(self.sample_ids[rows], self.class_ids[rows], self.confidence[rows])


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
    splits = sorted({s.split for s in (*before, *after)})
    pairs: list[tuple[list[Shard], list[Shard]]] = []
    for split in splits:
        old = [s for x in before if x.split == split for s in _files(table, x, version_before)]
        new = [s for x in after if x.split == split for s in _files(table, x, version_after)]
        blocks = sorted({s.first_id // SHARD_IDS for s in (*old, *new)})
        by_block = [_by_block(old), _by_block(new)]
        pairs += [(by_block[0].get(b, []), by_block[1].get(b, [])) for b in blocks]
    return _summed(_compared(table, pairs))


def diff_views(before: "View", after: "View") -> pa.Table:
    """Return which images entered, left or changed their class between two views."""
    sides = [_view_side(view) for view in (before, after)]
    return _summed([_compare(*sides)])


def _view_side(view: "View") -> _Side:
    dataset = view.store.table("view_rows").dataset_of(view.shards())
    rows = dataset.to_table(columns=_COLUMNS).sort_by("sample_id")
    return _Side(*(rows[name].to_numpy() for name in _COLUMNS))


def _files(table: "Table", label_set: LabelSet, version: int | None) -> "list[Shard]":
    return table.shards(version, label_set.partition)


def _by_block(shards: "Sequence[Shard]") -> "dict[int, list[Shard]]":
    blocks: dict[int, list[Shard]] = {}
    for shard in shards:
        blocks.setdefault(shard.first_id // SHARD_IDS, []).append(shard)
    return blocks


def _compared(
    table: "Table", pairs: "Sequence[tuple[list[Shard], list[Shard]]]"
) -> Iterator[pa.Table]:
    """Yield the changes of each pair, a few pairs ahead of whoever asks."""

    def work(pair: "tuple[list[Shard], list[Shard]]") -> pa.Table:
        old, new = pair
        if _same_ids(old, new):
            columns = _COLUMNS[1:]
            sides = [_read(table, shards, columns) for shards in pair]
            ids = np.arange(old[0].first_id, old[0].last_id + 1)
            return _compare_rows(*(_Side(ids, *columns) for columns in sides))
        sides = [_read(table, shards, _COLUMNS) for shards in pair]
        return _compare(*(_sorted(_Side(*columns)) for columns in sides))

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
    filesystem = storage.arrow_filesystem(table.root)
    parts = []
    for shard in shards:
        path = storage.arrow_path(table.root / shard.path)
        with filesystem.open_input_file(path) as file:
            parts.append(pq.ParquetFile(file).read(columns=columns, use_threads=False))
    if not parts:
        kinds = [table.spec.columns.field(name).type for name in columns]
        return [np.empty(0, kind.to_pandas_dtype()) for kind in kinds]
    rows = pa.concat_tables(parts)
    return [rows[name].to_numpy() for name in columns]


def _sorted(side: _Side) -> _Side:
    if (np.diff(side.sample_ids) > 0).all():
        return side
    return side.at(np.argsort(side.sample_ids, kind="stable"))


def _compare(old: _Side, new: _Side) -> pa.Table:
    in_both = np.intersect1d(old.sample_ids, new.sample_ids, assume_unique=True)
    left = old.at(~np.isin(old.sample_ids, in_both, assume_unique=True))
    entered = new.at(~np.isin(new.sample_ids, in_both, assume_unique=True))
    parts = [
        _compare_rows(
            old.at(np.searchsorted(old.sample_ids, in_both)),
            new.at(np.searchsorted(new.sample_ids, in_both)),
        ),
        _partial("left", left, None),
        _partial("entered", None, entered),
    ]
    return pa.concat_tables(parts)


def _compare_rows(old: _Side, new: _Side) -> pa.Table:
    flipped = old.class_ids != new.class_ids
    kept = ~flipped
    return pa.concat_tables(
        [
            _partial("kept", old.at(kept), new.at(kept)),
            _partial("flipped", old.at(flipped), new.at(flipped)),
        ]
    )


_PARTIAL = pa.schema(
    [
        pa.field("change", pa.string()),
        pa.field("class_before", pa.int32()),
        pa.field("class_after", pa.int32()),
        pa.field("images", pa.int64()),
        pa.field("sum_before", pa.float64()),
        pa.field("sum_after", pa.float64()),
    ]
)


def _partial(change: str, old: _Side | None, new: _Side | None) -> pa.Table:
    """Return one row a pair of classes, with sums that add up over shards."""
    side = old or new
    if side is None or not len(side.class_ids):
        return _PARTIAL.empty_table()
    first, second = (old or side).class_ids, (new or side).class_ids
    width = int(max(first.max(), second.max())) + 1
    if change == "flipped":
        present, index = np.unique(first.astype(np.int64) * width + second, return_inverse=True)
        before, after = present // width, present % width
    else:  # both classes are the same: count them without sorting
        present = np.flatnonzero(np.bincount(first))
        index = np.searchsorted(present, first)
        before = after = present
    counts = np.bincount(index)
    sums = [None if s is None else np.bincount(index, s.confidence) for s in (old, new)]
    nulls = pa.nulls(len(present))
    columns = [
        pa.repeat(pa.scalar(change), len(present)),
        nulls if old is None else pa.array(before),
        nulls if new is None else pa.array(after),
        pa.array(counts),
        *(nulls if s is None else pa.array(s) for s in sums),
    ]
    return pa.table(columns, names=_PARTIAL.names).cast(_PARTIAL)


def _summed(parts: Iterable[pa.Table]) -> pa.Table:
    keys = ["change", "class_before", "class_after"]
    total, pending, num_pending = _PARTIAL.empty_table(), [], 0
    for part in parts:
        pending.append(part)
        num_pending += part.num_rows
        if num_pending > max(_PENDING_ROWS, total.num_rows):
            total, pending, num_pending = _grouped([total, *pending], keys), [], 0
    total = _grouped([total, *pending], keys)
    images = total["images"]
    result = pa.table(
        [
            *(total[name] for name in keys),
            images,
            pa.compute.divide(total["sum_before"], images),
            pa.compute.divide(total["sum_after"], images),
        ],
        schema=CHANGES,
    )
    order = [("change", "ascending"), ("images", "descending")]
    return result.sort_by([*order, *((key, "ascending") for key in keys[1:])])


def _grouped(parts: Sequence[pa.Table], keys: list[str]) -> pa.Table:
    sums = [("images", "sum"), ("sum_before", "sum"), ("sum_after", "sum")]
    grouped = pa.concat_tables(parts).group_by(keys).aggregate(sums)
    names = [name.removesuffix("_sum") for name in grouped.column_names]
    return grouped.rename_columns(names).select(_PARTIAL.names)
