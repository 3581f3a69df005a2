"""What a teacher has not labeled: how it labels, and which images, by range of sample ids."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from plstore.codec import Codec
from plstore.fingerprint import content_hash, value_hash
from plstore.labels import SHARD_IDS, LabelSet
from plstore.loaders.settings import check_number, check_whole
from plstore.loaders.work import Backend
from plstore.schema import ACCEPTED
from plstore.store import Shard, Store, Table
from trainers.inference.clean import Batching, check_batch
from trainers.models.teacher_noise import TeacherNoise


@dataclass(frozen=True, kw_only=True)
class Labeling:
    """How images are labeled.

    Attributes:
        teacher_id: A teacher of the store.
        iteration: That these labels belong to.
        splits: Which images.
        codec: How distributions are kept.
        temperature: Logits are divided by it.
        part: This worker's number and how many share the work; each takes its own shards.
        device: "cpu" or a CUDA device.
        backend: Of the loader; "auto" as in `plstore.load`, whatever the teacher was fed by.
        batch: Images at once, or "auto": 256 on the CPU; on a CUDA device 512, or fewer large
            ones. Halved where memory is short.
        compiled: Whether the model is compiled first, by `torch.compile`: its labels are the
            same but for rounding.
        noise: Of the teacher; None for the paper's, which sees clean images.
        identity: Of the step of a run that labels: labels that it did not make are replaced.
            None adds to the labels that there are.
        images_version: Of the table `images`; the newest, of each range anew, unless given.
        notes: More for the lineage of the labels.
    """

    teacher_id: str
    iteration: int = 1
    splits: Sequence[str] = ("unlabeled", "validation")
    codec: Codec = field(default_factory=Codec)
    temperature: float = 1.0
    part: tuple[int, int] = (0, 1)
    device: str = "cpu"
    backend: Backend = "auto"
    batch: Batching = "auto"
    compiled: bool = False
    noise: TeacherNoise | None = None
    identity: str | None = None
    images_version: int | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def label_set(self, split: str) -> LabelSet:
        """Return the partition that the labels of a split fill."""
        return LabelSet(iteration=self.iteration, teacher_id=self.teacher_id, split=split)

    def __post_init__(self) -> None:
        """Check every setting that is a number.

        Raises:
            InputError: If one is out of range.
        """
        check_whole("iteration", self.iteration, low=0)
        check_number("temperature", self.temperature, low=0, above=True)
        number, parts = self.part
        check_whole("parts", parts, low=1)
        check_whole("part", number, low=0, high=parts - 1)
        check_batch(self.batch)


def count_missing(store: Store, labeling: Labeling) -> int:
    """Return how many images `label_missing` would label."""
    return sum(
        len(missing.ids)
        for split in labeling.splits
        for missing in missing_labels(store, labeling, split)
    )


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Images of a range of sample ids that have no label.

    Attributes:
        label_set: That their labels belong to.
        ids: int64 [images], ascending.
        beside: The shards of labels that there are in the range, and stay.
        instead_of: The shards whose place their labels take, if there are any.
        images_version: Of the table `images`, that they were found in and are read from.
    """

    label_set: LabelSet
    ids: npt.NDArray[np.int64]
    beside: list[Shard]
    instead_of: list[Shard]
    images_version: int

    def identity(self, labeling: Labeling) -> str:
        """Return what files and commit of these labels are known by, [a-z0-9-]+."""
        what = {
            "set": vars(self.label_set),
            "ids": content_hash(self.ids.tobytes()),
            "beside": [shard.path for shard in (*self.beside, *self.instead_of)],
        }
        made_by = "" if labeling.identity is None else f"{labeling.identity}-"
        return f"{made_by}{value_hash(what)}"


