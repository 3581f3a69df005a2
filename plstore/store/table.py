"""One table of a store: Parquet written here, committed through Delta Lake.

The table format stays behind this file and `snapshot`: snapshot files, commit, history. A
shard's name ends in the hash of its bytes, so a file that is there is never written over with
other contents, and whoever reads it can check it; a shard that no commit names is invisible.
"""

import time
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from plstore import buckets, storage
from plstore.errors import BucketError, CommitConflictError, StoreError
from plstore.fingerprint import content_hash, value_hash
from plstore.store.change import Change, waits
from plstore.store.conditions import check_not_deleted, check_present
from plstore.store.log import after_erasure
from plstore.store.parquet import parquet_bytes, statistics
from plstore.store.shard import TRANSACTION, Claim, Shard, add_missing_columns
from plstore.store.snapshot import PartitionValues, Snapshots

_YEARS = "interval 3650 days"
_RECENT_COMMITS = 32
_LISTING_WAITS = (0.2, 0.5, 1.0, 2.0, 5.0)

SAMPLE_IDS: Final = "sample-ids"
"""The sequence of `images` that numbers them."""


class Table(Snapshots):
    """A Delta table in a folder of the store, to read and to write."""

    def create(self) -> None:
        """Make the empty table; an existing one stays as it is."""
        options = buckets.delta_options(self._url)
        try:
            DeltaTable.create(
                self._url,
                schema=self.spec.columns,
                mode="ignore",
                partition_by=list(self.spec.partition_by),
                storage_options=options,
                configuration={
                    "delta.logRetentionDuration": _YEARS,
                    "delta.deletedFileRetentionDuration": _YEARS,
                },
            )
        except DeltaError:  # another process was first, or our answer or listing came late
            waits = _LISTING_WAITS if storage.is_remote(self.root) else (0.0,)
            if not any(self._is_there_after(wait) for wait in (0.0, *waits)):
                raise

    def _is_there_after(self, seconds: float) -> bool:
        time.sleep(seconds)
        return DeltaTable.is_deltatable(self._url, buckets.delta_options(self._url))

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
            if self.transaction_of(delta, change.transaction) is not None:
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
            except BucketError:
                raise
            except StoreError:  # it may be written, and what tells so come late
                if not self._shows(change.transaction):
                    raise
                return True
            else:
                return True

    def _shows(self, transaction: str) -> bool:
        """Whether a bucket's listing comes to show a commit."""
        for wait in _LISTING_WAITS if storage.is_remote(self.root) else ():
            time.sleep(wait)
            if self.transaction(transaction) is not None:
                return True
        return False

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
            stopped = buckets.stopped(f"cannot commit to {self.root}", error)
            if storage.is_remote(self.root) and stopped is not None:
                raise stopped from error
            raise StoreError(
                f"cannot commit to {self.root}: {error}. Nothing of this commit was written "
                "and nothing stored is lost; make room or allow writing there, then run the "
                "same command again"
            ) from error

    def _version_of(self, transaction: str) -> int:
        """Return the version that a commit made, whatever was committed since.

        A listing may lag behind what was just written: it is asked again for a while.
        """
        for wait in (*_LISTING_WAITS, None):
            delta = self._delta()
            for limit in (1, _RECENT_COMMITS, None):
                for entry in delta.history(limit):
                    if entry.get(TRANSACTION) == transaction:
                        return int(entry["version"])
            if wait is None or not storage.is_remote(self.root):
                break
            time.sleep(wait)
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
