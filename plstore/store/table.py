"""One table of a store: Parquet written here, committed through Delta Lake.

The table format stays behind this file: snapshot files, commit, history. A shard's name ends
in the hash of its bytes, so a file that is there is never written over with other contents,
and whoever reads it can check it; a shard that no commit names is invisible.
"""

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from plstore import storage
from plstore.errors import CommitConflictError, StoreError, StoreNotFoundError
from plstore.fingerprint import content_hash, value_hash
from plstore.schema import TABLES, Profile, TableSpec
from plstore.store.change import LINEAGE, TRANSACTION, Change, waits
from plstore.store.conditions import check_not_deleted, check_present
from plstore.store.log import Erasures, after_erasure
from plstore.store.parquet import parquet_bytes, statistics
from plstore.store.shard import (
    Claim,
    Commit,
    Shard,
    add_missing_columns,
    paths_of,
    shards_of,
)

_YEARS = "interval 3650 days"
_RECENT_COMMITS = 32

SAMPLE_IDS: Final = "sample-ids"
"""The sequence of `images` that numbers them."""

PartitionValues = Mapping[str, str | int]


def _place(shard: Shard) -> tuple[list[tuple[str, str]], int, str]:
    """Return what files of a snapshot are ordered by: partition, sample id, name."""
    return sorted(shard.partition.items()), shard.first_id, shard.path


