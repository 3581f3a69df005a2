"""What a backend is told to do, and what it gives: the seam between plan and pixels."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plstore.errors import InputError
from plstore.loaders.noise import Noise, NoiseDraw
from plstore.loaders.randaugment import DIALECTS, Dialect, RandAugment

BackendName = Literal["dali", "threads", "torch"]
Backend = Literal["auto", "dali", "threads", "torch"]
Interpolation = Literal["bilinear", "bicubic"]


def threads_of_a_rank() -> int:
    """Return the cores that this process may use, shared by the ranks of this machine."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(len(os.sched_getaffinity(0)) // local, 1)


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """How pixels reach a model: its data config, pinned.

    Images are turned as their EXIF says when they are imported, resized with antialiasing by
    every backend, and normalised on the device.

    Attributes:
        size: Pixels a side.
        channels: 1 (grayscale) or 3 (RGB).
        mean: Mean by channel, 0 to 1.
        std: Standard deviation by channel, 0 to 1.
        interpolation: Of the resize, always antialiased.
        crop_pct: Share of the shorter side that the clean crop keeps.
    """

    size: int
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"
    crop_pct: float = 1.0

    def __post_init__(self) -> None:
        """Check that there is a mean and a deviation for each channel.

        Raises:
            InputError: If there is not.
        """
        if self.channels not in {1, 3} or self.size < 1:
            raise InputError(
                f"images have {self.channels} channels and {self.size} pixels a side; wanted 1 "
                "or 3 channels, and a pixel or more"
            )
        if not len(self.mean) == len(self.std) == self.channels:
            raise InputError(
                f"mean has {len(self.mean)} values and std {len(self.std)} for {self.channels} "
                "channels; wanted one each"
            )

    def normalise(self, images: Tensor) -> Tensor:
        """Return float32 [batch, channels, size, size] of uint8, on the images' device."""
        shape = (1, self.channels, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).mul(255).view(shape)
        std = torch.tensor(self.std, device=images.device).mul(255).view(shape)
        return images.to(torch.float32).sub_(mean).div_(std)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch of one rank.

    Attributes:
        images: uint8 [batch, channels, size, size], channels last in memory.
        targets: float32 [batch, classes]: one-hot or soft; zeros where there is no label.
        sample_ids: int64 [batch], on the CPU.
        num_labeled: The first this many are labeled, the rest pseudo-labeled.
        step: Number of the batch.
        replaced: Sample ids of damaged images whose place others took.
    """

    images: Tensor
    targets: Tensor
    sample_ids: Tensor
    num_labeled: int
    step: int
    replaced: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a backend is told to do for one batch.

    Image, label and id are one row of one source and go through one door together.

    Attributes:
        rows: int64 [batch], numbers of the rows: equal numbers, equal images.
        encoded: Encoded images.
        targets: float32 [batch, classes].
        sample_ids: int64 [batch].
        num_pixels: int64 [batch], of the encoded images.
        windows: int32 [batch, 4]: top, left, bottom, right in source pixels.
        noise: The noise after resizing, None for clean images.
        replaced: As in `Batch`.
    """

    rows: npt.NDArray[np.int64]
    encoded: list[npt.NDArray[np.uint8]]
    targets: npt.NDArray[np.float32]
    sample_ids: npt.NDArray[np.int64]
    num_pixels: npt.NDArray[np.int64]
    windows: npt.NDArray[np.int32]
    noise: NoiseDraw | None
    replaced: tuple[int, ...] = ()


Pixels = tuple[Tensor, Tensor, Tensor]
"""Of one batch: images, targets, sample ids, as in `Batch`."""


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """What a backend builds its pipeline from.

    Attributes:
        work: The batch of a step; raises StopIteration after the last.
        format: Pixels of the result.
        noise: Which operations there may be; None for clean batches.
        max_batch: Most images of any batch.
        device: "cpu", or a CUDA device such as "cuda:0".
        first_step: Step of the first batch.
        num_threads: That decode and work on pixels.
        keep_decoded: Whether all images, decoded, are few enough to be kept in memory.
    """

    work: Callable[[int], Work]
    format: ImageFormat
    noise: Noise | None
    max_batch: int
    device: str
    first_step: int = 0
    num_threads: int = field(default_factory=threads_of_a_rank)
    keep_decoded: bool = False

    @property
    def dialect(self) -> Dialect | None:
        """Of the operations; None where they are composed, or where there are none."""
        if self.noise is None or not isinstance(self.noise.augment, RandAugment):
            return None
        return DIALECTS[self.noise.augment.dialect]

    @property
    def fill(self) -> tuple[int, ...] | None:
        """Values outside the image, by channel; None where its edge is repeated."""
        given = None if self.noise is None else self.noise.fill
        if self.dialect is not None and given is None:
            given = self.dialect.fill
            if given is None:  # the mean colour of the data config
                return tuple(min(255, round(255 * value)) for value in self.format.mean)
        return None if given is None else (given,) * self.format.channels
