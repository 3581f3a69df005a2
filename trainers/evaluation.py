"""A model is measured on labeled images that no one trains on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels import TeacherRecord, find_teacher, list_teachers
from plstore.loaders import ImageSet, import_backend, open_split, pick_backend
from plstore.loaders.work import Backend
from plstore.schema import SPLITS, Split
from plstore.store import Store
from trainers.absence import leave_out_gone
from trainers.embedding import embed_for, vectors_of
from trainers.events import Listener, Teller, unheard
from trainers.inference import probabilities
from trainers.model import Bundle, load_teacher
from trainers.train import pick_device

_LEAST: Final = 1e-12


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


def _is_in_five(probs: Tensor, classes: Tensor) -> Tensor:
    best = probs.topk(min(5, probs.shape[1]), dim=1).indices
    return (best == classes[:, None]).any(dim=1).double()


def _nll(probs: Tensor, classes: Tensor) -> Tensor:
    return -probs.gather(1, classes[:, None])[:, 0].double().clamp_min(_LEAST).log()


ACCURACY: Final = Metric(name="accuracy", scale=100, of_images=_is_right)
METRICS: Final = (
    ACCURACY,
    Metric(name="top5_accuracy", scale=100, of_images=_is_in_five),
    Metric(name="nll", scale=1, of_images=_nll),
)
"""Top-1 and top-5 accuracy in percent; negative log-likelihood in nats."""


def measure(
    bundle: Bundle,
    images: ImageSet,
    *,
    metrics: Sequence[Metric] = METRICS,
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
    metrics: Sequence[Metric] = METRICS,
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


def evaluate(
    store: Store,
    teacher_id: str,
    *,
    splits: Sequence[Split] = ("validation", "test"),
    device: str = "auto",
    backend: Backend = "auto",
    on_event: Listener = unheard,
) -> dict[str, dict[str, float]]:
    """Measure a teacher on labeled images; keep what comes of it in `runs`.

    Args:
        store: The store.
        teacher_id: A teacher with a model.
        splits: Which images, with the labels that people corrected.
        device: "auto", "cpu" or a CUDA device.
        backend: Of the loader.
        on_event: Told of progress.

    Returns:
        By split, of which those without images are left out: by metric; see `METRICS`.

    Raises:
        InputError: If there is no such teacher, it has no model, or there are no such images.
    """
    device = pick_device(device)
    picked = pick_backend(backend, device)
    import_backend(picked)
    bundle = load_teacher(store, _teacher(store, teacher_id), device=device)
    leave_out_gone(store, Teller(on_event).say)
    pins = store.versions(["images", "corrections"])
    found: dict[str, dict[str, float]] = {}
    for split in splits:
        images = _images(store, split, pins)
        if images is None:
            continue
        values = measure_split(
            store, bundle, images, split, device=device, backend=picked, on_event=on_event
        )
        identity = value_hash({"teacher": teacher_id, "split": split, "pins": pins})
        named = {f"{split}_{name}": value for name, value in values.items()}
        keep_metrics(store, teacher_id, named, identity)
        found[split] = values
    if not found:
        raise InputError(f"{store.root} has no {' or '.join(splits)} images to evaluate on")
    return found


def _teacher(store: Store, teacher_id: str) -> TeacherRecord:
    teacher = find_teacher(store, teacher_id)
    if teacher is None:
        known = ", ".join(t.teacher_id for t in list_teachers(store) if t.checkpoint)
        raise InputError(
            f"{store.root} has no teacher {teacher_id!r}; those with a model are "
            f"{known or 'none'}"
        )
    return teacher


def _images(store: Store, split: Split, pins: Mapping[str, int]) -> ImageSet | None:
    if split not in SPLITS or split == "unlabeled":
        raise InputError(f"split is {split!r}; wanted labeled, validation or test")
    if not store.count_images(split, version=pins["images"]):
        return None
    return open_split(store, split, version=pins["images"], corrections=pins["corrections"])


def keep_metrics(
    store: Store, teacher_id: str, values: Mapping[str, float], identity: str
) -> None:
    """Keep what was measured of a teacher in `runs`."""
    rows = [
        {"run": teacher_id, "step": 0, "name": name, "value": value}
        for name, value in values.items()
    ]
    store.append("runs", rows, identity=identity, step="evaluate")