class Table:
    """A Delta table in a folder of the store."""

    def __init__(self, root: Path, spec: TableSpec, profile: Profile = "compact") -> None:
        """Name the table's folder; nothing is read until it is needed."""
        self.root = root / spec.name
        self.spec = spec
        self.profile = profile
        self._url = str(self.root) if storage.is_remote(root) else self.root.as_uri()
        self.erasures = Erasures(root, spec.name)

    @property
    def lock_file(self) -> Path:
        """Held by whoever commits to the table, and by `collect` while it deletes its files."""
        return self.root.parent / "_plstore" / "locks" / self.spec.name

    def sibling(self, name: str) -> "Table":
        """Return another table of the same store."""
        return Table(self.root.parent, TABLES[name], self.profile)

    def create(self) -> None:
        """Make the empty table; an existing one stays as it is."""
        DeltaTable.create(
            self._url,
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
            delta = DeltaTable(self._url, version=version)
        except TableNotFoundError as error:
            raise StoreNotFoundError(
                f"no table {self.spec.name!r} in {self.root.parent}; make the store with "
                f"'plstore init --store {self.root.parent}'"
            ) from error
        except Exception as error:
            wanted = "" if version is None else f" of version {version}"
            raise StoreError(
                f"table {self.spec.name!r}{wanted} in {self.root} cannot be read: {error}"
            ) from error
        features = delta.protocol().reader_features or ()
        if "deletionVectors" in features:
            raise StoreError(
                f"table {self.spec.name!r} in {self.root} has deletion vectors, which another "
                "engine wrote: its files hold rows that are deleted. Apply them there (in "
                "Spark: REORG TABLE … APPLY (PURGE)) and drop the feature"
            )
        return delta

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
            name: Start of the file's name; the hash of its bytes is added.
            rows: All columns but the partition columns.
            partition: A value for each partition column.

        Raises:
            StoreError: If the file cannot be written; the table is unchanged.
        """
        values = {key: str(value) for key, value in (partition or {}).items()}
        folder = PurePosixPath(*(f"{key}={values[key]}" for key in self.spec.partition_by))
        rows = rows.select(self.spec.file_schema.names).cast(self.spec.file_schema)
        data = parquet_bytes(rows, self.spec, self.profile)
        path = (folder / f"{name}-{content_hash(data)}.parquet").as_posix()
        storage.write_atomically(self.root / path, data)
        return Shard(path=path, size_bytes=len(data), partition=values, stats=statistics(rows))

    def commit(
        self,
        shards: Collection[Shard],
        *,
        lineage: Mapping[str, Any],
        transaction: str,
        claim: Claim | None = None,
        replace: bool = False,
        remove: Collection[Shard] = (),
        beside: Collection[Shard] | None = None,
        data_change: bool = True,
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
            remove: Shards that leave the snapshot in the same commit.
            beside: Where given, the shards of the same partitions and sample ids that these
                were made to stand beside: the commit is refused if there are others by now.
            data_change: False where the same rows only move to other files.

        Raises:
            CommitConflictError: If another writer took the claimed numbers, changed what this
                commit rests on, or was first for a minute of tries; nothing of this commit was
                written.
            StoreError: If a shard is gone, or the log cannot be written.
        """
        change = Change(
            shards=tuple(shards),
            lineage=lineage,
            transaction=transaction,
            claim=claim,
            replace=replace,
            remove=tuple(remove),
            beside=None if beside is None else tuple(beside),
            data_change=data_change,
        )
        with storage.held(self.lock_file):
            is_new = self._commit(change)
        if is_new:
            self._complete_deletions(change.shards)
        return self._version_of(transaction)

    def _commit(self, change: Change) -> bool:
        """Write a change to the log; return False where it is there already."""
        wait_times = waits()
        checked = False
        while True:
            delta = add_missing_columns(self._delta(), self.spec)
            if delta.transaction_version(change.transaction) is not None:
                return False
            if not checked:
                check_present(self, change.shards)
                check_not_deleted(self, change.shards)
                checked = True
            actions, properties = change.against(self, delta)
            try:
                self._write_log(delta, actions, properties)
            except CommitConflictError:  # what it rests on is looked at again
                if (wait := next(wait_times, None)) is None:
                    raise
                time.sleep(wait)
            else:
                return True

    def _complete_deletions(self, shards: Collection[Shard]) -> None:
        """Take out what a deletion rewrote while it was being committed."""
        erased = self.erasures.by_path()
        if not any(shard.path in erased for shard in shards):
            return
        version, newest = self.newest()
        late = [shard for shard in newest if shard.path in erased]
        if late:
            left = (after_erasure(shard, erased) for shard in late)
            identity = value_hash({"version": version, "files": sorted(s.path for s in late)})
            self.commit(
                [shard for shard in left if shard is not None],
                lineage={"step": "delete", "files": len(late)},
                transaction=f"delete-{identity}",
                remove=late,
            )

    def _write_log(
        self,
        delta: DeltaTable,
        actions: list[AddAction | RemoveAction],
        properties: CommitProperties,
    ) -> None:
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
        except (DeltaError, OSError) as error:
            raise StoreError(
                f"cannot commit to {self.root}: {error}. Nothing of this commit was written "
                "and nothing stored is lost; make room or allow writing there, then run the "
                "same command again"
            ) from error

    def _version_of(self, transaction: str) -> int:
        """Return the version that a commit made, whatever was committed since."""
        delta = self._delta()
        for limit in (_RECENT_COMMITS, None):
            for entry in delta.history(limit):
                if entry.get(TRANSACTION) == transaction:
                    return int(entry["version"])
        raise StoreError(
            f"table {self.spec.name!r} knows transaction {transaction!r} and its history does "
            "not: the log was cut. Restore it from a copy"
        )

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

    def shards(
        self, version: int | None = None, partition: PartitionValues | None = None
    ) -> list[Shard]:
        """Return the files of a snapshot, by partition and sample id.

        Args:
            version: Newest unless given.
            partition: Values of some partition columns; files of others are left out.
        """
        wanted = {key: str(value) for key, value in (partition or {}).items()}.items()
        found = [s for s in shards_of(self._delta(version)) if wanted <= s.partition.items()]
        if version is not None and (erased := self.erasures.by_path()):
            replaced = (after_erasure(shard, erased) for shard in found)
            found = [shard for shard in replaced if shard is not None]
        return sorted(found, key=_place)

    def newest(self) -> tuple[int, list[Shard]]:
        """Return the newest version with its files, as they are in the log."""
        delta = self._delta()
        return int(delta.version()), sorted(shards_of(delta), key=_place)

    def files(self, version: int | None = None) -> list[str]:
        """Return the Parquet files of a snapshot, sorted, as absolute paths or URLs."""
        if version is not None and self.erasures.by_path():
            return sorted(str(self.root / shard.path) for shard in self.shards(version))
        return sorted(str(self.root / path) for path in paths_of(self._delta(version)))

    def dataset(self, version: int | None = None) -> pyarrow.dataset.Dataset:
        """Return a snapshot as an Arrow dataset with all columns."""
        return self._dataset(self.files(version))

    def dataset_of(self, shards: Collection[Shard]) -> pyarrow.dataset.Dataset:
        """Return some shards as an Arrow dataset with all columns."""
        return self._dataset([str(self.root / shard.path) for shard in shards])

    def _dataset(self, files: Sequence[str]) -> pyarrow.dataset.Dataset:
        partition_fields = [self.spec.columns.field(c) for c in self.spec.partition_by]
        try:
            return pyarrow.dataset.dataset(
                [storage.arrow_path(file) for file in files],
                schema=self.spec.columns,
                format="parquet",
                filesystem=storage.arrow_filesystem(self.root),
                partitioning=pyarrow.dataset.partitioning(
                    pa.schema(partition_fields), flavor="hive"
                ),
                partition_base_dir=storage.arrow_path(self.root),
            )
        except FileNotFoundError as error:
            raise StoreError(
                f"{error} is gone: it was collected, because neither the newest snapshot nor a "
                "tag or view needs it, or it was lost; 'plstore verify' tells"
            ) from error

    def read(
        self,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: pyarrow.dataset.Expression | None = None,
    ) -> pa.Table:
        """Return rows of a snapshot in memory."""
        return self.dataset(version).to_table(columns=columns, filter=where)

    def history(self) -> Iterator[Commit]:
        """Yield the commits, newest first."""
        for entry in self._delta().history():
            yield Commit(
                table=self.spec.name,
                version=int(entry["version"]),
                time=datetime.fromtimestamp(entry["timestamp"] / 1000, tz=UTC),
                operation=str(entry["operation"]),
                lineage=json.loads(entry.get(LINEAGE, "{}")),
            )
