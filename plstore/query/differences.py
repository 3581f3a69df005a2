"""What changed between two label sets, or two views, in flat memory.

Shards of one range of sample ids stand side by side in all label sets. Where two hold the same
ids, DuckDB joins them by position, which takes no memory and no hashing; the others are joined
range by range.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore import storage
from plstore.labels import SHARD_IDS, LabelSet
from plstore.machine import num_cores

if TYPE_CHECKING:
    from plstore.store import Shard, Store, Table
    from plstore.views import View

_COLUMNS = ["sample_id", "class_id", "confidence"]
_PENDING_ROWS = 1 << 20

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

_SUMS = pa.schema(
    [
        pa.field("class_before", pa.int32()),
        pa.field("class_after", pa.int32()),
        pa.field("images", pa.int64()),
        pa.field("sum_before", pa.float64()),
        pa.field("sum_after", pa.float64()),
    ]
)

_MISALIGNED = """
select old.filename
from read_parquet($old, filename = true) as old
positional join read_parquet($new) as new
where old.sample_id is distinct from new.sample_id
group by old.filename
"""

_POSITIONAL = """
select
    old.class_id as class_before,
    new.class_id as class_after,
    count(*) as images,
    sum(old.confidence::double) as sum_before,
    sum(new.confidence::double) as sum_after
from read_parquet($old) as old
positional join read_parquet($new) as new
group by all
"""


@dataclass(frozen=True)
class Pair:
    """The shards of one range of ids, on both sides."""

    old: "list[Shard]"
    new: "list[Shard]"

    @property
    def has_same_bounds(self) -> bool:
        """Whether both sides are one file, with as many rows between the same ids."""
        bounds = [
            [(s.first_id, s.last_id, s.num_rows) for s in side] for side in (self.old, self.new)
        ]
        return len(self.old) == 1 and bounds[0] == bounds[1]

    @property
    def has_no_gap(self) -> bool:
        """Whether no id between the bounds is missing: then the ids are the same."""
        shard = self.old[0]
        return self.has_same_bounds and shard.last_id - shard.first_id + 1 == shard.num_rows


def diff_labels(
    store: "Store",
    before: Sequence[LabelSet],
    after: Sequence[LabelSet],
    *,
    version_before: int | None = None,
    version_after: int | None = None,
) -> pa.Table:
    """Return how labels changed, as `CHANGES`, by pair of classes.

    Args:
        store: The store.
        before: Label sets, such as those of one teacher's splits.
        after: Label sets of the same splits.
        version_before: Of `soft_labels`, newest unless given.
        version_after: Of `soft_labels`, newest unless given.
    """
    table = store.table("soft_labels")
    aligned, others = pair_shards(
        store, before, after, version_before=version_before, version_after=version_after
    )
    parts = _summed(_joined(_read(table, pair.old), _read(table, pair.new)) for pair in others)
    if aligned:
        found = _ask(table, _POSITIONAL, aligned)
        parts = _summed([parts, found.cast(_SUMS)])
    return _changes(parts)


def pair_shards(
    store: "Store",
    before: Sequence[LabelSet],
    after: Sequence[LabelSet],
    *,
    version_before: int | None = None,
    version_after: int | None = None,
) -> tuple[list[Pair], list[Pair]]:
    """Return what `diff_labels` is going to read: pairs of the same images, and the others.

    Whether ids with gaps are the same is read from the files; the log tells of the rest.

    Args:
        store: The store.
        before: As of `diff_labels`.
        after: The same.
        version_before: The same.
        version_after: The same.
    """
    table = store.table("soft_labels")
    pairs: list[Pair] = []
    for split in sorted({s.split for s in (*before, *after)}):
        old = _by_range(table, [x for x in before if x.split == split], version_before)
        new = _by_range(table, [x for x in after if x.split == split], version_after)
        ranges = sorted(old.keys() | new.keys())
        pairs += [Pair(old.get(b, []), new.get(b, [])) for b in ranges]
    return _aligned(table, pairs)


def diff_views(before: "View", after: "View") -> pa.Table:
    """Return which images entered, left or changed their class between two views."""
    sides = [_read(v.store.table("view_rows"), v.shards()) for v in (before, after)]
    return _changes(_summed([_joined(*sides)]))


def _by_range(
    table: "Table", sets: Sequence[LabelSet], version: int | None
) -> "dict[int, list[Shard]]":
    ranges: dict[int, list[Shard]] = {}
    for label_set in sets:
        for shard in table.shards(version, label_set.partition):
            ranges.setdefault(shard.first_id // SHARD_IDS, []).append(shard)
    return ranges


def _aligned(table: "Table", pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs whose rows are of the same images in the same order, and the others."""
    unsure = [pair for pair in pairs if pair.has_same_bounds and not pair.has_no_gap]
    different: set[str] = set()
    if unsure:
        different = set(_ask(table, _MISALIGNED, unsure)["filename"].to_pylist())
    fits = [p.has_same_bounds and _path(table, p.old[0]) not in different for p in pairs]
    aligned = [pair for pair, fit in zip(pairs, fits, strict=True) if fit]
    return aligned, [pair for pair, fit in zip(pairs, fits, strict=True) if not fit]


