"""What a run would take: images, time and disk, before anything is done."""

from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import torch

from plstore.exchange import Source
from trainers.losses import combined_cross_entropy
from trainers.model import build_model
from trainers.recipe import Model, Recipe

LABEL_BYTES: Final = 61
"""A soft label of 20 classes, compact."""

EMBEDDING_BYTES: Final = 2600
"""An embedding of 1,280 numbers, compact."""

_WARM_UP_STEPS = 1
_TIMED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Images seen, seconds taken and bytes left by one step."""

    images: int
    seconds: float
    num_bytes: int

    @classmethod
    def of(cls, images: int, seconds: float, num_bytes: float) -> "Estimate":
        """Return an estimate of whole bytes."""
        return cls(images=images, seconds=seconds, num_bytes=int(num_bytes))


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A model on this device: seconds an image to train and to label, bytes of its weights."""

    train_seconds: float
    clean_seconds: float
    num_bytes: int


class Estimator:
    """What steps estimate from: the images' count and size, and a few timed steps."""

    def __init__(self, recipe: Recipe, source: Source, device: str) -> None:
        """Time nothing yet."""
        self.recipe = recipe
        self.source = source
        self._device = device
        self._timed_models: dict[tuple[str, int], Timed] = {}

    @property
    def image_bytes(self) -> float:
        """Bytes of an image's file, on average."""
        return self.source.num_bytes / max(self.source.num_images, 1)

    def timed(self, iteration: int) -> Timed:
        """Return how long the model of an iteration takes, timed once."""
        model, architecture = (
            self.recipe.model_of(iteration),
            self.recipe.model.student(iteration),
        )
        what = (architecture, model.resolution)
        if what not in self._timed_models:
            self._timed_models[what] = self._measure(model, architecture)
        return self._timed_models[what]

    def _measure(self, model: Model, architecture: str) -> Timed:
        recipe = self.recipe
        if recipe.train.threads is not None:
            torch.set_num_threads(recipe.train.threads)
        classes = len(self.source.class_names)
        batch = recipe.train.labeled_batch + recipe.train.pseudo_batch
        settings = model.model_copy(update={"pretrained": False, "weights": None})
        network = build_model(settings, architecture, classes).to(self._device).train()
        size = model.resolution
        images = torch.zeros(batch, model.channels, size, size, device=self._device)
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
        return Timed(
            train_seconds=train_seconds,
            clean_seconds=self._timed(label_step) / batch,
            num_bytes=num_bytes,
        )

    def _timed(self, work: Any) -> float:  # noqa: ANN401  a decorated function, untyped by torch
        for _ in range(_WARM_UP_STEPS):
            work()
        start = perf_counter()
        for _ in range(_TIMED_STEPS):
            work()
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()
        return (perf_counter() - start) / _TIMED_STEPS
