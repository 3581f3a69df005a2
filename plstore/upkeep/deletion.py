"""Deletion of images from everywhere: their rows at once, their bytes with the next collection.

An erasure writes every file that holds such an image anew without it, also files that only an
older, pinned version names, and leaves a record of which file took the place of which. Old
versions are then read with the new files: what they were, less what was erased.
"""

import getpass
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore import storage
from plstore.errors import CommitConflictError, InputError, StoreError
from plstore.fingerprint import value_hash
from plstore.store import TABLES_OF_IMAGES, Shard, after_erasure, may_hold, pinned, statistics

if TYPE_CHECKING:
    from plstore.store import Store, Table

_MOST_CONFLICTS = 20

_Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """What an erasure removed.

    Attributes:
        num_images: Images that were in the store and are not any more.
        rows_by_table: Rows removed from newest snapshots.
        files: Files written anew, those of pinned old versions included.
        views: Views that had held such images, as ``name@version``.
    """

    num_images: int
    rows_by_table: Mapping[str, int]
    files: int
    views: tuple[str, ...]


def erase(
    store: "Store",
    sample_ids: Sequence[int],
    *,
    reason: str,
    who: str | None = None,
    on_files: Callable[[int], None] = lambda _: None,
) -> Erasure:
    """Delete images from every table and version of the store.

    Done twice it does nothing twice; one that was stopped is completed by doing it again. The
    bytes are gone when `collect` has run. Images of the same name or contents are not imported
    again.

    Args:
        store: The store.
        sample_ids: Images; those that are not there any more count as done.
        reason: Why, for the record in `deletions`.
        who: Who decided; the user's login name unless given.
        on_files: Called with the number of files just written anew.

    Raises:
        InputError: If one of them was never in the store; nothing is deleted then.
    """
    ids = np.unique(np.asarray(sample_ids, dtype=np.int64))
    _check_known(store, ids)
    num_images = _record(store, ids, reason, who or getpass.getuser())
    views = _views_holding(store, ids)
    rows_by_table, num_files = {}, 0
    for name in TABLES_OF_IMAGES:
        rows_by_table[name], files = _erase_until_gone(store, name, ids, on_files)
        num_files += files
    shutil.rmtree(store.cache_folder(), ignore_errors=True)  # it holds copies of images
    return Erasure(
        num_images=num_images, rows_by_table=rows_by_table, files=num_files, views=views
    )


def _check_known(store: "Store", ids: _Ids) -> None:
    """Raise InputError unless each image is in the store, or was deleted from it."""
    where = pc.field("sample_id").isin(pa.array(ids))
    found = [
        store.table(name).read(columns=["sample_id"], where=where)
        for name in ("images", "deletions")
    ]
    here = [rows["sample_id"].to_numpy() for rows in found]
    missing = np.setdiff1d(ids, np.concatenate(here))
    if len(missing):
        raise InputError(
            f"{len(missing)} of {len(ids)} images are not in {store.root} and never were "
            f"deleted from it, such as sample_id {missing[0]}; nothing was deleted"
        )


def _record(store: "Store", ids: _Ids, reason: str, who: str) -> int:
    """Note the images that are there in `deletions`, first of all; return how many."""
    columns = ["sample_id", "dataset", "key", "content_hash"]
    where = pc.field("sample_id").isin(pa.array(ids))
    rows = store.table("images").read(columns=columns, where=where).to_pylist()
    noted = set(store.table("deletions").read(columns=["sample_id"])["sample_id"].to_pylist())
    decision = {"reason": reason, "who": who, "decided_at": datetime.now(UTC)}
    new = [{**row, **decision} for row in rows if row["sample_id"] not in noted]
    if new:
        identity = value_hash({"ids": [row["sample_id"] for row in new]})
        store.append("deletions", new, identity=identity, step="delete")
    return len(rows)


def _views_holding(store: "Store", ids: _Ids) -> tuple[str, ...]:
    table = store.table("view_rows")
    near = [shard for shard in table.shards() if may_hold(shard, ids)]
    if not near:
        return ()
    where = pc.field("sample_id").isin(pa.array(ids))
    rows = table.dataset_of(near).to_table(columns=["view", "version"], filter=where)
    return tuple(sorted({f"{row['view']}@{row['version']}" for row in rows.to_pylist()}))


def _erase_until_gone(
    store: "Store", name: str, ids: _Ids, on_files: Callable[[int], None]
) -> tuple[int, int]:
    """Rewrite a table's files until none is left that holds such an image.

    Files that were committed during one pass are met by the next: `deletions` has the images by
    then, so writers commit no more of them.
    """
    num_rows = num_files = conflicts = 0
    while True:
        try:
            rows, files = _erase_from(store, name, ids, on_files)
        except CommitConflictError:  # a compaction or another deletion was first
            conflicts += 1
            if conflicts == _MOST_CONFLICTS:
                raise
            continue
        if not rows and not files:
            return num_rows, num_files
        num_rows, num_files = num_rows + rows, num_files + files


