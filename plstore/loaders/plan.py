"""Which images, in which batch, with which noise: a function of (seed, step) alone.

Labeled and pseudo-labeled images are two endless streams, each a permutation after another.
A view's `copies` are honoured exactly in every pass. All ranks compute the same global batch.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError
from plstore.loaders.imageset import ImageSet
from plstore.loaders.noise import Noise, NoiseDraw, draw_noise
from plstore.seeds import Purpose, generator

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One batch, decided: labeled images first, then pseudo-labeled ones."""

    rows: Rows
    noise: NoiseDraw


class Plan:
    """The batches of one training run."""

    def __init__(
        self,
        images: ImageSet,
        *,
        labeled_batch: int,
        pseudo_batch: int,
        noise: Noise,
        size: int,
        seed: int,
    ) -> None:
        """Deal out a view.

        Args:
            images: The view's images.
            labeled_batch: Labeled images a step, at least 1.
            pseudo_batch: Pseudo-labeled images a step; 0 to train on labels alone.
            noise: Input noise.
            size: Pixels a side of the model's input.
            seed: Of the run.

        Raises:
            InputError: If a stream has no image to draw.
        """
        self.images = images
        self.labeled_batch = labeled_batch
        self.pseudo_batch = pseudo_batch
        self._noise = noise
        self._size = size
        self._seed = seed
        self._labeled = np.flatnonzero(~images.is_pseudo)
        pseudo = np.flatnonzero(images.is_pseudo)
        self._pseudo = np.repeat(pseudo, images.copies[pseudo])
        for name, stream, wanted in (
            ("labeled", self._labeled, labeled_batch),
            ("pseudo-labeled", self._pseudo, pseudo_batch),
        ):
            if wanted and not len(stream):
                raise InputError(
                    f"the view has no {name} images and {wanted} a step are asked for; if its "
                    "selection kept none, train the teacher longer or lower the confidence "
                    "floor"
                )

    @property
    def batch_size(self) -> int:
        """Images a step."""
        return self.labeled_batch + self.pseudo_batch

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every labeled image is drawn once, rounded up (Noisy Student, 3.1)."""
        return -(-len(self._labeled) // self.labeled_batch)

    def draws(self, step: int) -> Draws:
        """Return the global batch of a step, 0 or more."""
        labeled = self._take(self._labeled, Purpose.LABELED_ORDER, step * self.labeled_batch)
        rows = [labeled(self.labeled_batch)]
        if self.pseudo_batch:
            pseudo = self._take(self._pseudo, Purpose.PSEUDO_ORDER, step * self.pseudo_batch)
            rows.append(pseudo(self.pseudo_batch))
        chosen = np.concatenate(rows)
        noise = draw_noise(
            self._noise,
            widths=self.images.widths[chosen],
            heights=self.images.heights[chosen],
            size=self._size,
            random=generator(self._seed, Purpose.AUGMENTATION, step),
        )
        return Draws(rows=chosen, noise=noise)

    def _take(self, stream: Rows, purpose: Purpose, start: int) -> "_Take":
        return _Take(stream, self._seed, purpose, start)


@dataclass(frozen=True)
class _Take:
    """A stretch of an endless stream: permutation after permutation of its entries."""

    stream: Rows
    seed: int
    purpose: Purpose
    start: int

    def __call__(self, count: int) -> Rows:
        positions = np.arange(self.start, self.start + count)
        passes, places = np.divmod(positions, len(self.stream))
        taken = np.empty(count, np.int64)
        for number in np.unique(passes).tolist():
            here = passes == number
            order = _permutation(self.seed, self.purpose, number, len(self.stream))
            taken[here] = self.stream[order[places[here]]]
        return taken


@lru_cache(maxsize=8)
def _permutation(seed: int, purpose: Purpose, number: int, length: int) -> Rows:
    return generator(seed, purpose, number).permutation(length)
