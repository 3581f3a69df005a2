"""One step of training: labeled and pseudo-labeled images go through the model as one batch."""

from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor, nn

from plstore.errors import InputError
from plstore.loaders import Batch, ImageFormat
from plstore.seeds import Purpose, torch_seed
from trainers.losses import combined_cross_entropy, pseudo_targets
from trainers.recipe import Recipe
from trainers.roles import split_model_noise
from trainers.state import State

_DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Forward:
    """How a recipe turns a batch into a gradient.

    One forward pass over the concatenated batch, so that batch norms see both kinds of images
    (as the official code does), in as many parts as the recipe says.
    """

    def __init__(
        self, recipe: Recipe, seed: int, network: nn.Module, format_: ImageFormat, device: str
    ) -> None:
        """Get ready.

        Args:
            recipe: As the model's iteration sees it.
            seed: Of the training.
            network: In training, on the device.
            format_: How images reach it.
            device: "cpu" or a CUDA device.
        """
        self._recipe, self._seed, self._format = recipe, seed, format_
        self._network, self._device = network, device
        self._forward: Callable[[Tensor], Tensor] | None = None

    def step(self, state: State, batch: Batch) -> None:
        """Do one optimizer step."""
        settings, loss = self._recipe.train, self._recipe.loss
        torch.manual_seed(torch_seed(self._seed, Purpose.MODEL_NOISE, state.step))
        state.begin()
        hard = loss.pseudo_labels == "hard"
        for rows, num_labeled in _parts(batch, settings.accumulate):
            logits = self._logits(batch.images[rows], num_labeled)
            targets = pseudo_targets(
                batch.targets[rows],
                num_labeled=num_labeled,
                hard=hard,
                temperature=loss.temperature,
            )
            found = combined_cross_entropy(
                logits,
                targets,
                num_labeled=num_labeled,
                label_smoothing=loss.label_smoothing,
                weights=batch.weights[rows],
                weighting=loss.weighting,
                hard=hard,
            )
            state.add(found, settings.accumulate)
        state.end()

    def _logits(self, images: Tensor, num_labeled: int) -> Tensor:
        """Return float32 [images, classes]."""
        if self._forward is None:
            self._forward = self._ready(num_labeled, len(images) - num_labeled)
        dtype = self._dtype()
        with torch.autocast(
            self._device.partition(":")[0], dtype or torch.bfloat16, enabled=dtype is not None
        ):
            logits = self._forward(self._format.normalise(images))
        return logits.float()

    def _ready(self, num_labeled: int, num_pseudo: int) -> Callable[[Tensor], Tensor]:
        """Return the network with the noise that each kind of image gets, compiled if asked."""
        noise = self._recipe.noise
        split_model_noise(
            self._network,
            labeled=noise.labeled,
            pseudo=noise.pseudo,
            num_labeled=num_labeled,
            num_pseudo=num_pseudo,
        )
        if not self._recipe.train.compile:
            return self._network
        return torch.compile(self._network)

    def _dtype(self) -> torch.dtype | None:
        """Return what activations are, None for float32."""
        wanted = self._recipe.train.precision
        if wanted == "auto":
            return torch.bfloat16 if self._device.startswith("cuda") else None
        if wanted == "float16" and self._device == "cpu":
            raise InputError(
                "train.precision is float16, which is for GPUs; wanted float32 or bfloat16 on "
                "the CPU"
            )
        return _DTYPES.get(wanted)


def _parts(batch: Batch, count: int) -> Iterator[tuple[slice | Tensor, int]]:
    """Yield the rows of equal parts of a batch, each with its share of labeled images."""
    if count == 1:
        yield slice(None), batch.num_labeled
        return
    size, labeled = len(batch.images), batch.num_labeled
    for number in range(count):
        rows = [*range(number, labeled, count), *range(labeled + number, size, count)]
        yield torch.tensor(rows, device=batch.images.device), labeled // count
