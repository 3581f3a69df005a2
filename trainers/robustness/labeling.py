"""Teachers label images that were made worse on purpose: how robust are they?

A perturbation is made of the clean pixels that a model sees, once for all teachers that see the
same ones. What they say is kept in the table `perturbed_labels`, one perturbation after the
other: an evaluation that is stopped goes on with the next one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from plstore.codec import Codec
from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels import (
    LabelBatch,
    PerturbationKind,
    PerturbedSet,
    TeacherRecord,
    coded_rows,
    commit_perturbed,
    has_perturbed,
    perturbed_rows,
)
from plstore.loaders import ImageFormat, ImageSet, clean_batches, open_split
from plstore.loaders.work import Backend
from plstore.schema import Split
from plstore.store import Store
from plstore.version import __version__
from trainers.events import Listener, Teller, unheard
from trainers.inference.clean import answers, decoding, room_to_look
from trainers.models.model import Bundle, load_teacher

Ids = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

_BATCH: Final = 128
_LABELS_AT_ONCE: Final = 500_000


class Made(NamedTuple):
    """Images of a batch that were made worse.

    Attributes:
        name: Of the perturbation.
        level: Severity, number of the frame from 0, or epsilon.
        sample_ids: int64 [images].
        pixels: uint8 [images, size, size, channels].
        probs: float32 [images, classes], where they are known: an attack asks the model.
    """

    name: str
    level: float
    sample_ids: Ids
    pixels: Pixels
    probs: npt.NDArray[np.float32] | None = None


class Perturbations(Protocol):
    """Ways of one kind to make images worse, each in levels.

    Attributes:
        kind: Of which they are.
    """

    kind: ClassVar[PerturbationKind]

    @property
    def names(self) -> Sequence[str]:
        """Theirs, [a-z0-9_]+."""
        ...

    def num_levels(self, name: str, size: int) -> int:
        """Return how many images come of one, of `size` pixels a side, by a name."""
        ...

    def identity(self, name: str) -> Mapping[str, Any]:
        """Return all that pixels follow from, beside the images and the name."""
        ...

    def made(
        self, batches: Iterator[tuple[Ids, Pixels]], names: Sequence[str]
    ) -> Iterator[Made]:
        """Yield the images of each batch by each name at each level.

        Args:
            batches: Sample ids, int64 [images], and pixels, uint8 [images, size, size,
                channels].
            names: Some of its own.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is looked at, and by what means.

    Attributes:
        split: Of the images.
        limit: So many images, drawn by `seed`; 0 for all.
        seed: Of that draw.
        device: "cpu" or a CUDA device.
        backend: Of the loader.
    """

    split: Split = "test"
    limit: int = 0
    seed: int = 0
    device: str = "cpu"
    backend: Backend = "auto"

    def rows(self, images: ImageSet) -> npt.NDArray[np.int64]:
        """Return the rows that are looked at, ascending."""
        count = len(images)
        if not self.limit or self.limit >= count:
            return np.arange(count)
        drawn = np.random.default_rng(self.seed).choice(count, self.limit, replace=False)
        return np.sort(drawn)


@dataclass(frozen=True)
class _Seer:
    """A teacher with its model."""

    record: TeacherRecord
    bundle: Bundle


def label_perturbed(
    store: Store,
    teachers: Sequence[TeacherRecord],
    perturbations: Perturbations,
    asked: Asked,
    *,
    on_event: Listener = unheard,
) -> int:
    """Let teachers label perturbed images that they have not labeled yet; return how many.

    Perturbations are kept some at a time: all at once of few images, one by one of many. What
    is kept is not made again.

    Args:
        store: The store.
        teachers: With models.
        perturbations: What is done to the images.
        asked: Which images.
        on_event: Told of progress.

    Raises:
        InputError: If a teacher has no model, or the split no images.
    """
    check_models(teachers)
    seers = [_Seer(t, load_teacher(store, t, device=asked.device)) for t in teachers]
    images = open_split(store, asked.split)
    rows = asked.rows(images)
    groups: dict[tuple[object, ...], list[_Seer]] = {}
    for seer in seers:
        groups.setdefault(decoding(seer.bundle.format), []).append(seer)
    jobs = [
        _Job(store, perturbations, asked, images, rows, seers, names)
        for seers in groups.values()
        for names in _chunks(perturbations, len(rows), seers[0].bundle.format.size)
    ]
    lacking = [(job, job.lacking()) for job in jobs]
    total = sum(job.num_images(found) for job, found in lacking)
    if not total:
        return 0
    with Teller(on_event).task(f"{perturbations.kind} images", total) as advance:
        return sum(job.do(found, advance) for job, found in lacking if found)


def _chunks(
    perturbations: Perturbations, num_images: int, size: int
) -> Iterator[Sequence[str]]:
    """Yield names that are done and kept together."""
    names = perturbations.names
    levels = max(perturbations.num_levels(name, size) for name in names)
    at_once = max(_LABELS_AT_ONCE // max(num_images * levels, 1), 1)
    for first in range(0, len(names), at_once):
        yield names[first : first + at_once]


@dataclass(frozen=True)
class _Job:
    """Some perturbations of some images for teachers that see the same pixels."""

    store: Store
    perturbations: Perturbations
    asked: Asked
    images: ImageSet
    rows: npt.NDArray[np.int64]
    seers: Sequence[_Seer]
    names: Sequence[str]

    def lacking(self) -> "_Lacking":
        """Return whose labels of what there are none of."""
        return {
            (name, seer.record.teacher_id): seer
            for name in self.names
            for seer in self.seers
            if not has_perturbed(self.store, self.set_of(name, seer), self.identity(name, seer))
        }

    def num_images(self, lacking: "_Lacking") -> int:
        """Return how many images are made."""
        names, size = {name for name, _ in lacking}, self.seers[0].bundle.format.size
        return len(self.rows) * sum(self.perturbations.num_levels(n, size) for n in names)

    def do(self, lacking: "_Lacking", on_images: Callable[[int], None]) -> int:
        """Make the images, look at them, and keep what is said; return how many labels."""
        parts: dict[tuple[str, str], list[pa.Table]] = {of: [] for of in lacking}
        device, format_ = self.asked.device, self.seers[0].bundle.format
        names = list(dict.fromkeys(name for name, _ in lacking))
        with room_to_look(device):
            clean = _pixels(self.images, self.rows, format_, self.asked)
            for made in self.perturbations.made(clean, names):
                for (name, teacher_id), seer in lacking.items():
                    if name == made.name:
                        parts[name, teacher_id].append(_rows(made, seer.bundle, device))
                on_images(len(made.sample_ids))
        for (name, _), seer in lacking.items():
            rows = pa.concat_tables(parts[name, seer.record.teacher_id])
            commit_perturbed(
                self.store,
                self.set_of(name, seer),
                rows,
                self.identity(name, seer),
                lineage=self.lineage(name, seer),
            )
        return sum(len(table) for tables in parts.values() for table in tables)

    def set_of(self, name: str, seer: _Seer) -> PerturbedSet:
        """Return whose labels of what they are."""
        return PerturbedSet(
            teacher_id=seer.record.teacher_id,
            split=self.asked.split,
            kind=self.perturbations.kind,
            perturbation=name,
        )

    def identity(self, name: str, seer: _Seer) -> str:
        """Return the hash of all that labels follow from."""
        return value_hash(
            {
                "perturbation": [name, dict(self.perturbations.identity(name))],
                "images": self.images.sample_ids[self.rows].tolist(),
                **self._attacked_classes,
                "checkpoint": seer.record.checkpoint_hash,
                "device": self.asked.device.partition(":")[0],
            }
        )

    @property
    def _attacked_classes(self) -> dict[str, Any]:
        """What an attack leads away from: a correction makes it another one."""
        if self.perturbations.kind != "attack":
            return {}
        return {"classes": self.images.class_ids[self.rows].tolist()}

    def lineage(self, name: str, seer: _Seer) -> dict[str, Any]:
        """Return what the commit says of how labels were made."""
        return {
            **self.perturbations.identity(name),
            "checkpoint_hash": seer.record.checkpoint_hash,
            "num_images": len(self.rows),
            "seed": self.asked.seed,
            "pixels": seer.bundle.format.size,
            "code_version": __version__,
        }


_Lacking = Mapping[tuple[str, str], _Seer]
"""By name of the perturbation and teacher."""


def _rows(made: Made, bundle: Bundle, device: str) -> pa.Table:
    probs = made.probs
    if probs is None:
        batch = torch.from_numpy(made.pixels).permute(0, 3, 1, 2).to(device)
        probs = answers(bundle, batch, device=device).numpy()
    order = np.argsort(made.sample_ids)
    labels = LabelBatch(sample_ids=made.sample_ids[order], probabilities=probs[order])
    return perturbed_rows(coded_rows(labels, Codec()), made.level)


def _pixels(
    images: ImageSet, rows: npt.NDArray[np.int64], format_: ImageFormat, asked: Asked
) -> Iterator[tuple[Ids, Pixels]]:
    """Yield clean images as a model sees them, before they are normalised."""
    for batch in clean_batches(
        images, format_, backend=asked.backend, batch_size=_BATCH, rows=rows
    ):
        pixels = batch.images.permute(0, 2, 3, 1).contiguous().numpy()
        yield batch.sample_ids.numpy().copy(), pixels


def check_models(teachers: Sequence[TeacherRecord]) -> None:
    """Check that teachers have models to show images to.

    Raises:
        InputError: If one has labels alone.
    """
    without = [teacher.teacher_id for teacher in teachers if not teacher.checkpoint]
    if without:
        raise InputError(
            f"{', '.join(without)} has labels and no model; perturbed images want one to look "
            "at them. Leave it out"
        )
