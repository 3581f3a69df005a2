"""A model is measured on labeled images that no one trains on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels import TeacherRecord, find_teacher, list_teachers
from plstore.loaders import ImageSet, import_backend, open_split, pick_backend
from plstore.loaders.work import Backend
from plstore.schema import SPLITS, Split
from plstore.store import Store
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
    on_images: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Return what a model is worth on labeled images, by name of the metric."""
    sums = dict.fromkeys((metric.name for metric in metrics), 0.0)
    for batch, probs in probabilities(
        bundle, images, device=device, backend=backend, on_images=on_images
    ):
        classes = batch.targets.cpu().argmax(dim=1)
        for metric in metrics:
            sums[metric.name] += float(metric.of_images(probs, classes).sum())
    return {metric.name: metric.scale * sums[metric.name] / len(images) for metric in metrics}


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
    pins = store.versions(["images", "corrections"])
    teller = Teller(on_event)
    found: dict[str, dict[str, float]] = {}
    for split in splits:
        images = _images(store, split, pins)
        if images is None:
            continue
        with teller.task(f"evaluate on {split} images", len(images)) as advance:
            values = measure(bundle, images, device=device, backend=picked, on_images=advance)
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
