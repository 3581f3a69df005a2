"""Whose labels there are, and of which images: the partitions of `soft_labels`."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError
from plstore.store import PartitionValues

if TYPE_CHECKING:
    from plstore.store import Store

SHARD_IDS = 65_536
"""Sample ids of one label shard: shard n holds ids from n times that on, in every label set."""

_TEACHER_ID = re.compile(r"[a-z0-9_-]+")


@dataclass(frozen=True, kw_only=True, order=True)
class LabelSet:
    """Whose labels, and of what: the partition of `soft_labels` that they fill."""

    iteration: int
    teacher_id: str
    split: str

    @property
    def partition(self) -> PartitionValues:
        """Values of the partition columns."""
        return {
            "iteration": self.iteration,
            "teacher_id": self.teacher_id,
            "split": self.split,
        }


@dataclass(frozen=True, kw_only=True)
class LabelBatch:
    """Distributions of some images.

    Attributes:
        sample_ids: int64 [rows], ascending through all batches of a label set.
        probabilities: float32 [rows, classes].
    """

    sample_ids: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]


def check_teacher_id(teacher_id: str) -> str:
    """Return the id, or raise InputError: it names folders, so it is [a-z0-9_-]+ only."""
    if not _TEACHER_ID.fullmatch(teacher_id):
        raise InputError(
            f"teacher id {teacher_id!r} may hold only lower-case letters, digits, '_' and '-'"
        )
    return teacher_id


def label_sets(store: "Store", version: int | None = None) -> dict[LabelSet, int]:
    """Return every label set of a snapshot, in order, with its number of rows."""
    counts: dict[LabelSet, int] = {}
    for shard in store.table("soft_labels").shards(version):
        label_set = LabelSet(
            iteration=int(shard.partition["iteration"]),
            teacher_id=shard.partition["teacher_id"],
            split=shard.partition["split"],
        )
        counts[label_set] = counts.get(label_set, 0) + shard.num_rows
    return dict(sorted(counts.items()))


def labels_in_order(
    store: "Store", version: int | None = None, splits: Collection[str] = ()
) -> list[tuple[str, int]]:
    """Return teachers with the iterations that they labeled, the newest last.

    Later iterations are newer; of one iteration, what was labeled last is. (By the commits; a
    compaction or deletion labels nothing.)

    Args:
        store: The store.
        version: Of `soft_labels`; the newest unless given.
        splits: Labels of one of these at least; of any unless given.
    """
    sets = [s for s in label_sets(store, version) if not splits or s.split in splits]
    found = list(dict.fromkeys((s.teacher_id, s.iteration) for s in sets))
    if len({iteration for _, iteration in found}) == len(found):
        return found
    last: dict[tuple[Any, Any], int] = {}
    for commit in store.table("soft_labels").history():  # newest first
        if version is None or commit.version <= version:
            of = commit.lineage.get("teacher_id"), commit.lineage.get("iteration")
            last.setdefault(of, commit.version)
    return sorted(found, key=lambda of: (of[1], last.get(of, -1), of[0]))


def find_label_sets(
    store: "Store",
    teacher_id: str,
    *,
    iteration: int | None = None,
    version: int | None = None,
) -> list[LabelSet]:
    """Return a teacher's label sets of one iteration: the last one that it labeled.

    Raises:
        InputError: If there are none; the message names those that there are.
    """
    known = label_sets(store, version)
    found = [s for s in known if s.teacher_id == teacher_id]
    if iteration is not None:
        found = [s for s in found if s.iteration == iteration]
    if not found:
        there = dict.fromkeys(f"{s.teacher_id} (iteration {s.iteration})" for s in known)
        wanted = "" if iteration is None else f" of iteration {iteration}"
        raise InputError(
            f"{store.root} has no labels by {teacher_id!r}{wanted}; it has those by "
            f"{', '.join(there) or 'no one: plstore label makes them'}"
        )
    last = max(s.iteration for s in found)
    return [s for s in found if s.iteration == last]
