"""Compaction: many small files of a table become few, with the same rows."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plstore.fingerprint import value_hash
from plstore.labels import SHARD_IDS

if TYPE_CHECKING:
    from plstore.store import Shard, Store, Table

_SHARD_ROWS = 8192
_SHARD_BYTES = 256 << 20
_TABLES = ("images", "truth", "soft_labels", "exclusions", "corrections", "deletions", "runs")


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """What became of one table."""

    table: str
    files_before: int
    files_after: int


def compact(
    store: "Store", *, on_tables: Callable[[int], None] = lambda _: None
) -> list[Compaction]:
    """Merge small files: images up to 8,192 rows or 256 MiB, labels by range of sample ids.

    The rows of the newest snapshot stay the same; older versions keep the old files until
    nothing needs them and `collect` deletes them.

    Raises:
        CommitConflictError: If another writer changed the same files at the same time; what was
            merged before stays so, and running it again goes on.
    """
    results = []
    for name in _TABLES:
        table = store.table(name)
        results.append(_compact_table(table))
        on_tables(1)
    return results


def _compact_table(table: "Table") -> Compaction:
    version, shards = table.newest()
    groups = [group for group in _groups(table, shards) if len(group) > 1]
    after = len(shards)
    for group in groups:
        what = {"version": version, "files": [shard.path for shard in group]}
        identity = value_hash(what)  # the same files may be there, merged and be back again
        rows = table.dataset_of(group).to_table(columns=table.spec.file_schema.names)
        if "sample_id" in rows.column_names:
            rows = rows.sort_by("sample_id")
        name = _name(table, group, identity)
        table.commit(
            [table.write_shard(name, rows, group[0].partition)],
            lineage={"step": "compact", "files": len(group)},
            transaction=f"compact-{identity}",
            remove=group,
            data_change=False,
        )
        after -= len(group) - 1
    return Compaction(table=table.spec.name, files_before=len(shards), files_after=after)


def _name(table: "Table", group: "list[Shard]", identity: str) -> str:
    if table.spec.name == "soft_labels":
        return f"labels-{identity}-{group[0].first_id // SHARD_IDS:06d}"
    return f"part-{table.spec.name}-{max(group[0].first_id, 0):012d}-{identity}"


def _groups(table: "Table", shards: "Iterable[Shard]") -> "Iterator[list[Shard]]":
    """Yield neighbours that fit into one file together."""
    group: list[Shard] = []
    for shard in shards:
        if group and not _fits(table, group, shard):
            yield group
            group = []
        group.append(shard)
    if group:
        yield group


def _fits(table: "Table", group: "list[Shard]", shard: "Shard") -> bool:
    if shard.partition != group[0].partition:
        return False
    if table.spec.name == "soft_labels":
        return shard.first_id // SHARD_IDS == group[0].first_id // SHARD_IDS
    members = [*group, shard]
    num_rows = sum(member.num_rows for member in members)
    num_bytes = sum(member.size_bytes for member in members)
    limit = _SHARD_ROWS if table.spec.name == "images" else SHARD_IDS
    return num_rows <= limit and num_bytes <= _SHARD_BYTES
