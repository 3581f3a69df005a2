"""Validation while a model trains: is it still getting better?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from plstore.loaders import ImageFormat, ImageSet, clean_batches
from plstore.loaders.work import Backend
from trainers.models.linear import Examples, fit

VALIDATION: Final = "validation/accuracy"
"""Of the averaged weights while they train, in percent."""

_MOST_IMAGES: Final = 2000
_STRENGTH: Final = 0.01  # C, of 96 features of 400 images

Metric = tuple[int, str, float]


def is_due(step: int, steps: int, looks: int) -> bool:
    """Return whether a step of all is one to look after: as many at equal steps, or more."""
    return step % max(steps // looks, 1) == 0


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
        return is_due(step, steps, self.looks)

    def look(
        self, network: nn.Module, format_: ImageFormat, *, device: str, backend: Backend
    ) -> float:
        """Return the accuracy of a network in evaluation mode, in percent."""
        rows = _spread(self.images)
        right = 0
        for batch in clean_batches(
            self.images, format_, device=device, backend=backend, rows=rows
        ):
            with torch.inference_mode():
                found = network(format_.normalise(batch.images)).argmax(dim=1)
            right += int((found == batch.targets.argmax(dim=1)).sum())
        return 100 * right / len(rows)

    def has_stopped_gaining(self, metrics: Sequence[Metric]) -> bool:
        """Return whether the last looks were none better than the best before them."""
        values = [value for _, name, value in metrics if name == VALIDATION]
        if self.patience is None or len(values) <= self.patience:
            return False
        return max(values[-self.patience :]) <= max(values[: -self.patience])


@dataclass(frozen=True, kw_only=True)
class FeatureWatch:
    """How a network without a classifier is watched: by a logistic regression on its features.

    Attributes:
        labeled: What that is fitted on; up to 2,000 images, spread evenly.
        images: Validation images, as many.
        looks: How often.
    """

    labeled: ImageSet
    images: ImageSet
    looks: int

    def is_due(self, step: int, steps: int) -> bool:
        """Return whether a step of all is one to look after."""
        return is_due(step, steps, self.looks)

    def look(
        self, network: nn.Module, format_: ImageFormat, *, device: str, backend: Backend
    ) -> float:
        """Return the accuracy on the features of a network in evaluation mode, in percent."""
        examples = []
        for images in (self.labeled, self.images):
            vectors, targets = [], []
            for batch in clean_batches(
                images, format_, device=device, backend=backend, rows=_spread(images)
            ):
                with torch.inference_mode():
                    vectors.append(
                        network(format_.normalise(batch.images)).float().cpu().numpy()
                    )
                targets.append(batch.targets.cpu().numpy())
            found = np.concatenate(vectors)
            weights = np.ones(len(found), np.float32)
            examples.append(
                Examples(vectors=found, targets=np.concatenate(targets), weights=weights)
            )
        return examples[1].accuracy(fit(examples[0], _STRENGTH))


def _spread(images: ImageSet) -> npt.NDArray[np.int64]:
    """Return up to 2,000 rows of images, spread evenly."""
    count = min(len(images), _MOST_IMAGES)
    return np.linspace(0, len(images) - 1, count).astype(np.int64)
