"""Batches: what a training loop, the labeling step and evaluation iterate over."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plstore.errors import InputError, MissingExtraError
from plstore.loaders.imageset import ImageSet, open_view_images
from plstore.loaders.noise import Noise, NoiseDraw, center_windows
from plstore.loaders.plan import Plan
from plstore.store import View

Backend = Literal["auto", "dali", "portable"]
Interpolation = Literal["bilinear", "bicubic"]
MAX_BATCH: Final = 256


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """How pixels reach a model: its data config, pinned.

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

    def normalise(self, images: Tensor) -> Tensor:
        """Return float32 [batch, channels, size, size] of uint8, on the images' device."""
        shape = (1, self.channels, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).mul(255).view(shape)
        std = torch.tensor(self.std, device=images.device).mul(255).view(shape)
        return images.to(torch.float32).sub_(mean).div_(std)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a backend is told to do for one batch.

    Image, label and id are one row of one `ImageSet` and go through one source together.

    Attributes:
        encoded: Encoded images.
        targets: float32 [batch, classes].
        sample_ids: int64 [batch].
        num_pixels: int64 [batch], of the encoded images.
        windows: float32 [batch, 4]: top, left, bottom, right in source pixels.
        noise: The noise after resizing, None for clean images.
    """

    encoded: list[npt.NDArray[np.uint8]]
    targets: npt.NDArray[np.float32]
    sample_ids: npt.NDArray[np.int64]
    num_pixels: npt.NDArray[np.int64]
    windows: npt.NDArray[np.float32]
    noise: NoiseDraw | None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch.

    Attributes:
        images: uint8 [batch, channels, size, size], channels last in memory.
        targets: float32 [batch, classes]: one-hot or soft; zeros where there is no label.
        sample_ids: int64 [batch].
        num_labeled: The first this many are labeled, the rest pseudo-labeled.
        step: Number of the batch.
    """

    images: Tensor
    targets: Tensor
    sample_ids: Tensor
    num_labeled: int
    step: int


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """What a backend builds its pipeline from.

    Attributes:
        work: The batch of a step; raises StopIteration after the last.
        format: Pixels of the result.
        fill: As in `Noise`; unused for clean batches.
        noisy: Whether `Work.noise` is there.
        max_batch: Most images of any batch.
        device: "cpu", or a CUDA device such as "cuda:0".
        first_step: Step of the first batch.
    """

    work: Callable[[int], Work]
    format: ImageFormat
    fill: int | None
    noisy: bool
    max_batch: int
    device: str
    first_step: int = 0
    num_threads: int = field(default_factory=torch.get_num_threads)


def pick_backend(backend: Backend = "auto") -> Literal["dali", "portable"]:
    """Return the backend to use: DALI where it is installed, else the portable one.

    Raises:
        MissingExtraError: If DALI is asked for and not installed.
        InputError: If there is no such backend.
    """
    installed = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
    if backend == "auto":
        return "dali" if installed else "portable"
    if backend == "dali" and not installed:
        raise MissingExtraError("nvidia-dali-cuda130", "dali", "the loader backend 'dali'")
    if backend not in {"dali", "portable"}:
        raise InputError(f"backend is {backend!r}; wanted 'auto', 'dali' or 'portable'")
    return backend


def load(  # noqa: PLR0913  one keyword per choice of the user
    view: View,
    *,
    labeled_batch: int,
    pseudo_batch: int,
    image_format: ImageFormat,
    noise: Noise,
    seed: int,
    first_step: int = 0,
    device: str = "cpu",
    backend: Backend = "auto",
) -> Iterator[Batch]:
    """Yield the noised batches of a view, without end.

    The batch of a step follows from the view, the seed and the step alone: to resume, pass
    the step to go on with.

    Args:
        view: What to train on.
        labeled_batch: Labeled images a step.
        pseudo_batch: Pseudo-labeled images a step: labeled_batch times the ratio; may be 0.
        image_format: Pixels that the model wants.
        noise: Input noise.
        seed: Of the run.
        first_step: Step of the first batch yielded.
        device: Where batches are made and left: "cpu" or a CUDA device.
        backend: "dali", "portable", or "auto" for DALI where it is installed.
    """
    images = open_view_images(view)
    plan = Plan(
        images,
        labeled_batch=labeled_batch,
        pseudo_batch=pseudo_batch,
        noise=noise,
        size=image_format.size,
        seed=seed,
    )

    def work(step: int) -> Work:
        draws = plan.draws(step)
        return _work(images, draws.rows, draws.noise.windows, draws.noise)

    spec = BackendSpec(
        work=work,
        format=image_format,
        fill=noise.fill,
        noisy=True,
        max_batch=plan.batch_size,
        device=device,
        first_step=first_step,
    )
    yield from _run(spec, backend, labeled_batch)


def clean_batches(
    images: ImageSet,
    image_format: ImageFormat,
    *,
    device: str = "cpu",
    backend: Backend = "auto",
    batch_size: int = MAX_BATCH,
) -> Iterator[Batch]:
    """Yield every image once, in order, clean: as teachers and evaluations see it."""
    windows = center_windows(images.widths, images.heights, image_format.crop_pct)

    def work(step: int) -> Work:
        rows = np.arange(step * batch_size, min((step + 1) * batch_size, len(images)))
        if not len(rows):
            raise StopIteration
        return _work(images, rows, windows[rows], None)

    spec = BackendSpec(
        work=work,
        format=image_format,
        fill=None,
        noisy=False,
        max_batch=batch_size,
        device=device,
    )
    yield from _run(spec, backend, None)


def _work(
    images: ImageSet,
    rows: npt.NDArray[np.int64],
    windows: npt.NDArray[np.float32],
    noise: NoiseDraw | None,
) -> Work:
    return Work(
        encoded=[images.image_bytes(row) for row in rows.tolist()],
        targets=images.targets(rows),
        sample_ids=images.sample_ids[rows],
        num_pixels=images.widths[rows].astype(np.int64) * images.heights[rows],
        windows=windows,
        noise=noise,
    )


def _run(spec: BackendSpec, backend: Backend, num_labeled: int | None) -> Iterator[Batch]:
    if pick_backend(backend) == "dali":
        from plstore.loaders.dali import run
    else:
        from plstore.loaders.portable import run
    for step, (images, targets, sample_ids) in enumerate(run(spec), start=spec.first_step):
        yield Batch(
            images=images,
            targets=targets,
            sample_ids=sample_ids,
            num_labeled=len(images) if num_labeled is None else num_labeled,
            step=step,
        )