def _erase_from(
    store: "Store", name: str, ids: _Ids, on_files: Callable[[int], None]
) -> tuple[int, int]:
    """Rewrite a table's files; return the rows that left its newest snapshot, and the files.

    A file that is rewritten loses every image that is noted as deleted: with one of another
    deletion, which is at work or was stopped, it could not be committed.
    """
    table = store.table(name)
    work = _Work(table, ids, _noted(store), dict(table.erasures.by_path()))
    version, newest = table.newest()
    live = {shard.path: shard for shard in newest}
    known = {**_pinned_shards(store, name), **live}
    removed: list[Shard] = []
    added: list[Shard] = []
    num_rows = num_files = 0
    for shard in (*known.values(), *_unreferenced(table, known)):
        if not may_hold(shard, ids):
            continue
        current, is_new = _without(work, shard, must_exist=shard.path in live)
        if is_new:
            num_files += 1
            on_files(1)
        if shard.path in live and current != shard:
            removed.append(shard)
            added += [] if current is None else [current]
            num_rows += shard.num_rows - (0 if current is None else current.num_rows)
    if removed:
        what = {"table": name, "version": version, "files": sorted(s.path for s in removed)}
        table.commit(
            added,
            lineage={"step": "delete", "files": len(removed)},
            transaction=f"delete-{value_hash(what)}",
            remove=removed,
        )
    return num_rows, num_files


def _pinned_shards(store: "Store", name: str) -> dict[str, Shard]:
    table = store.table(name)
    versions = {pins[name] for pins in pinned(store) if name in pins}
    return {shard.path: shard for version in versions for shard in table.shards(version)}


def _noted(store: "Store") -> _Ids:
    ids: _Ids = store.table("deletions").read(columns=["sample_id"])["sample_id"].to_numpy()
    return ids


@dataclass(frozen=True)
class _Work:
    """One pass over a table.

    Attributes:
        table: Which.
        ids: Images to be gone, ascending.
        noted: All that are noted as deleted.
        erased: Which file took the place of which, kept up to date by this pass; what another
            deletion says meanwhile, it says first, and this one is refused.
    """

    table: "Table"
    ids: _Ids
    noted: _Ids
    erased: dict[str, dict[str, Any] | None]

    def record(self, old: str, new: Shard | None, *, again: bool = False) -> None:
        """Say which file takes the place of an old one."""
        self.table.erasures.record(old, new, again=again)
        self.erased[old] = None if new is None else vars(new)


def _without(work: _Work, shard: Shard, *, must_exist: bool) -> tuple[Shard | None, bool]:
    """Return what is left of a file without these images, and whether it was written anew.

    A deletion that was stopped before its commit has rewritten it already, and what it wrote
    may be gone by now: then it is written again.
    """
    table = work.table
    current = after_erasure(shard, work.erased)
    if current is None:
        return None, False
    if current != shard and not _is_there(table, current) and _is_there(table, shard):
        rewritten, _ = _rewrite(table, shard, work.noted, work.noted)
        work.record(shard.path, rewritten, again=True)
        return rewritten, True
    try:
        rewritten, dropped = _rewrite(table, current, work.ids, work.noted)
    except (FileNotFoundError, StoreError):
        if must_exist or _is_there(table, current):
            raise
        return current, False  # collected since it was listed: its images are gone with it
    if dropped:
        work.record(current.path, rewritten)
    return rewritten, bool(dropped)


def _is_there(table: "Table", shard: Shard) -> bool:
    return (table.root / shard.path).exists()


def _unreferenced(table: "Table", known: Mapping[str, Shard]) -> Iterator[Shard]:
    """Yield files that are there and that neither the newest nor a pinned snapshot names."""
    erased = table.erasures.by_path()
    for entry in storage.files_below(table.root):
        *folders, name = entry.path.split("/")
        fresh = entry.path not in known and entry.path not in erased
        fresh &= "_delta_log" not in folders  # its checkpoints are Parquet, too
        if fresh and name.endswith(".parquet") and not name.startswith("."):
            partition = dict(folder.split("=", 1) for folder in folders if "=" in folder)
            shard = Shard(
                path=entry.path, size_bytes=entry.size_bytes, partition=partition, stats={}
            )
            try:
                rows = table.dataset_of([shard]).to_table(columns=["sample_id"])
            except (FileNotFoundError, StoreError):
                if _is_there(table, shard):
                    raise
                continue  # collected since it was listed
            yield replace(shard, stats=statistics(rows))


def _rewrite(table: "Table", shard: Shard, ids: _Ids, noted: _Ids) -> tuple[Shard | None, int]:
    """Return what is left of a shard, None if nothing is, and the rows it lost.

    One without these images stays; one with some of them loses all that are noted, too.
    """
    dataset = table.dataset_of([shard])
    there = dataset.to_table(columns=["sample_id"])["sample_id"].to_numpy()
    if not np.isin(there, ids).any():
        return shard, 0
    rows = dataset.to_table(columns=table.spec.file_schema.names)
    gone = pa.array(np.union1d(ids, noted))
    kept = rows.filter(pc.invert(pc.is_in(rows["sample_id"], gone)))
    dropped = rows.num_rows - kept.num_rows
    if not kept.num_rows:
        return None, dropped
    name = shard.path.rpartition("/")[2].rpartition("-")[0]  # less the hash of its bytes
    return table.write_shard(name, kept, shard.partition), dropped
