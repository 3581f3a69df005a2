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
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore import storage
from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.store.log import after_erasure
from plstore.store.parquet import statistics
from plstore.store.shard import Shard
from plstore.store.versions import pinned

if TYPE_CHECKING:
    from plstore.store.store import Store
    from plstore.store.table import Table

_TABLES = ("images", "truth", "soft_labels", "exclusions", "corrections", "view_rows")
"""Every table that has rows of images; `images` first, so that no reader finds them anew."""

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
    for name in _TABLES:
        rows, files = _erase_from(store, name, ids, on_files)
        rows_by_table[name] = rows
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
    near = [shard for shard in table.shards() if _may_hold(shard, ids)]
    if not near:
        return ()
    where = pc.field("sample_id").isin(pa.array(ids))
    rows = table.dataset_of(near).to_table(columns=["view", "version"], filter=where)
    return tuple(sorted({f"{row['view']}@{row['version']}" for row in rows.to_pylist()}))


def _may_hold(shard: Shard, ids: _Ids) -> bool:
    first = np.searchsorted(ids, shard.first_id)
    return bool(first < len(ids) and ids[first] <= shard.last_id)


def _erase_from(
    store: "Store", name: str, ids: _Ids, on_files: Callable[[int], None]
) -> tuple[int, int]:
    """Rewrite a table's files; return the rows that left its newest snapshot, and the files."""
    table = store.table(name)
    live = {shard.path: shard for shard in table.shards()}
    old = {
        shard.path: shard
        for versions in pinned(store)
        if name in versions
        for shard in table.shards(versions[name])
    }
    removed: list[Shard] = []
    added: list[Shard] = []
    num_rows = num_files = 0
    known = {**old, **live}
    erased = table.erasures.by_path()
    for shard in (*known.values(), *_unreferenced(table, known)):
        if not _may_hold(shard, ids):
            continue
        # A deletion that was stopped before its commit has rewritten it already.
        current = after_erasure(shard, erased)
        rewritten, dropped = (None, 0) if current is None else _rewrite(table, current, ids)
        if current is not None and dropped:
            table.erasures.record(current.path, rewritten)
            current = rewritten
            num_files += 1
            on_files(1)
        if shard.path in live and current != shard:
            removed.append(shard)
            added += [] if current is None else [current]
            num_rows += shard.num_rows - (0 if current is None else current.num_rows)
    if removed:
        identity = value_hash({"table": name, "files": sorted(s.path for s in removed)})
        table.commit(
            added,
            lineage={"step": "delete", "files": len(removed)},
            transaction=f"delete-{identity}",
            remove=removed,
        )
    return num_rows, num_files


def _unreferenced(table: "Table", known: Mapping[str, Shard]) -> Iterator[Shard]:
    """Yield files that are there and that neither the newest nor a pinned snapshot names."""
    erased = table.erasures.by_path()
    for entry in storage.files_below(table.root):
        *folders, name = entry.path.split("/")
        fresh = entry.path not in known and entry.path not in erased
        if fresh and name.endswith(".parquet") and not name.startswith("."):
            partition = dict(folder.split("=", 1) for folder in folders if "=" in folder)
            shard = Shard(
                path=entry.path, size_bytes=entry.size_bytes, partition=partition, stats={}
            )
            rows = table.dataset_of([shard]).to_table(columns=["sample_id"])
            yield replace(shard, stats=statistics(rows))


def _rewrite(table: "Table", shard: Shard, ids: _Ids) -> tuple[Shard | None, int]:
    """Return the shard without these images, None if nothing is left, and the rows it lost."""
    rows = table.dataset_of([shard]).to_table(columns=table.spec.file_schema.names)
    kept = rows.filter(pc.invert(pc.is_in(rows["sample_id"], pa.array(ids))))
    dropped = rows.num_rows - kept.num_rows
    if not dropped:
        return shard, 0
    if not kept.num_rows:
        return None, dropped
    name = shard.path.rpartition("/")[2].rpartition("-")[0]  # less the hash of its bytes
    return table.write_shard(name, kept, shard.partition), dropped
