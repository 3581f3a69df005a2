"""Labeling as work for an engine: a range of ids is a shard, a worker holds the models."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

from plstore.loaders import import_backend, pick_backend
from plstore.loaders.work import BackendName
from plstore.store import Shard, Store
from plstore.store import open as open_store
from trainers.engines.work import OnImages
from trainers.inference.clean import precision
from trainers.inference.compiling import compiled
from trainers.inference.missing import Labeling, Lacking, Missing, ranges_of
from trainers.inference.ranges import Assignment, Range, label_ranges, of_same_images
from trainers.models.model import Bundle, load_teacher
from trainers.named import teacher_named
from trainers.training.train import pick_device


@dataclass(frozen=True, kw_only=True)
class Made:
    """With what labels were made.

    Attributes:
        backend: Of the loader.
        precision: Of the model.
    """

    backend: BackendName
    precision: Literal["bfloat16", "float32"]

    @classmethod
    def by(cls, labeling: Labeling) -> Self:
        """Return with what this process labels."""
        backend = pick_backend(labeling.backend, labeling.device)
        return cls(backend=backend, precision=precision(labeling.device))


@dataclass(frozen=True, kw_only=True)
class Labeled:
    """Labels that a worker wrote, and that nothing names yet.

    Attributes:
        number: Of the labeling, of those that share a pass.
        missing: Of which images.
        shards: The files.
        made: With what.
    """

    number: int
    missing: Missing
    shards: list[Shard]
    made: Made

    @property
    def num_images(self) -> int:
        """Images that now have a label."""
        return len(self.missing.ids)


def of_one_commit(labeled: Iterable[Labeled]) -> list[list[Labeled]]:
    """Return labels by what one commit says of all of its own."""
    groups: dict[tuple[object, ...], list[Labeled]] = {}
    for each in labeled:
        split, version = each.missing.label_set.split, each.missing.images_version
        groups.setdefault((each.number, split, version, each.made), []).append(each)
    return list(groups.values())


@dataclass(frozen=True, kw_only=True)
class LabelRanges:
    """Teachers label what they lack of a range; a `trainers.engines.Work`.

    Attributes:
        place: Of the store, as every worker sees it.
        labelings: By whom and how, on one device.
    """

    place: str
    labelings: tuple[Labeling, ...]

    @classmethod
    def of(cls, store: Store, labelings: Sequence[Labeling]) -> Self:
        """Return the work of teachers of a store."""
        return cls(place=str(store.root), labelings=tuple(labelings))

    @property
    def device(self) -> str:
        """Where it computes."""
        return self.labelings[0].device

    def ranges(self, store: Store) -> list[Range]:
        """Return the ranges that there are, without a look at their images."""
        splits = dict.fromkeys(name for each in self.labelings for name in each.splits)
        parts = [each.part for each in self.labelings]
        return [
            Range(split, number)
            for split in splits
            for number in ranges_of(store.table("images").shards())
            if any(number % size == part for part, size in parts)
        ]

    def open(self, on_images: OnImages) -> Callable[[Range], list[Labeled]]:
        """Open the store; models are loaded when a range lacks labels."""
        return _Labeler(open_store(self.place), self.labelings, on_images).label


def resolved(labeling: Labeling) -> Labeling:
    """Return a labeling with the device and backend that this machine has for "auto".

    Raises:
        InputError: If the device is not there.
        MissingExtraError: If the backend is not installed.
    """
    device = pick_device(labeling.device)
    backend = pick_backend(labeling.backend, device)
    import_backend(backend)
    return replace(labeling, device=device, backend=backend)


class _Labeler:
    """A store that is open, with models that are loaded once they are needed."""

    def __init__(
        self, store: Store, labelings: Sequence[Labeling], on_images: OnImages
    ) -> None:
        self._store, self._on_images = store, on_images
        self._labelings = [resolved(each) for each in labelings]
        self._lacking: dict[str, Lacking] = {}

    @cached_property
    def _bundles(self) -> list[Bundle]:
        return [_opened(self._store, labeling) for labeling in self._labelings]

    @cached_property
    def _made(self) -> list[Made]:
        return [Made.by(labeling) for labeling in self._labelings]

    def label(self, asked: Range) -> list[Labeled]:
        """Label what teachers lack of a range; return the files."""
        here = [n for n, each in enumerate(self._labelings) if asked.split in each.splits]
        if asked.split not in self._lacking:
            theirs = [self._labelings[n] for n in here]
            self._lacking[asked.split] = Lacking(self._store, theirs, asked.split)
        found = self._lacking[asked.split].of(asked.number)
        lacking = {n: m for n, m in zip(here, found, strict=True) if m is not None}
        return [
            Labeled(number=n, missing=lacking[n], shards=shards, made=self._made[n])
            for group in of_same_images(lacking)
            for n, shards in zip(group, self._written(lacking, group), strict=True)
        ]

    def _written(self, lacking: dict[int, Missing], group: Sequence[int]) -> list[list[Shard]]:
        asked = [
            Assignment(bundle=self._bundles[n], labeling=self._labelings[n], missing=lacking[n])
            for n in group
        ]
        return label_ranges(self._store, asked, self._on_images)


def _opened(store: Store, labeling: Labeling) -> Bundle:
    """Load a teacher's model, noised or compiled as it is to be."""
    teacher = teacher_named(store, labeling.teacher_id)
    bundle = load_teacher(store, teacher, device=labeling.device)
    if labeling.noise is not None:
        bundle = labeling.noise.on(bundle, labeling.device)
    is_looking = bundle.embeddings is None and labeling.compiled
    return compiled(bundle, labeling.device) if is_looking else bundle