def _path(table: "Table", shard: "Shard") -> str:
    return str(table.root / shard.path)


def _ask(table: "Table", sql: str, pairs: Sequence[Pair]) -> pa.Table:
    """Ask DuckDB of the files of pairs, in order: a positional join runs on one thread each."""
    size = -(-len(pairs) // num_cores())
    with ThreadPoolExecutor() as pool:
        parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        return pa.concat_tables(pool.map(lambda part: _ask_part(table, sql, part), parts))


def _ask_part(table: "Table", sql: str, pairs: Sequence[Pair]) -> pa.Table:
    files = {
        "old": [_path(table, pair.old[0]) for pair in pairs],
        "new": [_path(table, pair.new[0]) for pair in pairs],
    }
    with closing(duckdb.connect(":memory:", config={"threads": 1})) as connection:
        if storage.is_remote(table.root):
            connection.register_filesystem(storage.fsspec_filesystem(table.root))
        return connection.sql(sql, params=files).to_arrow_table()


def _read(table: "Table", shards: "Sequence[Shard]") -> pa.Table:
    return table.dataset_of(shards).to_table(columns=_COLUMNS).sort_by("sample_id")


def _joined(old: pa.Table, new: pa.Table) -> pa.Table:
    """Return the sums of two sides whose images need not be the same, as `_SUMS`."""
    ids = [side["sample_id"].to_numpy() for side in (old, new)]
    _, *places = np.intersect1d(ids[0], ids[1], assume_unique=True, return_indices=True)
    both = [side.take(pa.array(place)) for side, place in zip((old, new), places, strict=True)]
    alone = [
        side.filter(pa.array(~_among(len(side), place)))
        for side, place in zip((old, new), places, strict=True)
    ]
    parts = [
        _columns(both[0], both[1]),
        _columns(alone[0], None),
        _columns(None, alone[1]),
    ]
    return _summed(parts)


def _among(size: int, places: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    found = np.zeros(size, dtype=bool)
    found[places] = True
    return found


def _columns(old: pa.Table | None, new: pa.Table | None) -> pa.Table:
    rows = old if old is not None else new
    size = 0 if rows is None else rows.num_rows

    def column(side: pa.Table | None, name: str) -> Any:  # noqa: ANN401  an Arrow column
        return pa.nulls(size) if side is None else side[name]

    columns = [column(side, "class_id") for side in (old, new)]
    columns.append(pa.array(np.ones(size, np.int64)))
    columns += [column(side, "confidence") for side in (old, new)]
    return pa.table(columns, names=_SUMS.names).cast(_SUMS)


def _summed(parts: Iterator[pa.Table] | Sequence[pa.Table]) -> pa.Table:
    """Add up the sums of pairs of classes; memory is that of the pairs."""
    total, pending, num_pending = _SUMS.empty_table(), [], 0
    for part in parts:
        pending.append(part)
        num_pending += part.num_rows
        if num_pending > max(_PENDING_ROWS, total.num_rows):
            total, pending, num_pending = _grouped([total, *pending]), [], 0
    return _grouped([total, *pending])


def _grouped(parts: Sequence[pa.Table]) -> pa.Table:
    sums = [(name, "sum") for name in _SUMS.names[2:]]
    grouped = pa.concat_tables(parts).group_by(_SUMS.names[:2]).aggregate(sums)
    names = [name.removesuffix("_sum") for name in grouped.column_names]
    return grouped.rename_columns(names).select(_SUMS.names)


def _changes(sums: pa.Table) -> pa.Table:
    """Return sums as `CHANGES`, most frequent first in each kind."""
    before, after = sums["class_before"], sums["class_after"]
    change = pc.case_when(
        pc.make_struct(pc.is_null(before), pc.is_null(after), pc.equal(before, after)),
        pa.scalar("entered"),
        pa.scalar("left"),
        pa.scalar("kept"),
        pa.scalar("flipped"),
    )
    columns = [change, before, after, sums["images"]]
    columns += [pc.divide(sums[name], sums["images"]) for name in _SUMS.names[3:]]
    order = [("change", "ascending"), ("images", "descending")]
    keys = [(name, "ascending") for name in _SUMS.names[:2]]
    return pa.table(columns, names=CHANGES.names).cast(CHANGES).sort_by([*order, *keys])
