"""Clean batches of images: as teachers and evaluations see them."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from plstore.errors import StoreError
from plstore.loaders.backends import pick_backend, run_backend, work_of
from plstore.loaders.imageset import ImageSet
from plstore.loaders.noise import (
    INPUT_PARTS,
    Gets,
    InputPart,
    Noise,
    NoiseDraw,
    center_windows,
    draw_noise,
)
from plstore.loaders.settings import check_device, check_whole
from plstore.loaders.sources import Samples, TwinSource
from plstore.loaders.work import Backend, BackendSpec, Batch, ImageFormat, Work
from plstore.seeds import Purpose, uniforms

MAX_BATCH: Final = 256
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ImageNoise:
    """Noise of images that are looked at, not drawn: by seed and sample id alone.

    Attributes:
        noise: What there is.
        parts: Which of crop, flip and augment images get.
        seed: Of the run.
        first_batch: Number of the first batch, where noise follows from that of the batch too
            and an image looks otherwise each time; None for always the same.
    """

    noise: Noise
    parts: tuple[InputPart, ...]
    seed: int
    first_batch: int | None = None

    def of(self, samples: Samples, image_format: ImageFormat, batch: int) -> NoiseDraw:
        """Return the noise of the images of a batch, whose number is counted from 0."""
        path = () if self.first_batch is None else (self.first_batch + batch,)
        numbers = [
            uniforms(
                self.seed,
                Purpose.TEACHER_NOISE,
                *path,
                first=int(sample_id),
                count=1,
                width=self.noise.num_uniforms,
            )
            for sample_id in samples.sample_ids
        ]
        count = len(samples.sample_ids)
        gets = {part: np.full(count, part in self.parts) for part in INPUT_PARTS}
        return draw_noise(
            self.noise,
            widths=samples.widths,
            heights=samples.heights,
            size=image_format.size,
            uniforms=np.concatenate(numbers),
            gets=Gets(**gets, crop_pct=image_format.crop_pct),
        )


def clean_batches(
    images: ImageSet,
    image_format: ImageFormat,
    *,
    device: str = "cpu",
    backend: Backend = "auto",
    batch_size: int = MAX_BATCH,
    rows: Rows | None = None,
) -> Iterator[Batch]:
    """Yield every image once, in order, clean: as teachers and evaluations see it.

    Args:
        images: What to yield.
        image_format: Pixels that the model wants.
        device: Where batches are made and left: "cpu" or a CUDA device.
        backend: As in `load`.
        batch_size: Images a batch; the last may have fewer.
        rows: int64: which images, in this order; all unless given.

    Raises:
        InputError: If an argument is not as it must be.
        MissingExtraError: If the backend is not installed.
        StoreError: If an image is not what the store says.
    """
    order = np.arange(len(images)) if rows is None else rows
    return clean_stream(
        iter([(images, order)]),
        image_format,
        device=device,
        backend=backend,
        batch_size=batch_size,
    )


def clean_stream(
    portions: Iterator[tuple[ImageSet, Rows]],
    image_format: ImageFormat,
    *,
    device: str = "cpu",
    backend: Backend = "auto",
    batch_size: int = MAX_BATCH,
    noise: ImageNoise | None = None,
) -> Generator[Batch, None, None]:
    """Yield the images of portions, clean, without a pause between two portions.

    No batch holds images of two portions: batches are those of `clean_batches` of each alone.

    Args:
        portions: Images, and int64 which rows of them, in this order. They are drawn when
            their time comes, a few batches ahead and perhaps by another thread.
        image_format: As in `clean_batches`; so are the others.
        device: Where batches are made and left.
        backend: As in `load`.
        batch_size: Images a batch; the last of a portion may have fewer.
        noise: Makes them not clean, for a teacher that is noised.

    Raises:
        InputError: If an argument is not as it must be.
        MissingExtraError: If the backend is not installed.
        StoreError: If an image is not what the store says.
    """
    check_whole("batch_size", batch_size, low=1)
    check_device(device)
    works = _clean_works(portions, image_format, batch_size, noise)
    spec = BackendSpec(
        work=lambda _: next(works),
        format=image_format,
        noise=None if noise is None else noise.noise,
        max_batch=batch_size,
        device=device,
    )
    for step, pixels in enumerate(run_backend(pick_backend(backend, device), spec)):
        found, targets, sample_ids = pixels
        yield Batch(
            images=found,
            targets=targets,
            weights=torch.ones(len(found), device=targets.device),
            sample_ids=sample_ids,
            num_labeled=len(found),
            step=step,
        )


def _clean_works(
    portions: Iterator[tuple[ImageSet, Rows]],
    image_format: ImageFormat,
    batch_size: int,
    noise: ImageNoise | None,
) -> Iterator[Work]:
    numbers = count()
    for images, rows in portions:
        windows = center_windows(images.widths, images.heights, image_format.crop_pct)
        source = TwinSource(images)
        for start in range(0, len(rows), batch_size):
            here = rows[start : start + batch_size]
            samples = source.fetch(here)
            if not samples.intact.all():
                wrong = samples.sample_ids[~samples.intact][0]
                raise StoreError(
                    f"image {wrong} is not what the store says it is; 'plstore verify' tells "
                    "what is wrong. A copy in the cache may be damaged: delete the cache and "
                    "run again"
                )
            if noise is None:
                yield work_of(samples, windows[here], image_format)
                continue
            drawn = noise.of(samples, image_format, next(numbers))
            yield work_of(samples, drawn.windows, image_format, drawn)
