"""What a commit is made of: files, as they are here and as actions of Delta; numbers taken."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Schema, Transaction
from deltalake.transaction import AddAction, RemoveAction

from plstore import buckets
from plstore.schema import TableSpec

LINEAGE: Final = "plstore.lineage"
TRANSACTION: Final = "plstore.transaction"
"""Keys of a commit's metadata."""

_RANGE_IDS = 65_536
_SLOTS = 64
_PARTITION = "partition."
_FIRST, _LAST = "min.sample_id", "max.sample_id"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A Parquet file of a table: written, and committed or not."""

    path: str
    """Relative to the table's folder."""
    size_bytes: int
    partition: Mapping[str, str]
    stats: Mapping[str, Any]

    @property
    def num_rows(self) -> int:
        """Rows of the file."""
        return int(self.stats["numRecords"])

    @property
    def first_id(self) -> int:
        """The lowest sample id; -1 where the table has none."""
        return int(self.stats.get("minValues", {}).get("sample_id", -1))

    @property
    def last_id(self) -> int:
        """The highest sample id; -1 where the table has none."""
        return int(self.stats.get("maxValues", {}).get("sample_id", -1))


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Numbers that a commit takes from a sequence of its table.

    A sequence hands out each number once, whatever happens: the commit that takes `start` up to
    `end` is refused unless the sequence stands at `start` when it is made.
    """

    name: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One entry of a table's history."""

    table: str
    version: int
    time: datetime
    operation: str
    lineage: Mapping[str, Any]


def add_missing_columns(delta: DeltaTable, spec: TableSpec) -> DeltaTable:
    """Return the table with all columns of its spec: those that an older plstore lacked added.

    Rows that are there already have null in them.
    """
    there = {field.name for field in delta.schema().fields}
    missing = [field for field in spec.columns if field.name not in there]
    if not missing:
        return delta
    delta.alter.add_columns(list(Schema.from_arrow(pa.schema(missing)).fields))
    return DeltaTable(delta.table_uri, storage_options=buckets.delta_options(delta.table_uri))


def paths_of(delta: DeltaTable) -> list[str]:
    """Return the paths of a snapshot's files, relative to the table."""
    paths: list[str] = pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist()
    return paths


def shards_of(
    delta: DeltaTable, partition: Mapping[str, str | int] | None = None
) -> list[Shard]:
    """Return the files of a snapshot, by partition, sample id and name.

    Args:
        delta: The snapshot.
        partition: Values of some partition columns; files of others are left out.
    """
    actions = pa.table(delta.get_add_actions(flatten=True))
    names = sorted(n for n in actions.column_names if n.startswith(_PARTITION))
    for name in names:
        values = pc.fill_null(actions[name].cast(pa.string()), str(None))
        actions = actions.set_column(actions.column_names.index(name), name, values)
    for key, value in (partition or {}).items():
        actions = actions.filter(pc.equal(actions[f"{_PARTITION}{key}"], str(value)))
    keys = actions.select(names)
    if _FIRST in actions.column_names:
        keys = keys.append_column(_FIRST, pc.fill_null(actions[_FIRST], -1))
    keys = keys.append_column("path", actions["path"])
    order = [(name, "ascending") for name in keys.column_names]
    return _shards(actions.take(pc.sort_indices(keys, order)), names)


def _shards(actions: pa.Table, partition_names: Sequence[str]) -> list[Shard]:
    """Return rows of actions as shards; those of one partition share its values."""

    def column(name: str) -> list[Any]:
        here = name in actions.column_names
        return actions[name].to_pylist() if here else [None] * actions.num_rows

    keys = [name.removeprefix(_PARTITION) for name in partition_names]
    values = zip(*map(column, partition_names), strict=True) if keys else repeat(())
    partitions: dict[tuple[str, ...], dict[str, str]] = {}
    columns = map(column, ("path", "size_bytes", "num_records", _FIRST, _LAST))
    shards = []
    for path, size, count, low, high, at in zip(*columns, values, strict=False):
        stats: dict[str, Any] = {"numRecords": count}
        if low is not None and high is not None:
            stats["minValues"] = {"sample_id": low}
            stats["maxValues"] = {"sample_id": high}
        if at not in partitions:
            partitions[at] = dict(zip(keys, at, strict=True))
        shards.append(Shard(path=path, size_bytes=size, partition=partitions[at], stats=stats))
    return shards


def place_of(shard: Shard) -> tuple[tuple[tuple[str, str], ...], int, str]:
    """Return what files of a snapshot are ordered by: partition, sample id, name."""
    return partition_of(shard), shard.first_id, shard.path


def partition_of(shard: Shard) -> tuple[tuple[str, str], ...]:
    """Return the partition of a shard, to compare it."""
    return tuple(sorted(shard.partition.items()))


def locks(shards: Collection[Shard], *, whole: bool) -> list[Transaction]:
    """Return what makes two commits conflict that rewrite the same rows at once.

    delta-rs lets two commits remove the same file, but not record the same transaction. Writers
    of other ranges of sample ids do not stand in each other's way: a partition has one name for
    every 64th range, so that its log does not grow with the number of images.

    Args:
        shards: Put into, or taken from the snapshot.
        whole: Whether all rows of their partitions are replaced: one such commit at a time.
    """
    names = set()
    for shard in shards:
        partition = "/".join(f"{key}={value}" for key, value in partition_of(shard)) or "all"
        ranges = range(shard.first_id // _RANGE_IDS, shard.last_id // _RANGE_IDS + 1)
        if whole or not shard.partition:
            names.add(f"rewrite-{partition}")
        if shard.partition:
            names |= {f"rewrite-{partition}/{n % _SLOTS}" for n in ranges[:_SLOTS]}
    return [Transaction(name, 1) for name in sorted(names)]


def _now_milliseconds() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def add_action(shard: Shard, *, data_change: bool) -> AddAction:
    """Return what puts a shard into the snapshot."""
    return AddAction(
        path=shard.path,
        size=shard.size_bytes,
        partition_values=dict(shard.partition),
        modification_time=_now_milliseconds(),
        data_change=data_change,
        stats=json.dumps(shard.stats),
    )


def remove_action(shard: Shard, *, data_change: bool) -> RemoveAction:
    """Return what takes a shard from the snapshot."""
    return RemoveAction(
        shard.path,
        data_change=data_change,
        deletion_timestamp=_now_milliseconds(),
        size=shard.size_bytes,
        partition_values=dict(shard.partition),
    )
