"""One step of training: labeled and pseudo-labeled images go through the model as one batch."""

from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor, nn

from plstore.errors import InputError
from plstore.loaders import Batch, ImageFormat
from plstore.seeds import Purpose, torch_seed
from trainers.models.roles import split_model_noise
from trainers.recipe import Recipe
from trainers.training.losses import combined_cross_entropy, pseudo_targets
from trainers.training.online import labeled_by_itself
from trainers.training.processes import ALONE, Joined, Processes
from trainers.training.state import State

_DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Forward:
    """How a recipe turns a batch into a gradient.

    One forward pass over the concatenated batch, so that batch norms see both kinds of images
    (as the official code does), in as many parts as the recipe says.
    """

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        network: nn.Module,
        format_: ImageFormat,
        device: str,
        processes: Processes = ALONE,
    ) -> None:
        """Get ready.

        Args:
            recipe: As the model's iteration sees it.
            seed: Of the training.
            network: In training, on the device.
            format_: How images reach it.
            device: "cpu" or a CUDA device.
            processes: That train it together.
        """
        self._recipe, self._seed, self._format = recipe, seed, format_
        self._network, self._device = network, device
        self._processes = processes
        self._joined: Joined | None = None
        self._has_looked = False

    def step(self, state: State, batch: Batch, weak: Batch | None = None) -> float:
        """Do one optimizer step; return the share of pseudo-labeled images that counted.

        Args:
            state: Of the training.
            batch: Images with their noise.
            weak: The same with little noise, where the student labels them itself.
        """
        count = self._recipe.train.accumulate
        if weak is not None:
            batch = labeled_by_itself(batch, weak, self._network, self._plain_logits)
        state.begin()
        if self._joined is None:
            labeled, pseudo = batch.num_labeled, len(batch.images) - batch.num_labeled
            self._joined = self._ready(labeled // count, pseudo // count)
        for number, (rows, num_labeled) in enumerate(_parts(batch, count)):
            self._draw_noise(state.step, number)
            with self._joined.part(is_last=number == count - 1):
                logits = self._logits(self._joined, batch.images[rows])
                loss = self._loss(logits, batch, rows, num_labeled)
                state.add(loss, self._processes.mean(loss), count)
        state.end()
        if weak is None:
            return 1.0
        counted = batch.weights[batch.num_labeled :].bool()
        return float(counted.float().mean())

    def _plain_logits(self, images: Tensor) -> Tensor:
        """Return float32 [images, classes] of the network alone, whatever mode it is in."""
        with activations(self._recipe.train.precision, self._device):
            logits: Tensor = self._network(self._format.normalise(images))
        return logits.float()

    def _draw_noise(self, step: int, part: int) -> None:
        """Seed dropout and stochastic depth: by the part of the images of all processes."""
        number = self._processes.rank * self._recipe.train.accumulate + part
        numbers = (step, number) if number else (step,)
        torch.manual_seed(torch_seed(self._seed, Purpose.MODEL_NOISE, *numbers))

    def _loss(
        self, logits: Tensor, batch: Batch, rows: slice | Tensor, num_labeled: int
    ) -> Tensor:
        loss = self._recipe.loss
        hard = loss.pseudo_labels == "hard"
        targets = pseudo_targets(
            batch.targets[rows],
            num_labeled=num_labeled,
            hard=hard,
            temperature=loss.temperature,
        )
        return combined_cross_entropy(
            logits,
            targets,
            num_labeled=num_labeled,
            label_smoothing=loss.label_smoothing,
            weights=batch.weights[rows],
            weighting=loss.weighting,
            hard=hard,
        )

    def _logits(self, joined: Joined, images: Tensor) -> Tensor:
        """Return float32 [images, classes]."""
        with activations(self._recipe.train.precision, self._device):
            pixels = self._format.normalise(images)
            logits = joined(pixels) if self._has_looked else self._first_look(joined, pixels)
        return logits.float()

    def _first_look(self, joined: Joined, pixels: Tensor) -> Tensor:
        """Return logits of the first images, at which a model is compiled if it is to be."""
        self._has_looked = True
        if not self._recipe.train.compile:
            return joined(pixels)
        try:
            return joined(pixels)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise InputError(
                f"the model cannot be compiled for {self._device}: {reason}. torch.compile "
                "wants a C++ compiler such as g++ on the PATH (or in CXX), for CUDA Triton; "
                "install them, or set train.compile to false"
            ) from error

    def _ready(self, num_labeled: int, num_pseudo: int) -> Joined:
        """Return the network with the noise that each kind of image gets, compiled if asked."""
        noise = self._recipe.noise
        split_model_noise(
            self._network,
            labeled=noise.labeled,
            pseudo=noise.pseudo,
            num_labeled=num_labeled,
            num_pseudo=num_pseudo,
        )
        forward: Callable[[Tensor], Tensor] = self._network
        if self._recipe.train.compile:
            self._network.compile()
        return Joined(self._network, forward, self._processes)


def activations(precision: str, device: str) -> torch.autocast:
    """Return the context in which activations have the precision of a recipe.

    Raises:
        InputError: If the CPU is to have float16.
    """
    dtype = _DTYPES.get(precision)
    if precision == "auto" and device.startswith("cuda"):
        dtype = torch.bfloat16
    if precision == "float16" and device == "cpu":
        raise InputError(
            "train.precision is float16, which is for GPUs; wanted float32 or bfloat16 on "
            "the CPU"
        )
    kind = device.partition(":")[0]
    return torch.autocast(kind, dtype or torch.bfloat16, enabled=dtype is not None)


def _parts(batch: Batch, count: int) -> Iterator[tuple[slice | Tensor, int]]:
    """Yield the rows of equal parts of a batch, each with its share of labeled images."""
    if count == 1:
        yield slice(None), batch.num_labeled
        return
    labeled, pseudo = batch.num_labeled, len(batch.images) - batch.num_labeled
    if labeled % count or pseudo % count:
        raise InputError(
            f"{labeled} labeled and {pseudo} pseudo-labeled images of a step are not {count} "
            "equal parts; wanted batches that train.accumulate times the processes divide"
        )
    for number in range(count):
        rows = [*_share(number, labeled // count, 0), *_share(number, pseudo // count, labeled)]
        yield torch.tensor(rows, device=batch.images.device), labeled // count


def _share(number: int, size: int, start: int) -> range:
    """Return a part of a stream's slots, as a process's share is cut."""
    return range(start + number * size, start + (number + 1) * size)
