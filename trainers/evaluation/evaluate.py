"""A model is measured on labeled images that no one trains on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plstore.codec import Codec
from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels import TeacherRecord, find_teacher, list_teachers
from plstore.loaders import ImageSet
from plstore.loaders.work import Backend
from plstore.query import run_query
from plstore.schema import EVALUATION, SPLITS, Split
from plstore.store import Store
from trainers.absence import leave_out_gone
from trainers.engines import HERE, Engine
from trainers.evaluation.imagenet import Among
from trainers.evaluation.measured import (
    METRICS,
    Images,
    images_of,
    labeled_as,
    named_sets,
    remarks,
)
from trainers.events import Listener, Teller, unheard
from trainers.features.embedding import embed_for, vectors_of
from trainers.inference.clean import probabilities
from trainers.labeling.label import Labeling, as_labeled_before, label_by_all
from trainers.models.model import Bundle

_MEASURED: Final = (
    "accuracy",
    "low",
    "high",
    "top5_accuracy",
    "nll",
    "brier",
    "ece",
    "mean_confidence",
)
_ENDS: Final = ("low", "high")
_DECIDED: Final = ("images", "corrections", "accepted_classes")
_CLASSES_KEPT: Final = 1000
"""Of a label of a test set at least, 3 kB: the likeliest class of a few must be among them."""
_PERCENT: Final = dict.fromkeys(("accuracy", *_ENDS, "top5_accuracy"), 100)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A mean over images.

    Attributes:
        name: Of the column, and of the metric in `runs`.
        scale: The mean is multiplied by it: 100 for percent.
        of_images: Returns float [images] of probabilities, float32 [images, classes], and
            true classes, int64 [images].
    """

    name: str
    scale: float
    of_images: Callable[[Tensor, Tensor], Tensor]


def _is_right(probs: Tensor, classes: Tensor) -> Tensor:
    return (probs.argmax(dim=1) == classes).double()


ACCURACY: Final = Metric(name="accuracy", scale=100, of_images=_is_right)
"""Top-1 accuracy in percent."""


