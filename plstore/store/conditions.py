"""What a commit rests on, looked at just before it is made."""

import os
from collections.abc import Collection
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

_FIRST_DELETION = "deletions/_delta_log/00000000000000000001.json"


def check_present(table: Snapshots, shards: Collection[Shard]) -> None:
    """Stop unless the shards are there; those in a folder are made young for `collect`.

    Raises:
        StoreError: If one is gone.
    """
    gone: list[str] = []
    if storage.is_remote(table.root):
        there = {entry.path for entry in storage.files_below(table.root)} if shards else set()
        gone = [shard.path for shard in shards if shard.path not in there]
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
    if not (store / _FIRST_DELETION).exists():
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
    found = int(delta.transaction_version(f"sequence-{claim.name}") or 0)
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
    partitions = {partition_of(shard) for shard in shards}
    for found in shards_of(delta):
        if found.path in known or partition_of(found) not in partitions:
            continue
        for shard in shards:
            meets = found.first_id <= shard.last_id and shard.first_id <= found.last_id
            if meets and partition_of(found) == partition_of(shard):
                raise CommitConflictError(
                    f"another writer committed {found.path} of {name!r} at the same time. "
                    "Nothing of this commit was written; run the same command again"
                )


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
    there = {shard.path: shard for shard in shards_of(delta)}
    if gone := [shard.path for shard in remove if shard.path not in there]:
        raise CommitConflictError(
            f"another writer rewrote {len(gone)} files of {name!r}, such as {gone[0]}. "
            "Nothing of this commit was written; run the same command again"
        )
    removed = {shard.path: shard for shard in remove}
    if replace:
        partitions = {partition_of(shard) for shard in shards}
        removed |= {p: s for p, s in there.items() if partition_of(s) in partitions}
    added = {shard.path for shard in shards}
    return [shard for path, shard in removed.items() if path not in added]
