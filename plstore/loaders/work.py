"""What a backend is told to do, and what it gives: the seam between plan and pixels."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plstore.errors import InputError
from plstore.loaders.noise import Noise, NoiseDraw
from plstore.loaders.randaugment import DIALECTS, Dialect, RandAugment
from plstore.loaders.settings import check_choice, check_kind, check_number, check_whole
from plstore.machine import num_cores

BackendName = Literal["dali", "threads", "torch"]
Backend = Literal["auto", "dali", "threads", "torch"]
Interpolation = Literal["bilinear", "bicubic"]
LARGEST_SIDE: Final = 4096  # of what a model sees: one image of it is 48 MB


def threads_of_a_rank() -> int:
    """Return the cores that this process may use, shared by the ranks of this machine.

    Raises:
        InputError: If `LOCAL_WORLD_SIZE` is no number of ranks.
    """
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    check_whole("LOCAL_WORLD_SIZE", int(local) if local.isdecimal() else local, low=1)
    return max(num_cores() // int(local), 1)


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """How pixels reach a model: its data config, pinned.

    Images are turned as their EXIF says when they are imported, resized with antialiasing by
    every backend, and normalised on the device.

    Attributes:
        size: Pixels a side, 1 to 4,096.
        channels: 1 (grayscale) or 3 (RGB).
        mean: Mean by channel, 0 to 1.
        std: Standard deviation by channel, above 0, up to 1.
        interpolation: Of the resize, always antialiased.
        crop_pct: Share of the shorter side that the clean crop keeps, above 0, up to 1.
        scaled_decoding: Whether a JPEG whose crop has at least twice the size is decoded at
            1/2, 1/4 or 1/8, the smallest that has the size; else all are decoded whole.
    """

    size: int
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"
    crop_pct: float = 1.0
    scaled_decoding: bool = True

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            InputError: If a setting is unknown or out of range, or there is not one mean and
                one deviation for each channel.
        """
        check_whole("ImageFormat size", self.size, low=1, high=LARGEST_SIDE)
        check_choice("ImageFormat channels", self.channels, (1, 3))
        for name in ("mean", "std"):
            values = getattr(self, name)
            check_kind(f"ImageFormat {name}", values, Sequence)
            if len(values) != self.channels:
                raise InputError(
                    f"ImageFormat {name} has {len(values)} values for {self.channels} "
                    "channels; wanted one each"
                )
            for value in values:
                above = name == "std"
                check_number(f"ImageFormat {name}", value, low=0, high=1, above=above)
        kinds = get_args(Interpolation)
        check_choice("ImageFormat interpolation", self.interpolation, kinds)
        check_number("ImageFormat crop_pct", self.crop_pct, low=0, high=1, above=True)
        check_kind("ImageFormat scaled_decoding", self.scaled_decoding, bool)

    def normalise(self, images: Tensor) -> Tensor:
        """Return float32 [batch, channels, size, size] of uint8, on the images' device."""
        mean = torch.tensor(self.mean, device=images.device).mul(255)
        std = torch.tensor(self.std, device=images.device).mul(255)
        if not images.is_contiguous(memory_format=torch.channels_last):
            shape = (1, self.channels, 1, 1)
            return images.to(torch.float32).sub_(mean.view(shape)).div_(std.view(shape))
        count, _, height, width = images.shape  # the same numbers, row by row: 4 times as fast
        rows = images.permute(0, 2, 3, 1).reshape(count * height, width * self.channels)
        rows = rows.to(torch.float32).sub_(mean.repeat(width)).div_(std.repeat(width))
        return rows.view(count, height, width, self.channels).permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch of one rank.

    Attributes:
        images: uint8 [batch, channels, size, size], channels last in memory.
        targets: float32 [batch, classes]: one-hot or soft; zeros where there is no label.
        weights: float32 [batch], above 0, up to 1: what each image counts for in the loss, as
            the view says; 1 for labeled images, and for all in clean batches.
        sample_ids: int64 [batch], on the CPU.
        num_labeled: The first this many are labeled, the rest pseudo-labeled.
        step: Number of the batch.
        replaced: Sample ids of damaged images whose place others took.
        not_replayed: Draws that were to have the label of their noised image and have the
            view's: another image took the place of a damaged one, or the label is gone.
    """

    images: Tensor
    targets: Tensor
    weights: Tensor
    sample_ids: Tensor
    num_labeled: int
    step: int
    replaced: tuple[int, ...] = ()
    not_replayed: int = 0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a backend is told to do for one batch.

    Image, label and id are one row of one source and go through one door together.

    Attributes:
        rows: int64 [batch], numbers of the rows: equal numbers, equal images.
        encoded: Encoded images.
        targets: float32 [batch, classes].
        weights: float32 [batch].
        sample_ids: int64 [batch].
        num_pixels: int64 [batch], of the images as they are decoded.
        windows: int32 [batch, 4]: top, left, bottom, right in source pixels.
        scales: int32 [batch], 1, 2, 4 or 8: sides are divided by it when it is decoded.
        noise: The noise after resizing, None for clean images.
        replaced: As in `Batch`.
        not_replayed: As in `Batch`.
    """

    rows: npt.NDArray[np.int64]
    encoded: list[npt.NDArray[np.uint8]]
    targets: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    sample_ids: npt.NDArray[np.int64]
    num_pixels: npt.NDArray[np.int64]
    windows: npt.NDArray[np.int32]
    scales: npt.NDArray[np.int32]
    noise: NoiseDraw | None
    replaced: tuple[int, ...] = ()
    not_replayed: int = 0


Tensors = tuple[Tensor, Tensor, Tensor]
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
