"""What a commit rests on, looked at just before it is made."""

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from deltalake import DeltaTable

from plstore import storage
from plstore.errors import CommitConflictError, StoreError
from plstore.store.shard import Claim, Shard, partition_of, shards_of
from plstore.store.snapshot import Snapshots

if TYPE_CHECKING:
    from pathlib import Path

TABLES_OF_IMAGES = (
    "images",
    "truth",
    "accepted_classes",
    "soft_labels",
    "perturbed_labels",
    "embeddings",
    "exclusions",
    "corrections",
    "view_rows",
    "view_labels",
)
"""Every table that has rows of images; `images` first, so that no reader finds them anew."""

_ASKED_ONE_BY_ONE = 16
_FIRST_DELETION = "deletions/_delta_log/00000000000000000001.json"


def check_present(table: Snapshots, shards: Collection[Shard]) -> None:
    """Stop unless the shards are there; those in a folder are made young for `collect`.

    Raises:
        StoreError: If one is gone.
    """
    gone: list[str] = []
    if storage.is_remote(table.root):
        gone = _gone_from_bucket(table, shards)
    else:
        for shard in shards:
            try:
                os.utime(table.root / shard.path)
            except FileNotFoundError:
                gone.append(shard.path)
            except PermissionError:  # the commit itself will say so
                break
    if gone:
        raise StoreError(
            f"{table.root / gone[0]} is gone before it was committed: collected by 'plstore "
            "gc' with too short a grace? Nothing of this commit was written; run the same "
            "command again"
        )


def _gone_from_bucket(table: Snapshots, shards: Collection[Shard]) -> list[str]:
    """Return what is not there: asked file by file, or by a listing of folders of many.

    A listing answers for a thousand files, whichever they are; a table has a hundred thousand.
    """
    folders: dict[str, list[str]] = {}
    for shard in shards:
        folders.setdefault(shard.path.rpartition("/")[0], []).append(shard.path)
    gone: list[str] = []
    for folder, paths in folders.items():
        there: set[str] = set()
        if len(paths) > _ASKED_ONE_BY_ONE:
            place = table.root / folder if folder else table.root
            prefix = f"{folder}/" if folder else ""
            there = {f"{prefix}{entry.path}" for entry in storage.files_below(place)}
        left = [path for path in paths if path not in there]
        with ThreadPoolExecutor(_ASKED_ONE_BY_ONE) as pool:
            times = pool.map(lambda path: storage.modified(table.root / path), left)
            gone += [path for path, time in zip(left, times, strict=True) if time is None]
    return gone


def check_not_deleted(table: Snapshots, shards: Collection[Shard]) -> None:
    """Stop if a shard holds images that were deleted while it was written.

    A deletion notes its images first and looks for their files afterwards: a file that was
    written before that look is rewritten by it, one that was written later is refused here.

    Raises:
        CommitConflictError: If there are such images.
    """
    erased = table.erasures.by_path()
    late = [shard.path for shard in shards if shard.path in erased]
    deleted = _deleted_ids(table)
    if not late and len(deleted) and table.spec.name in TABLES_OF_IMAGES:
        near = [shard for shard in shards if may_hold(shard, deleted)]
        late = [shard.path for shard in near if np.isin(_ids(table, shard), deleted).any()]
    if late:
        raise CommitConflictError(
            f"images of {late[0]} were deleted while it was written. Nothing of this commit "
            "was written; run the same command again"
        )


def may_hold(shard: Shard, sample_ids: npt.NDArray[np.int64]) -> bool:
    """Whether one of some ascending sample ids is in the range of a shard."""
    first = np.searchsorted(sample_ids, shard.first_id)
    return bool(first < len(sample_ids) and sample_ids[first] <= shard.last_id)


def _deleted_ids(table: Snapshots) -> npt.NDArray[np.int64]:
    """Return the images that were ever deleted, ascending; one look where there are none."""
    store: Path = table.root.parent
    if storage.modified(store / _FIRST_DELETION) is None:
        return np.empty(0, np.int64)
    rows = table.sibling("deletions").read(columns=["sample_id"])
    ids: npt.NDArray[np.int64] = np.unique(rows["sample_id"].to_numpy())
    return ids


def _ids(table: Snapshots, shard: Shard) -> npt.NDArray[np.int64]:
    rows = table.dataset_of([shard]).to_table(columns=["sample_id"])
    ids: npt.NDArray[np.int64] = rows["sample_id"].to_numpy()
    return ids


def check_claim(table: Snapshots, delta: DeltaTable, claim: Claim) -> None:
    """Stop unless a sequence stands where a commit takes its numbers.

    Raises:
        CommitConflictError: If another writer took them.
    """
    found = table.transaction_of(delta, f"sequence-{claim.name}") or 0
    if found != claim.start:
        raise CommitConflictError(
            f"another writer took the numbers {claim.start} to {found - 1} of "
            f"{claim.name!r} in {table.root}. Nothing of this commit was written; run the "
            "same command again"
        )


def check_beside(
    delta: DeltaTable, name: str, shards: Collection[Shard], beside: Collection[Shard]
) -> None:
    """Stop if shards of the same images are there that these were not made to stand beside.

    Raises:
        CommitConflictError: If there are.
    """
    known = {shard.path for shard in beside} | {shard.path for shard in shards}
    for partition, members in _by_partition(shards).items():
        firsts, lasts = _bounds(members)
        for found in shards_of(delta, dict(partition)):
            before = int(np.searchsorted(firsts, found.last_id, side="right"))
            meets = before > 0 and lasts[before - 1] >= found.first_id
            if meets and found.path not in known:
                raise CommitConflictError(
                    f"another writer committed {found.path} of {name!r} at the same time. "
                    "Nothing of this commit was written; run the same command again"
                )


_Partition = tuple[tuple[str, str], ...]


def _by_partition(shards: Collection[Shard]) -> dict[_Partition, list[Shard]]:
    found: dict[_Partition, list[Shard]] = {}
    for shard in shards:
        found.setdefault(partition_of(shard), []).append(shard)
    return found


def _bounds(shards: Collection[Shard]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return lowest ids, ascending, and the highest id of each shard and all before it."""
    bounds = np.array(sorted((s.first_id, s.last_id) for s in shards), np.int64)
    return bounds[:, 0], np.maximum.accumulate(bounds[:, 1])


def removed_by(
    delta: DeltaTable,
    name: str,
    shards: Collection[Shard],
    remove: Collection[Shard],
    *,
    replace: bool,
) -> list[Shard]:
    """Return the shards that a commit takes from the snapshot, if they are still in it.

    Raises:
        CommitConflictError: If one is not.
    """
    if not (replace or remove):
        return []
    there = {shard.path for shard in shards_of(delta)} if remove else set()
    if gone := [shard.path for shard in remove if shard.path not in there]:
        raise CommitConflictError(
            f"another writer rewrote {len(gone)} files of {name!r}, such as {gone[0]}. "
            "Nothing of this commit was written; run the same command again"
        )
    removed = {shard.path: shard for shard in remove}
    for partition in _by_partition(shards) if replace else ():
        removed |= {s.path: s for s in shards_of(delta, dict(partition))}
    added = {shard.path for shard in shards}
    return [shard for path, shard in removed.items() if path not in added]
