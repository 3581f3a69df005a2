"""Validation while a model trains: is it still getting better?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn

from plstore.loaders import ImageFormat, ImageSet, clean_batches
from plstore.loaders.work import Backend

VALIDATION: Final = "validation/accuracy"
"""Of the averaged weights while they train, in percent."""

_MOST_IMAGES: Final = 2000

Metric = tuple[int, str, float]


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How a training is watched.

    Attributes:
        images: Validation images, of which up to 2,000, spread evenly, are looked at.
        looks: How often, at equal steps; the last look is at the end.
        patience: Looks without a better one before the training stops; None for never.
    """

    images: ImageSet
    looks: int
    patience: int | None = None

    def is_due(self, step: int, steps: int) -> bool:
        """Return whether a step of all is one to look after."""
        every = max(steps // self.looks, 1)
        return step % every == 0

    def look(
        self, network: nn.Module, format_: ImageFormat, *, device: str, backend: Backend
    ) -> float:
        """Return the accuracy of a network in evaluation mode, in percent."""
        count = min(len(self.images), _MOST_IMAGES)
        rows = np.linspace(0, len(self.images) - 1, count).astype(np.int64)
        right = 0
        for batch in clean_batches(
            self.images, format_, device=device, backend=backend, rows=rows
        ):
            with torch.inference_mode():
                found = network(format_.normalise(batch.images)).argmax(dim=1)
            right += int((found == batch.targets.argmax(dim=1)).sum())
        return 100 * right / count

    def has_stopped_gaining(self, metrics: Sequence[Metric]) -> bool:
        """Return whether the last looks were none better than the best before them."""
        values = [value for _, name, value in metrics if name == VALIDATION]
        if self.patience is None or len(values) <= self.patience:
            return False
        return max(values[-self.patience :]) <= max(values[: -self.patience])