def ranges_of(shards: Sequence[Shard], size: int | None = None) -> list[int]:
    """Return the numbers of the ranges of ids that files touch, in order.

    Args:
        shards: The files.
        size: Ids of a range; those of a file of labels unless given.
    """
    ids = size or SHARD_IDS
    touched = (range(s.first_id // ids, s.last_id // ids + 1) for s in shards)
    return sorted({number for numbers in touched for number in numbers})


class _Files:
    """The files of a snapshot, by range of sample ids."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._firsts = np.array([shard.first_id for shard in shards], np.int64)
        self._lasts = np.array([shard.last_id for shard in shards], np.int64)

    def of(self, number: int) -> list[Shard]:
        """Return those that touch a range."""
        first, end = number * SHARD_IDS, (number + 1) * SHARD_IDS
        here = np.flatnonzero((self._firsts < end) & (self._lasts >= first))
        return [self._shards[place] for place in here.tolist()]


class _Images:
    """The files of the versions of `images`; those of the last one asked for are kept."""

    def __init__(self, store: Store) -> None:
        self.table, self.labels = store.table("images"), store.table("soft_labels")
        self._version, self._files = -1, _Files([])

    def files(self, version: int) -> _Files:
        """Return the files of a version."""
        if version != self._version:
            self._version, self._files = version, _Files(self.table.shards(version))
        return self._files


class Lacking:
    """What teachers have not labeled of a split, range by range of sample ids.

    Files of labels are listed once, when it is made.
    """

    def __init__(self, store: Store, labelings: Sequence[Labeling], split: str) -> None:
        """List the files."""
        self._images = _Images(store)
        self._labelings, self._split = labelings, split
        partitions = [labeling.label_set(split).partition for labeling in labelings]
        found = [self._images.labels.shards(partition=values) for values in partitions]
        self._labeled = [_Files(shards) for shards in found]

    def of(self, number: int) -> list[Missing | None]:
        """Return the images of one range without a label, for each teacher; None without any.

        Ranges that are of another worker's part have none.
        """
        if not any(_takes(labeling, number) for labeling in self._labelings):
            return [None for _ in self._labelings]
        newest = self._images.table.version()  # of each range anew: old files are collected
        return [
            _missing_of_range(
                labeling, self._split, number, files.of(number), self._images, newest
            )
            for labeling, files in zip(self._labelings, self._labeled, strict=True)
        ]


def missing_labels(store: Store, labeling: Labeling, split: str) -> Iterator[Missing]:
    """Yield, by range of sample ids, the accepted images of a split that have no label."""
    for (missing,) in missing_of_all(store, [labeling], split):
        if missing is not None:
            yield missing


def missing_of_all(
    store: Store, labelings: Sequence[Labeling], split: str
) -> Iterator[list[Missing | None]]:
    """Yield, by range of sample ids, the images without a label of each of several teachers.

    None stands for a teacher that has labeled them all; ranges that all have are left out.
    """
    lacking = Lacking(store, labelings, split)
    for number in ranges_of(store.table("images").shards()):
        found = lacking.of(number)
        if any(missing is not None for missing in found):
            yield found


def _takes(labeling: Labeling, number: int) -> bool:
    """Whether a range is of this worker's part."""
    part, parts = labeling.part
    return number % parts == part


def _missing_of_range(
    labeling: Labeling,
    split: str,
    number: int,
    here: list[Shard],
    images: _Images,
    newest: int,
) -> Missing | None:
    """Return what a teacher whose labels of a range are `here` has not labeled of it."""
    if not _takes(labeling, number):
        return None
    version = newest if labeling.images_version is None else labeling.images_version
    there = _ids(images.table, images.files(version).of(number), split, number)
    foreign = any(not _is_ours(shard, labeling) for shard in here)
    done = np.empty(0, np.int64) if foreign else _ids(images.labels, here, None, number)
    missing = np.setdiff1d(there, done)
    if not len(missing):
        return None
    return Missing(
        label_set=labeling.label_set(split),
        ids=missing,
        beside=[] if foreign else here,
        instead_of=here if foreign else [],
        images_version=version,
    )


def _is_ours(shard: Shard, labeling: Labeling) -> bool:
    """Whether labels are those that this labeling makes."""
    if labeling.identity is None:
        return True
    name = shard.path.rpartition("/")[2]
    return name.startswith(f"labels-{labeling.identity}-")


def _ids(
    table: Table, shards: Sequence[Shard], split: str | None, number: int
) -> npt.NDArray[np.int64]:
    where = pc.field("sample_id") >= number * SHARD_IDS
    where &= pc.field("sample_id") < (number + 1) * SHARD_IDS
    if split is not None:
        where &= (pc.field("split") == split) & (pc.field("verdict") == ACCEPTED)
    rows = table.dataset_of(shards).to_table(columns=["sample_id"], filter=where)
    ids: npt.NDArray[np.int64] = np.sort(rows["sample_id"].to_numpy())
    return ids
