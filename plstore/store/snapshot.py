"""What a table holds: its snapshots, their files and rows, its history; only to be read."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from plstore import buckets, storage
from plstore.errors import StoreError, StoreNotFoundError
from plstore.schema import TABLES, Profile, TableSpec
from plstore.store.held import Held
from plstore.store.log import Erasures, after_erasure
from plstore.store.shard import LINEAGE, Commit, Shard, paths_of, place_of, shards_of

PartitionValues = Mapping[str, str | int]


class Snapshots:
    """The versions of a Delta table in a folder of the store, to read."""

    def __init__(self, root: Path, spec: TableSpec, profile: Profile = "compact") -> None:
        """Name the table's folder; nothing is read until it is needed."""
        self.root = root / spec.name
        self.spec = spec
        self.profile = profile
        self._url = str(self.root) if storage.is_remote(root) else self.root.as_uri()
        self.erasures = Erasures(root, spec.name)
        self._held = Held(self.root / "_delta_log")

    @property
    def lock_file(self) -> Path:
        """Held by whoever commits to the table, and by `collect` while it deletes its files."""
        return self.root.parent / "_plstore" / "locks" / self.spec.name

    def sibling(self, name: str) -> "Snapshots":
        """Return another table of the same store."""
        return Snapshots(self.root.parent, TABLES[name], self.profile)

    def _delta(self, version: int | None = None) -> DeltaTable:
        """Return a snapshot; the newest one is the same object each time, and moves on then."""
        held = self._held.newest() if version is None else self._held.of(version)
        if held is None:
            held = self._opened(version)
            keep = self._held.keep if version is None else self._held.fix
            keep(held)
        return held

    def _opened(self, version: int | None) -> DeltaTable:
        try:
            delta = DeltaTable(
                self._url, version=version, storage_options=buckets.delta_options(self._url)
            )
        except TableNotFoundError as error:
            raise StoreNotFoundError(
                f"no table {self.spec.name!r} in {self.root.parent}; make the store with "
                f"'plstore init --store {self.root.parent}'"
            ) from error
        except Exception as error:
            wanted = "" if version is None else f" of version {version}"
            what = f"table {self.spec.name!r}{wanted} in {self.root} cannot be read"
            stopped = buckets.stopped(what, error) if storage.is_remote(self.root) else None
            raise stopped or StoreError(f"{what}: {error}") from error
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
        return self.transaction_of(self._delta(), identity)

    def transaction_of(self, delta: DeltaTable, identity: str) -> int | None:
        """Return the same of a snapshot; asked of one version once.

        To answer, delta-rs reads every entry of the log since the last checkpoint.
        """
        return self._held.transaction(delta, identity)

    def sequence(self, name: str) -> int:
        """Return where a sequence stands: 0 before its first commit. See `Claim`."""
        return self.transaction(f"sequence-{name}") or 0

    def shards(
        self, version: int | None = None, partition: PartitionValues | None = None
    ) -> list[Shard]:
        """Return the files of a snapshot, by partition and sample id.

        Args:
            version: Newest unless given.
            partition: Values of some partition columns; files of others are left out.
        """
        found = shards_of(self._delta(version), partition)
        if version is not None and (erased := self.erasures.by_path()):
            replaced = (after_erasure(shard, erased) for shard in found)
            found = sorted((shard for shard in replaced if shard is not None), key=place_of)
        return found

    def newest(self) -> tuple[int, list[Shard]]:
        """Return the newest version with its files, as they are in the log."""
        delta = self._delta()
        return int(delta.version()), shards_of(delta)

    def files(self, version: int | None = None) -> list[str]:
        """Return the Parquet files of a snapshot, sorted, as absolute paths or URLs."""
        if version is not None and self.erasures.by_path():
            return sorted(str(self.root / shard.path) for shard in self.shards(version))
        return sorted(str(self.root / path) for path in paths_of(self._delta(version)))

    def dataset(self, version: int | None = None) -> pyarrow.dataset.Dataset:
        """Return a snapshot as an Arrow dataset with all columns."""
        return self.dataset_of(self.shards(version))

    def dataset_of(self, shards: Collection[Shard]) -> pyarrow.dataset.Dataset:
        """Return some shards as an Arrow dataset with all columns."""
        partition_fields = [self.spec.columns.field(c) for c in self.spec.partition_by]
        sizes = {
            storage.arrow_path(str(self.root / shard.path)): shard.size_bytes
            for shard in shards
        }
        try:
            return pyarrow.dataset.dataset(
                list(sizes),
                schema=self.spec.columns,
                format="parquet",
                filesystem=storage.arrow_filesystem(self.root, sizes),
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
