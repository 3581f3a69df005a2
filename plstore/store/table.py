"""One table of a store: Parquet written here, committed through Delta Lake.

The table format stays behind this file: snapshot files, commit, history. A shard is written
under a name that follows from its content's identity, so that writing or committing it twice
adds nothing; a shard that no commit names is invisible.
"""

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from plstore.errors import CommitConflictError, StoreError, StoreNotFoundError
from plstore.schema import TableSpec

_ROW_GROUP_BYTES = 8 << 20
_MAX_ROW_GROUP_ROWS = 8192
_YEARS = "interval 3650 days"
_LINEAGE = "plstore.lineage"
_TRANSACTION = "plstore.transaction"
_RECENT_COMMITS = 32

SAMPLE_IDS: Final = "sample-ids"
"""The sequence of `images` that numbers them."""

PartitionValues = Mapping[str, str | int]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A Parquet file that is written but not yet committed."""

    path: str
    """Relative to the table's folder."""
    size_bytes: int
    num_rows: int
    partition: Mapping[str, str]
    stats: Mapping[str, Any]


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


class Table:
    """A Delta table in a folder of the store."""

    def __init__(self, root: Path, spec: TableSpec) -> None:
        """Name the table's folder; nothing is read until it is needed."""
        self.root = root / spec.name
        self.spec = spec

    def create(self) -> None:
        """Make the empty table; an existing one stays as it is."""
        DeltaTable.create(
            str(self.root),
            schema=self.spec.columns,
            mode="ignore",
            partition_by=list(self.spec.partition_by),
            configuration={
                "delta.logRetentionDuration": _YEARS,
                "delta.deletedFileRetentionDuration": _YEARS,
            },
        )

    def _delta(self, version: int | None = None) -> DeltaTable:
        try:
            return DeltaTable(str(self.root), version=version)
        except TableNotFoundError as error:
            raise StoreNotFoundError(
                f"no table {self.spec.name!r} in {self.root.parent}; make the store with "
                f"'plstore init --store {self.root.parent}'"
            ) from error
        except Exception as error:
            if version is None:
                raise
            raise StoreError(
                f"table {self.spec.name!r} has no version {version} that can be read: {error}"
            ) from error

    def version(self) -> int:
        """Return the newest version: the number of its last commit."""
        return int(self._delta().version())

    def transaction(self, identity: str) -> int | None:
        """Return the number that a commit of this identity recorded, if there is one."""
        number = self._delta().transaction_version(identity)
        return None if number is None else int(number)

    def sequence(self, name: str) -> int:
        """Return where a sequence stands: 0 before its first commit. See `Claim`."""
        return self.transaction(f"sequence-{name}") or 0

    def write_shard(
        self, name: str, rows: pa.Table, partition: PartitionValues | None = None
    ) -> Shard:
        """Write rows to a Parquet file that a later `commit` makes visible.

        Args:
            name: File name without ending; the same content must get the same name.
            rows: All columns but the partition columns.
            partition: A value for each partition column.

        Raises:
            StoreError: If the file cannot be written; the table is unchanged.
        """
        values = {key: str(value) for key, value in (partition or {}).items()}
        folder = Path(*(f"{key}={values[key]}" for key in self.spec.partition_by))
        relative = folder / f"{name}.parquet"
        target = self.root / relative
        rows = rows.select(self.spec.file_schema.names).cast(self.spec.file_schema)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._write_parquet(temporary, rows)
            temporary.replace(target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise StoreError(
                f"cannot write {target}: {error}. Nothing was committed; run the same "
                "command again when the disk has room and may be written"
            ) from error
        return Shard(
            path=relative.as_posix(),
            size_bytes=target.stat().st_size,
            num_rows=rows.num_rows,
            partition=values,
            stats=_statistics(rows),
        )

    def _write_parquet(self, path: Path, rows: pa.Table) -> None:
        leaves = _leaf_names(rows.schema)
        raw = set(self.spec.raw_columns)
        row_bytes = max(rows.nbytes // max(rows.num_rows, 1), 1)
        pq.write_table(
            rows,
            path,
            compression={leaf: "NONE" if leaf in raw else "ZSTD" for leaf in leaves},
            use_dictionary=[leaf for leaf in leaves if leaf not in raw],
            row_group_size=int(
                min(max(_ROW_GROUP_BYTES // row_bytes, 64), _MAX_ROW_GROUP_ROWS)
            ),
            write_statistics=[name for name in leaves if name not in raw],
        )

    def commit(
        self,
        shards: Collection[Shard],
        *,
        lineage: Mapping[str, Any],
        transaction: str,
        claim: Claim | None = None,
        replace: bool = False,
    ) -> int:
        """Make shards visible in one atomic commit and return the table's version.

        Args:
            shards: What `write_shard` returned.
            lineage: JSON-like: who and what made these rows; shown by `history`.
            transaction: Identity of this commit. One that is already in the table is not
                repeated: its rows are there.
            claim: Numbers that these rows take from a sequence.
            replace: Whether rows of the same partitions leave the snapshot in the same commit;
                older versions keep them.

        Raises:
            CommitConflictError: If another writer took the claimed numbers, or changed the same
                partitions; nothing of this commit was written.
        """
        delta = self._delta()
        if delta.transaction_version(transaction) is not None:
            return self._version_of(transaction)
        transactions = [Transaction(transaction, 1 if claim is None else claim.end)]
        if claim is not None:
            self._check_claim(delta, claim)
            transactions.append(Transaction(f"sequence-{claim.name}", claim.end))
        actions: list[AddAction | RemoveAction] = [_add(shard) for shard in shards]
        if replace:
            actions += self._removals(delta, shards)
        properties = CommitProperties(
            custom_metadata={
                _LINEAGE: json.dumps(lineage, sort_keys=True),
                _TRANSACTION: transaction,
            },
            app_transactions=transactions,
        )
        try:
            delta.create_write_transaction(
                actions,
                "append",
                self.spec.columns,
                partition_by=list(self.spec.partition_by),
                commit_properties=properties,
            )
        except CommitFailedError as error:
            raise CommitConflictError(
                f"another writer committed to {self.spec.name!r} at the same time: {error}. "
                "Nothing of this commit was written; run the same command again"
            ) from error
        return self._version_of(transaction)

    def _version_of(self, transaction: str) -> int:
        """Return the version that a commit made, whatever was committed since."""
        delta = self._delta()
        for limit in (_RECENT_COMMITS, None):
            for entry in delta.history(limit):
                if entry.get(_TRANSACTION) == transaction:
                    return int(entry["version"])
        raise StoreError(
            f"table {self.spec.name!r} knows transaction {transaction!r} and its history does "
            "not: the log was cut. Restore it from a copy"
        )

    def _check_claim(self, delta: DeltaTable, claim: Claim) -> None:
        found = int(delta.transaction_version(f"sequence-{claim.name}") or 0)
        if found != claim.start:
            raise CommitConflictError(
                f"another writer took the numbers {claim.start} to {found - 1} of "
                f"{claim.name!r} in {self.root}. Nothing of this commit was written; run the "
                "same command again"
            )

    @staticmethod
    def _removals(delta: DeltaTable, shards: Collection[Shard]) -> list[RemoveAction]:
        partitions = {tuple(sorted(shard.partition.items())) for shard in shards}
        kept = {shard.path for shard in shards}
        removals = []
        for action in pa.table(delta.get_add_actions(flatten=True)).to_pylist():
            values: dict[str, str | None] = {
                name.removeprefix("partition."): str(value)
                for name, value in action.items()
                if name.startswith("partition.")
            }
            if tuple(sorted(values.items())) in partitions and action["path"] not in kept:
                removals.append(
                    RemoveAction(
                        action["path"],
                        data_change=True,
                        deletion_timestamp=_now_milliseconds(),
                        size=action["size_bytes"],
                        partition_values=values,
                    )
                )
        return removals

    def append(
        self,
        rows: pa.Table,
        *,
        lineage: Mapping[str, Any],
        transaction: str,
        claim: Claim | None = None,
    ) -> int:
        """Write and commit rows of an unpartitioned table in one go."""
        if self.transaction(transaction) is not None:
            return self._version_of(transaction)
        shard = self.write_shard(f"part-{transaction}", rows)
        return self.commit([shard], lineage=lineage, transaction=transaction, claim=claim)

    def files(self, version: int | None = None) -> list[str]:
        """Return the Parquet files of a snapshot, sorted, as absolute paths."""
        return sorted(self._delta(version).file_uris())

    def dataset(self, version: int | None = None) -> pyarrow.dataset.Dataset:
        """Return a snapshot as an Arrow dataset with all columns."""
        partition_fields = [self.spec.columns.field(c) for c in self.spec.partition_by]
        return pyarrow.dataset.dataset(
            self.files(version),
            schema=self.spec.columns,
            format="parquet",
            partitioning=pyarrow.dataset.partitioning(
                pa.schema(partition_fields), flavor="hive"
            ),
            partition_base_dir=str(self.root),
        )

    def read(
        self,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: pyarrow.dataset.Expression | None = None,
    ) -> pa.Table:
        """Return rows of a snapshot in memory."""
        return self.dataset(version).to_table(columns=columns, filter=where)

    def history(self) -> Iterable[Commit]:
        """Return the commits, newest first."""
        for entry in self._delta().history():
            yield Commit(
                table=self.spec.name,
                version=int(entry["version"]),
                time=datetime.fromtimestamp(entry["timestamp"] / 1000, tz=UTC),
                operation=str(entry["operation"]),
                lineage=json.loads(entry.get(_LINEAGE, "{}")),
            )


def _now_milliseconds() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def _add(shard: Shard) -> AddAction:
    return AddAction(
        path=shard.path,
        size=shard.size_bytes,
        partition_values=dict(shard.partition),
        modification_time=_now_milliseconds(),
        data_change=True,
        stats=json.dumps(shard.stats),
    )


def _leaf_names(schema: pa.Schema) -> list[str]:
    """Return the column paths as Parquet spells them."""
    leaves: list[str] = []

    def visit(path: str, kind: pa.DataType) -> None:
        if pa.types.is_struct(kind):
            for field in kind:
                visit(f"{path}.{field.name}", field.type)
        elif pa.types.is_list(kind):
            visit(f"{path}.list.element", kind.value_type)
        else:
            leaves.append(path)

    for field in schema:
        visit(field.name, field.type)
    return leaves


def _statistics(rows: pa.Table) -> dict[str, Any]:
    stats: dict[str, Any] = {"numRecords": rows.num_rows}
    if "sample_id" in rows.column_names and rows.num_rows:
        bounds = pa.compute.min_max(rows["sample_id"]).as_py()
        stats["minValues"] = {"sample_id": bounds["min"]}
        stats["maxValues"] = {"sample_id": bounds["max"]}
    return stats
