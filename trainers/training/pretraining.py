"""Self-supervised training: a network learns what is on images, without labels.

By one of two tasks: by which quarter turn an image was turned (Gidaris et al. 2018), or which
two noised versions are of one image (Chen et al. 2020). Every random number follows from
(seed, step), so one that was stopped goes on from its last checkpoint.
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
from trainers.models.model import build_model, image_format, look_at_nothing
from trainers.recipe import Recipe
from trainers.sections import Pretrain
from trainers.training.forward import activations
from trainers.training.optimisation import Course
from trainers.training.recording import LOSS, Metric, Recorder
from trainers.training.state import State
from trainers.training.watching import VALIDATION, FeatureWatch

_CHECKPOINT_SECONDS: Final = 20.0
_METRIC_STEPS: Final = 50
_WARMUP_SHARE: Final = 0.05
_LEAST: Final = 2  # images of which one is to be told from another
_TURNS: Final = 4
_NOISE, _ORDER, _TURNED, _DROPPED = range(4)  # streams of random numbers


@dataclass(frozen=True, kw_only=True)
class Pretrained:
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
class Pretraining:
    """What to train.

    Attributes:
        recipe: Its sections `model`, `pretrain`, `optimizer` and `train` count.
        images: Among which are those that it learns from; their labels are not looked at.
        rows: int64: which of them it learns from.
        images_version: Of the table `images` that they are from.
        seed: Of this training, not of the run.
        device: "cpu" or a CUDA device.
        watch: How it is looked at meanwhile; it changes no weight.
    """

    recipe: Recipe
    images: ImageSet
    rows: npt.NDArray[np.int64]
    images_version: int
    seed: int
    device: str
    watch: FeatureWatch | None = None

    @property
    def batch(self) -> int:
        """Images a step: those of the recipe, or all there are."""
        return min(self.recipe.pretrain.batch, len(self.rows))

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches that there are in the images."""
        return len(self.rows) // self.batch

    def network(self) -> "Headed":
        """Return the network with random weights, and the noise that timm gives it unasked.

        Raises:
            InputError: If timm cannot make it, or it cannot take the images.
        """
        torch.manual_seed(torch_seed(self.seed, Purpose.MODEL_INIT))
        return headed(self.recipe)

    def batches(self, format_: ImageFormat, first_step: int) -> Iterator[list[Tensor]]:
        """Yield the versions of the images of each step, from a step on without an end.

        They are uint8 [batch, channels, size, size], noised each time in another way.
        """
        versions = range(self.recipe.pretrain.versions)
        streams = [self._noised(version, format_, first_step) for version in versions]
        yield from map(list, zip(*streams, strict=True))

    def turns(self, step: int) -> Tensor:
        """Return int64 [batch]: by how many quarters the images of a step are turned."""
        random = generator(self.seed, Purpose.PRETRAINING, _TURNED, step)
        return torch.from_numpy(random.integers(_TURNS, size=self.batch))

    def _noised(self, version: int, format_: ImageFormat, first: int) -> Iterator[Tensor]:
        noise = ImageNoise(
            noise=self.recipe.pretrain.as_noise(),
            parts=INPUT_PARTS,
            seed=torch_seed(self.seed, Purpose.PRETRAINING, _NOISE, version),
            first_batch=first,
        )
        stream = clean_stream(
            ((self.images, rows) for rows in self.passes(first)),
            format_,
            device=self.device,
            backend=pick_backend(self.recipe.train.backend, self.device),
            batch_size=self.batch,
            noise=noise,
        )
        yield from (batch.images for batch in stream)

    def passes(self, first_step: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the rows of each pass over the images, in its own order, in whole batches."""
        epoch, done = divmod(first_step, self.steps_per_epoch)
        for number in count(epoch):
            random = generator(self.seed, Purpose.PRETRAINING, _ORDER, number)
            order = random.permutation(self.rows)
            begin = done * self.batch if number == epoch else 0
            yield order[begin : self.steps_per_epoch * self.batch]


def as_pretrained(recipe: Recipe) -> Recipe:
    """Return a recipe whose optimizer and schedule are those of its pretraining."""
    rate = {"learning_rate": recipe.pretrain.learning_rate, "per_images": None}
    schedule = recipe.schedule.model_copy(update={"name": "cosine"})
    optimizer = recipe.optimizer.model_copy(update=rate)
    return recipe.model_copy(update={"optimizer": optimizer, "schedule": schedule})


class Headed(nn.Module):
    """A backbone, and the head by which it is asked.

    Attributes:
        backbone: Without a classifier; float [images, features].
        head: Of `rotation` one layer, of `simclr` two (Chen et al. 2020, section 2.1).
    """

    def __init__(self, backbone: nn.Module, width: int, settings: Pretrain) -> None:
        """Put a head on a backbone with so many features."""
        super().__init__()
        self.backbone = backbone
        out = settings.projection
        self.head: nn.Module = nn.Linear(width, _TURNS)
        if settings.task == "simclr":
            self.head = nn.Sequential(
                nn.Linear(width, 2 * out), nn.ReLU(), nn.Linear(2 * out, out)
            )

    def forward(self, pixels: Tensor) -> Tensor:
        """Return float [images, turns or projection]."""
        answers: Tensor = self.head(self.backbone(pixels))
        return answers


def headed(recipe: Recipe) -> Headed:
    """Return a recipe's network with random weights, with the head of its pretraining.

    Raises:
        InputError: If timm cannot make it, or it cannot take the images.
    """
    plain = {"pretrained": False, "weights": None, "dropout": 0.0, "stochastic_depth": 0.0}
    model = recipe.model.model_copy(update=plain)
    backbone = build_model(model, model.architecture, 0)
    shape = tuple(look_at_nothing(backbone, model, model.architecture).shape)
    if len(shape) != 2:  # noqa: PLR2004  [images, features]
        raise InputError(
            f"model {model.architecture!r} without its classifier gives {list(shape)} for two "
            "images; pretraining wants [2, features]: set pretrain.steps to 0, or take another"
        )
    return Headed(backbone, shape[1], recipe.pretrain)


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Return images [images, channels, size, size], each turned by its number of quarters."""
    found = images.clone()
    for number in range(1, _TURNS):
        which = turns == number
        found[which] = torch.rot90(images[which], number, (2, 3))
    return found


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


def pretrain(
    training: Pretraining,
    partial: Path,
    on_step: Callable[[int, float], None],
    on_look: Callable[[int, float], None] = lambda *_: None,
    on_metric: Callable[[Metric], None] = lambda _: None,
) -> Pretrained:
    """Train a network without labels, or go on from the checkpoint at `partial`.

    Args:
        training: What to train.
        partial: File for checkpoints; removed by whoever keeps the result.
        on_step: Called after each step with (steps done, loss).
        on_look: Called with (steps done, accuracy) when validation was looked at.
        on_metric: Called with (steps done, name, value) of what is measured meanwhile.

    Raises:
        InputError: If there are fewer than two images.
        PlstoreError: If the loss is no longer finite.
    """
    if len(training.rows) < _LEAST:
        raise InputError(
            f"{len(training.rows)} unlabeled image cannot be told from another; pretraining "
            "wants two at least, better thousands: set pretrain.steps to 0"
        )
    network, recipe, device = (
        training.network(),
        as_pretrained(training.recipe),
        training.device,
    )
    format_ = image_format(recipe.model, network.backbone)
    steps, per_epoch = recipe.pretrain.steps, training.steps_per_epoch
    warmup = int(_WARMUP_SHARE * steps)
    course = Course(steps=steps, steps_per_epoch=per_epoch, warmup_steps=warmup)
    network = network.to(device).train()
    state = State(recipe, course, network, device, rate_of="pretrain.learning_rate")
    recorder = Recorder(
        on_metric,
        every=_METRIC_STEPS,
        images=training.batch * recipe.pretrain.versions,
        steps_per_epoch=per_epoch,
        device=device,
    )
    recorder.metrics += state.restore(partial)
    on_step(state.step, float("nan"))
    batches, saved = training.batches(format_, state.step), monotonic()
    while state.step < steps:
        with recorder.waiting():
            versions = next(batches)
        state.begin()
        loss = _loss(training, network, format_, versions, state.step)
        state.add(loss, loss, 1)
        state.end()
        recorder.step_done(state.step, state.last_loss, state.rate)
        on_step(state.step, state.last_loss)
        _look(training, state, format_, recorder, on_look)
        if monotonic() - saved > _CHECKPOINT_SECONDS and state.step < steps:
            state.save(partial, {}, recorder.metrics)
            saved = monotonic()
    return Pretrained(network=_averaged(state), format=format_, metrics=recorder.metrics)


def _averaged(state: State) -> nn.Module:
    return cast("Headed", state.ema.module).backbone.eval()


def _look(
    training: Pretraining,
    state: State,
    format_: ImageFormat,
    recorder: Recorder,
    on_look: Callable[[int, float], None],
) -> None:
    """Look at validation, if it is time to."""
    watch, steps = training.watch, training.recipe.pretrain.steps
    if watch is None or not watch.is_due(state.step, steps):
        return
    backend = pick_backend(training.recipe.train.backend, training.device)
    accuracy = watch.look(_averaged(state), format_, device=training.device, backend=backend)
    recorder.note(state.step, VALIDATION, accuracy)
    on_look(state.step, accuracy)


def _loss(
    training: Pretraining,
    network: nn.Module,
    format_: ImageFormat,
    versions: list[Tensor],
    step: int,
) -> Tensor:
    """Return the loss of a step's images."""
    settings, turns = training.recipe.pretrain, None
    images = torch.cat(versions)
    torch.manual_seed(torch_seed(training.seed, Purpose.PRETRAINING, _DROPPED, step))
    if settings.task == "rotation":
        turns = training.turns(step).to(images.device)
        images = turned(images, turns)
    with activations(training.recipe.train.precision, training.device):
        answers = network(format_.normalise(images)).float()
    if turns is not None:
        return nn.functional.cross_entropy(answers, turns)
    first, second = answers.chunk(2)
    return nt_xent(first, second, settings.temperature)
