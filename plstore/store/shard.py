"""What a commit is made of: files, as they are here and as actions of Delta; numbers taken."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
from deltalake import DeltaTable, Schema, Transaction
from deltalake.transaction import AddAction, RemoveAction

from plstore.schema import TableSpec

LINEAGE: Final = "plstore.lineage"
TRANSACTION: Final = "plstore.transaction"
"""Keys of a commit's metadata."""

_RANGE_IDS = 65_536
_SLOTS = 64


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
    return DeltaTable(delta.table_uri)


def paths_of(delta: DeltaTable) -> list[str]:
    """Return the paths of a snapshot's files, relative to the table."""
    paths: list[str] = pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist()
    return paths


def shards_of(delta: DeltaTable) -> list[Shard]:
    """Return the files of a snapshot."""
    shards = []
    for action in pa.table(delta.get_add_actions(flatten=True)).to_pylist():
        bounds = {key: action.get(f"{key}.sample_id") for key in ("min", "max")}
        stats: dict[str, Any] = {"numRecords": action["num_records"]}
        if None not in bounds.values():
            stats |= {f"{key}Values": {"sample_id": value} for key, value in bounds.items()}
        partition = {
            name.removeprefix("partition."): str(value)
            for name, value in action.items()
            if name.startswith("partition.")
        }
        size = action["size_bytes"]
        shards.append(
            Shard(path=action["path"], size_bytes=size, partition=partition, stats=stats)
        )
    return shards


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