def measure(
    bundle: Bundle,
    images: ImageSet,
    *,
    metrics: Sequence[Metric] = (ACCURACY,),
    device: str,
    backend: Backend = "auto",
    vectors: npt.NDArray[np.float32] | None = None,
    on_images: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Return what a model is worth on labeled images, by name of the metric.

    Args:
        bundle: The model.
        images: Labeled ones.
        metrics: What to measure.
        device: "cpu" or a CUDA device.
        backend: Of the loader.
        vectors: float32 [images, features], the embeddings of the images: a probe looks at
            them instead.
        on_images: Called with the number of images just finished.
    """
    sums = dict.fromkeys((metric.name for metric in metrics), 0.0)
    for probs, classes in _seen(bundle, images, device, backend, vectors, on_images):
        for metric in metrics:
            sums[metric.name] += float(metric.of_images(probs, classes).sum())
    return {metric.name: metric.scale * sums[metric.name] / len(images) for metric in metrics}


def measure_split(
    store: Store,
    bundle: Bundle,
    images: ImageSet,
    split: Split,
    *,
    metrics: Sequence[Metric] = (ACCURACY,),
    device: str,
    backend: Backend = "auto",
    on_event: Listener = unheard,
) -> dict[str, float]:
    """Return what a model is worth on the images of a split; a probe looks at embeddings."""
    embed_for(store, bundle, [split], device=device, backend=backend, on_event=on_event)
    vectors = vectors_of(store, bundle, split, images.sample_ids)
    with Teller(on_event).task(f"evaluate on {split} images", len(images)) as advance:
        return measure(
            bundle,
            images,
            metrics=metrics,
            device=device,
            backend=backend,
            vectors=vectors,
            on_images=advance,
        )


def _seen(
    bundle: Bundle,
    images: ImageSet,
    device: str,
    backend: Backend,
    vectors: npt.NDArray[np.float32] | None,
    on_images: Callable[[int], None],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield probabilities and true classes, batch by batch."""
    if vectors is not None:
        classes = torch.from_numpy(images.class_ids.astype(np.int64))
        yield torch.from_numpy(bundle.head().probabilities(vectors)), classes
        on_images(len(images))
        return
    for batch, probs in probabilities(
        bundle, images, device=device, backend=backend, on_images=on_images
    ):
        yield probs, batch.targets.cpu().argmax(dim=1)


def evaluate(  # noqa: PLR0913  one keyword per choice of the user
    store: Store,
    teacher_ids: str | Sequence[str],
    *,
    splits: Sequence[Split] = ("validation", "test"),
    sets: Sequence[str] = (),
    among: Among | None = None,
    device: str = "auto",
    backend: Backend = "auto",
    engine: Engine = HERE,
    on_event: Listener = unheard,
) -> list[dict[str, Any]]:
    """Measure teachers on labeled images; keep what comes of it in `runs`.

    What a model says is kept as its labels of the split, of the iteration after its own: a
    second call labels what is new, images are read once for all teachers, and every metric is
    the saved query `evaluation/metrics` over the table `soft_labels`. The other queries of
    `evaluation/` then tell more of the same labels.

    Args:
        store: The store.
        teacher_ids: Of teachers with a model, or with labels of the split.
        splits: Which images, with the labels that people corrected.
        sets: Test sets (`plstore import test-set`) by name, or "all". The labels of all sets of
            the store are made together.
        among: Which classes a teacher may say of a test set: all, or those of the set alone;
            what its authors ask for unless given, see `trainers.evaluation.imagenet`.
        device: "auto", "cpu" or a CUDA device.
        backend: Of the loader.
        engine: Where images are labeled: `HERE`, or a `Ray` cluster.
        on_event: Told of progress.

    Returns:
        Of each split, of which those without images are left out, and each teacher:
        teacher_id, split, iteration, num_images; accuracy with the ends of its 95 % interval
        (low, high) and top5_accuracy in percent; nll in nats, brier (0 to 2), ece and
        mean_confidence (0 to 1). Of a test set the same, with dataset and among; where
        several classes may be right, accuracies are those of `evaluation/accepted`, and the
        others None.

    Raises:
        InputError: If there is no such teacher, it has neither model nor labels, or there are
            no such images.
    """
    names = [teacher_ids] if isinstance(teacher_ids, str) else list(teacher_ids)
    teachers = [_teacher(store, name) for name in names]
    there = [split for split in splits if _has_images(store, split)]
    if sets:  # before they are named: those of a folder that is not there now are none
        leave_out_gone(store, Teller(on_event).say)
    named = named_sets(store, sets)
    if not there and not named:
        raise InputError(f"{store.root} has no {' or '.join(splits)} images to evaluate on")
    together: list[list[Split]] = [there, [EVALUATION] if named else []]
    for these in together:
        asked = [
            _labeling(store, teacher, these, device, backend)
            for teacher in teachers
            if teacher.checkpoint and these
        ]
        if asked:
            label_by_all(store, asked, engine=engine, on_event=on_event)
        for labeling in asked:
            if labeling.temperature != 1:
                Teller(on_event).say(
                    f"labels of {labeling.teacher_id} have temperature {labeling.temperature}: "
                    f"nll, brier and ece of {', '.join(these)} images are of those"
                )
    images = images_of(there, named, among)
    for line in remarks(store, images):
        Teller(on_event).say(line)
    return [row for these in images for row in _measured(store, teachers, these)]


def _labeling(
    store: Store,
    teacher: TeacherRecord,
    splits: Sequence[Split],
    device: str,
    backend: Backend,
) -> Labeling:
    """Return how a model labels images that it is measured on."""
    codec = Codec(k=_CLASSES_KEPT) if EVALUATION in splits else Codec()
    return as_labeled_before(
        store,
        Labeling(
            teacher_id=teacher.teacher_id,
            iteration=teacher.iteration + 1,
            splits=splits,
            codec=codec,
            device=device,
            backend=backend,
        ),
    )


def _measured(
    store: Store, teachers: Sequence[TeacherRecord], images: Images
) -> Iterator[dict[str, Any]]:
    """Yield what teachers are worth on images by their labels; keep it in `runs`."""
    pins = store.versions()
    decided = {table: pins[table] for table in _DECIDED if table in pins}
    found = {(row["teacher_id"], row["iteration"]): row for row in images.metrics(store, pins)}
    for teacher in teachers:
        name = teacher.teacher_id
        newest = labeled_as(teacher, found)
        if (name, newest) not in found:
            raise InputError(
                f"{name!r} has labels and no model, and none of them are of {images.name} "
                "images of known class; 'plstore import predictions' brings some"
            )
        row = found[name, newest]
        values = {
            key: None if row.get(key) is None else _PERCENT.get(key, 1) * row[key]
            for key in _MEASURED
        }
        known = {key: v for key, v in values.items() if v is not None and key not in _ENDS}
        keep_metrics(
            store,
            name,
            {f"{images.metric}_{key}": value for key, value in known.items()},
            value_hash({"teacher": name, **images.columns, "decided": decided, **values}),
            notes={**images.columns, "pins": pins, "query": METRICS},
        )
        of = {"teacher_id": name, **images.columns, "iteration": newest}
        yield {**of, "num_images": row["num_images"], **values}


def agreement(
    store: Store,
    teacher_ids: Sequence[str],
    split: str,
    dataset: str = "",
    among: Among = "all",
) -> list[dict[str, Any]]:
    """Return how alike what teachers say of the images of a split or set is, two by two.

    Of a set that teachers may only say its own classes of, it is what they say of those.

    They are rows of the saved query `evaluation/agreement`, of labels that `evaluate` made.
    """
    query = "evaluation/agreement"
    rows = run_query(store, query, split=split, dataset=dataset, among=among).to_pylist()
    sides = [{(row[f"teacher_{x}"], row[f"iteration_{x}"]) for x in "ab"} for row in rows]
    there = set().union(*sides)
    own = {
        (teacher.teacher_id, labeled_as(teacher, there))
        for teacher in map(partial(_teacher, store), teacher_ids)
    }
    images = dataset or split
    return [{"images": images, **row} for row, of in zip(rows, sides, strict=True) if of <= own]


def _teacher(store: Store, teacher_id: str) -> TeacherRecord:
    teacher = find_teacher(store, teacher_id)
    if teacher is None:
        known = ", ".join(t.teacher_id for t in list_teachers(store))
        raise InputError(
            f"{store.root} has no teacher {teacher_id!r}; there are {known or 'none'}"
        )
    return teacher


def _has_images(store: Store, split: Split) -> bool:
    if split not in SPLITS or split in {"unlabeled", EVALUATION}:
        raise InputError(
            f"split is {split!r}; wanted labeled, validation or test, or the names of test "
            "sets (--sets)"
        )
    return bool(store.count_images(split))


def keep_metrics(
    store: Store,
    teacher_id: str,
    values: Mapping[str, float],
    identity: str,
    *,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Keep what was measured of a teacher in `runs`."""
    rows = [
        {"run": teacher_id, "step": 0, "name": name, "value": value}
        for name, value in values.items()
    ]
    store.append("runs", rows, identity=identity, step="evaluate", notes=notes)
