"""Self-supervised training: a network learns what images have in common, without labels.

SimCLR (Chen et al. 2020): two noised versions of an image are to be near one another, and far
from those of all other images of the step. Every random number follows from (seed, step), so
one that was stopped goes on from its last checkpoint.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from plstore.errors import InputError
from plstore.loaders import ImageFormat, ImageSet, clean_stream, pick_backend
from plstore.loaders.clean import ImageNoise
from plstore.loaders.noise import INPUT_PARTS
from plstore.seeds import Purpose, generator, torch_seed
from trainers.models.model import build_model, image_format
from trainers.recipe import Recipe
from trainers.training.forward import activations
from trainers.training.optimisation import Course
from trainers.training.recording import LOSS, Metric, Recorder
from trainers.training.state import State

_CHECKPOINT_SECONDS: Final = 20.0
_METRIC_STEPS: Final = 50
_WARMUP_SHARE: Final = 0.05
_LEAST: Final = 2  # images of which one is to be told from another


@dataclass(frozen=True, kw_only=True)
class Contrasted:
    """What came of it: the backbone with averaged weights, and metrics."""

    network: nn.Module
    format: ImageFormat
    metrics: list[Metric]

    @property
    def loss(self) -> float | None:
        """The last that was noted, None where the training was too short for one."""
        losses = [value for _, name, value in self.metrics if name == LOSS]
        return losses[-1] if losses else None


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """What to train.

    Attributes:
        recipe: Its sections `model`, `pretrain`, `optimizer` and `train` count.
        images: That it learns from; their labels are not looked at.
        images_version: Of the table `images` that they are from.
        seed: Of this training, not of the run.
        device: "cpu" or a CUDA device.
    """

    recipe: Recipe
    images: ImageSet
    images_version: int
    seed: int
    device: str

    @property
    def batch(self) -> int:
        """Images a step: those of the recipe, or all there are."""
        return min(self.recipe.pretrain.batch, len(self.images))

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches that there are in the images."""
        return len(self.images) // self.batch

    def as_trained(self) -> Recipe:
        """Return a recipe whose optimizer and schedule are those of the pretraining."""
        rate = {"learning_rate": self.recipe.pretrain.learning_rate, "per_images": None}
        schedule = self.recipe.schedule.model_copy(update={"name": "cosine"})
        optimizer = self.recipe.optimizer.model_copy(update=rate)
        return self.recipe.model_copy(update={"optimizer": optimizer, "schedule": schedule})

    def network(self) -> "Siamese":
        """Return the network with random weights and no noise of its own.

        Raises:
            InputError: If timm cannot make it.
        """
        torch.manual_seed(torch_seed(self.seed, Purpose.MODEL_INIT))
        plain = {"pretrained": False, "weights": None, "dropout": 0.0, "stochastic_depth": 0.0}
        model = self.recipe.model.model_copy(update=plain)
        return Siamese(
            build_model(model, model.architecture, 0), self.recipe.pretrain.projection
        )

    def pairs(self, format_: ImageFormat, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield uint8 images of each step, noised twice, from a step on without an end."""
        yield from zip(
            *(self._noised(twin, format_, first_step) for twin in range(2)), strict=True
        )

    def _noised(self, twin: int, format_: ImageFormat, first_step: int) -> Iterator[Tensor]:
        noise = ImageNoise(
            noise=self.recipe.pretrain.as_noise(),
            parts=INPUT_PARTS,
            seed=torch_seed(self.seed, Purpose.PRETRAINING, 0, twin),
            first_batch=first_step,
        )
        stream = clean_stream(
            ((self.images, rows) for rows in self._passes(first_step)),
            format_,
            device=self.device,
            backend=pick_backend(self.recipe.train.backend, self.device),
            batch_size=self.batch,
            noise=noise,
        )
        yield from (batch.images for batch in stream)

    def _passes(self, first_step: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the rows of each pass over the images, in its own order, in whole batches."""
        epoch, done = divmod(first_step, self.steps_per_epoch)
        for number in count(epoch):
            random = generator(self.seed, Purpose.PRETRAINING, 1, number)
            order = random.permutation(len(self.images))
            begin = done * self.batch if number == epoch else 0
            yield order[begin : self.steps_per_epoch * self.batch]


class Siamese(nn.Module):
    """A backbone, and the head whose vectors are compared (Chen et al. 2020, section 2.1).

    Attributes:
        backbone: Without a classifier; float [images, features].
        head: Two layers; float [images, projection].
    """

    def __init__(self, backbone: nn.Module, projection: int) -> None:
        """Put a head on a backbone of timm."""
        super().__init__()
        self.backbone = backbone
        width = int(backbone.num_features)  # type: ignore[arg-type]  # timm's models have it
        self.head = nn.Sequential(
            nn.Linear(width, 2 * projection), nn.ReLU(), nn.Linear(2 * projection, projection)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Return float [images, projection]."""
        vectors: Tensor = self.head(self.backbone(pixels))
        return vectors


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the normalised, temperature-scaled cross-entropy (Chen et al. 2020, equation 1).

    Args:
        first: float [images, projection], of one version of each image.
        second: The same of the other.
        temperature: Cosines are divided by it.
    """
    vectors = nn.functional.normalize(torch.cat([first, second]), dim=1)
    similar = (vectors @ vectors.T / temperature).fill_diagonal_(-inf)
    partners = torch.arange(len(vectors), device=vectors.device).roll(len(first))
    return nn.functional.cross_entropy(similar, partners)


def contrast(
    training: Contrast,
    partial: Path,
    on_step: Callable[[int, float], None],
    on_metric: Callable[[Metric], None] = lambda _: None,
) -> Contrasted:
    """Train a network without labels, or go on from the checkpoint at `partial`.

    Args:
        training: What to train.
        partial: File for checkpoints; removed by whoever keeps the result.
        on_step: Called after each step with (steps done, loss).
        on_metric: Called with (steps done, name, value) of what is measured meanwhile.

    Raises:
        InputError: If there are fewer than two images.
        PlstoreError: If the loss is no longer finite.
    """
    if len(training.images) < _LEAST:
        raise InputError(
            f"{len(training.images)} unlabeled image cannot be told from another; pretraining "
            "wants two at least, better thousands: set pretrain.steps to 0"
        )
    network, recipe = training.network(), training.as_trained()
    settings, device = recipe.pretrain, training.device
    format_ = image_format(recipe.model, network.backbone)
    steps, per_epoch = settings.steps, training.steps_per_epoch
    warmup = int(_WARMUP_SHARE * steps)
    course = Course(steps=steps, steps_per_epoch=per_epoch, warmup_steps=warmup)
    state = State(recipe, course, network.to(device).train(), device)
    images = 2 * training.batch
    recorder = Recorder(
        on_metric, every=_METRIC_STEPS, images=images, steps_per_epoch=per_epoch, device=device
    )
    recorder.metrics += state.restore(partial)
    on_step(state.step, float("nan"))
    pairs, saved = training.pairs(format_, state.step), monotonic()
    while state.step < steps:
        with recorder.waiting():
            first, second = next(pairs)
        state.begin()
        with activations(recipe.train.precision, device):
            vectors = network(format_.normalise(torch.cat([first, second]))).float()
        loss = nt_xent(*vectors.chunk(2), settings.temperature)
        state.add(loss, loss, 1)
        state.end()
        recorder.step_done(state.step, state.last_loss, state.rate)
        on_step(state.step, state.last_loss)
        if monotonic() - saved > _CHECKPOINT_SECONDS and state.step < steps:
            state.save(partial, {}, recorder.metrics)
            saved = monotonic()
    backbone = cast("Siamese", state.ema.module).backbone.eval()
    return Contrasted(network=backbone, format=format_, metrics=recorder.metrics)
