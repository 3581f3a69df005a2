"""Every image once, in order, clean: as teachers and evaluations see it."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from plstore.errors import StoreError
from plstore.loaders.backends import pick_backend, run_backend, work_of
from plstore.loaders.imageset import ImageSet
from plstore.loaders.noise import center_windows
from plstore.loaders.settings import check_device, check_whole
from plstore.loaders.sources import TwinSource
from plstore.loaders.work import Backend, BackendSpec, Batch, ImageFormat, Work

MAX_BATCH: Final = 256


def clean_batches(
    images: ImageSet,
    image_format: ImageFormat,
    *,
    device: str = "cpu",
    backend: Backend = "auto",
    batch_size: int = MAX_BATCH,
    rows: npt.NDArray[np.int64] | None = None,
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
    check_whole("batch_size", batch_size, low=1)
    check_device(device)
    windows = center_windows(images.widths, images.heights, image_format.crop_pct)
    source = TwinSource(images)
    order = np.arange(len(images)) if rows is None else rows

    def work(step: int) -> Work:
        here = order[step * batch_size : (step + 1) * batch_size]
        if not len(here):
            raise StopIteration
        samples = source.fetch(here)
        if not samples.intact.all():
            wrong = samples.sample_ids[~samples.intact][0]
            raise StoreError(
                f"image {wrong} is not what the store says it is; 'plstore verify' tells what "
                "is wrong. A copy in the cache may be damaged: delete the cache and run again"
            )
        return work_of(samples, windows[here], image_format)

    spec = BackendSpec(
        work=work, format=image_format, noise=None, max_batch=batch_size, device=device
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
