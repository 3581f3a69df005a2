"""What a run would take: images, time and disk, before anything is done."""

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from plstore.exchange import Source
from trainers.losses import combined_cross_entropy
from trainers.model import build_model
from trainers.recipe import Recipe
from trainers.steps import Step

_WARM_UP_STEPS = 1
_TIMED_STEPS = 3
_NOISE_SHARE = 1.25  # measured: decoding and noise beside training on the same cores
_LABEL_BYTES = 61  # a soft label of 20 classes, compact
_IMPORT_PER_SECOND = 2000.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Images seen, seconds taken and bytes left by one step."""

    images: int
    seconds: float
    num_bytes: int


class Estimator:
    """Estimates from the images' count and size, and from a few timed steps."""

    def __init__(self, recipe: Recipe, source: Source, device: str) -> None:
        """Time nothing yet."""
        self._recipe = recipe
        self._source = source
        self._device = device
        self._step_seconds: dict[str, tuple[float, float, int]] = {}

    def estimate(self, step: Step) -> Estimate:
        """Return what a step would take."""
        splits = self._source.splits
        labeled, unlabeled = splits["labeled"], splits["unlabeled"]
        held_out = splits.get("validation", 0) + splits.get("test", 0)
        architecture = self._recipe.model.student(step.iteration)
        image_bytes = self._source.num_bytes / max(self._source.num_images, 1)
        if step.kind == "import":
            count = self._source.num_images
            return _estimate(count, count / _IMPORT_PER_SECOND, self._source.num_bytes)
        if step.kind == "labeled":
            return _estimate(labeled, 0.2, labeled * image_bytes)
        if step.kind == "select":
            count = labeled + unlabeled
            # images in the loader's cache; labels there and in the view, which names the images
            return _estimate(unlabeled, 1.0, count * (image_bytes + 2 * _LABEL_BYTES))
        train_seconds, clean_seconds, num_bytes = self._time(architecture)
        if step.kind == "train":
            settings = self._recipe.train
            images = settings.steps * (settings.labeled_batch + settings.pseudo_batch)
            return _estimate(images, train_seconds * images * _NOISE_SHARE, num_bytes)
        count = held_out
        if step.kind == "label":
            count = unlabeled + splits.get("validation", 0)
        return _estimate(count, clean_seconds * count * _NOISE_SHARE, count * _LABEL_BYTES)

    def _time(self, architecture: str) -> tuple[float, float, int]:
        if architecture not in self._step_seconds:
            self._step_seconds[architecture] = self._measure(architecture)
        return self._step_seconds[architecture]

    def _measure(self, architecture: str) -> tuple[float, float, int]:
        """Return seconds an image to train, seconds an image to label, and bytes of weights."""
        recipe = self._recipe
        if recipe.train.threads is not None:
            torch.set_num_threads(recipe.train.threads)
        classes = len(self._source.class_names)
        batch = recipe.train.labeled_batch + recipe.train.pseudo_batch
        settings = recipe.model.model_copy(update={"pretrained": False, "weights": None})
        network = build_model(settings, architecture, classes).to(self._device).train()
        size = recipe.model.resolution
        images = torch.zeros(batch, recipe.model.channels, size, size, device=self._device)
        images = images.to(memory_format=torch.channels_last)
        targets = torch.full((batch, classes), 1 / classes, device=self._device)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)

        def train_step() -> None:
            loss = combined_cross_entropy(
                network(images), targets, num_labeled=batch, label_smoothing=0.0
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's is
            optimizer.step()

        @torch.inference_mode()
        def label_step() -> None:
            network(images)

        num_bytes = sum(value.nbytes for value in network.state_dict().values())
        train_seconds = self._timed(train_step) / batch
        network.eval()
        return train_seconds, self._timed(label_step) / batch, num_bytes

    def _timed(self, work: Any) -> float:  # noqa: ANN401  a decorated function, untyped by torch
        for _ in range(_WARM_UP_STEPS):
            work()
        start = perf_counter()
        for _ in range(_TIMED_STEPS):
            work()
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()
        return (perf_counter() - start) / _TIMED_STEPS


def _estimate(images: int, seconds: float, num_bytes: float) -> Estimate:
    return Estimate(images=images, seconds=seconds, num_bytes=int(num_bytes))
