"""ImageNet-C's corruptions of any images, the same bits for the same image wherever it is.

Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261, section 4.1, by the package
imagecorruptions-imaug. The authors compare models by their released JPEG files. What is made
here is for other data, and for models compared on one machine with one set of versions.

Severities are those of 224 px whatever the size: blur by so many pixels takes more of a small
image, so figures at 32 px are not those of CIFAR-10-C, which has milder parameters of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Any, Final, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt
from PIL import Image

from plstore.errors import InputError, MissingExtraError
from plstore.seeds import Purpose, generator
from trainers.robustness.batches import ImageBatch, check_batch, check_known
from trainers.robustness.opencv import opencv
from trainers.robustness.pool import check_workers, in_order
from trainers.robustness.published import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES

KNOWN_CORRUPTIONS: Final = CORRUPTIONS + EXTRA_CORRUPTIONS
"""All 19: the 15 of mCE and the extra four."""

SMALLEST_SIDE: Final = 32
"""Pixels; the corruptions are not defined below it."""

_PACKAGE: Final = "imagecorruptions-imaug"
_SEEDED_APART: Final = ("impulse_noise", "glass_blur")
"""They take no number from the global generator."""
_GRAY: Final = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    *("frost", "spatter", "saturate"),
)
"""Those whose way with one channel is right in the library; others get the channel three times.

Noise in three channels would be a third weaker when it is one channel again.
"""


@dataclass(frozen=True, eq=False)
class CorruptedImages:
    """A batch under one corruption.

    Attributes:
        name: Of the corruption.
        severity: 1 to 5.
        sample_ids: int64 [images], as they came.
        pixels: uint8 [images, size, size, channels].
        was_resized: Whether the images are below 32 px a side, so that they were made 32 px for
            the corruption, and their size again after it (bicubic): that alone blurs them, and
            noise of 28 px images is 28 % weaker for it.
    """

    name: str
    severity: int
    sample_ids: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]
    was_resized: bool


class _Task(NamedTuple):
    name: str
    severity: int
    batch: ImageBatch


def corrupted(
    images: Iterable[ImageBatch],
    names: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    *,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Iterator[CorruptedImages]:
    """Yield every batch of images under every corruption and severity.

    All of the first batch come first, by name and then by severity as given, then those of the
    next. They are the same bits for any number of workers. Memory holds two batches a worker,
    each twice, beside the one in use: smaller batches take less.

    Args:
        images: Batches, read once: sample ids, int64 [images], and pixels, uint8 [images, size,
            size, channels], 1 or 3 channels.
        names: Of `KNOWN_CORRUPTIONS`.
        severities: Of 1 to 5.
        workers: Processes; 0 works in this one. The library uses numpy's global generator, so
            threads do not help. A program that uses them begins under
            ``if __name__ == "__main__"``.
        on_progress: Called with the number of corrupted images so far.

    Raises:
        InputError: If a name, a severity or the number of workers is not one of these, or a
            batch is not as it must be.
        MissingExtraError: If the library is not installed.
        PlstoreError: If OpenCV does not load, or a worker is ended from outside.
    """
    check_known("corruption", names, KNOWN_CORRUPTIONS)
    check_severities(severities)
    check_workers(workers)
    library()
    return _corrupted(images, list(product(names, severities)), workers, on_progress)


def corrupt(
    pixels: npt.NDArray[np.uint8], *, sample_id: int, name: str, severity: int
) -> npt.NDArray[np.uint8]:
    """Return an image under a corruption, the same for the same id, name and severity.

    Numpy's global generator is as it was afterwards. One channel stays one channel. Below 32 px
    a side the image is resized for the corruption, see `is_resized`.

    Args:
        pixels: uint8 [size, size, channels], 1 or 3 channels.
        sample_id: Of the image, 0 or more: what is random depends on it, not on the pixels.
        name: One of `KNOWN_CORRUPTIONS`.
        severity: 1 to 5.

    Returns:
        uint8 [size, size, channels].

    Raises:
        InputError: If the image, the name or the severity is not one of these.
        MissingExtraError: If the library is not installed.
        PlstoreError: If OpenCV does not load.
    """
    check_known("corruption", [name], KNOWN_CORRUPTIONS)
    check_severities([severity])
    check_batch((np.array([sample_id], np.int64), pixels[np.newaxis]))
    return _corrupt(pixels, sample_id, name, severity)


def is_resized(size: int) -> bool:
    """Whether images of a size, in pixels a side, are resized for corruptions."""
    return size < SMALLEST_SIDE


@cache
def library() -> Mapping[str, Callable[..., Any]]:
    """Return the library's functions by name of the corruption.

    Raises:
        MissingExtraError: If it is not installed.
        InputError: If the package "imagecorruptions" is installed too.
        PlstoreError: If OpenCV does not load.
    """
    if not _is_installed(_PACKAGE):
        raise MissingExtraError(_PACKAGE, "robustness", "corrupting images")
    if _is_installed("imagecorruptions"):
        raise InputError(
            f"the packages imagecorruptions and {_PACKAGE} are both installed, and write the "
            "same module; wanted the second alone: pip uninstall imagecorruptions, then "
            f"pip install --force-reinstall --no-deps {_PACKAGE}"
        )
    opencv()
    from imagecorruptions import corruption_dict

    functions: Mapping[str, Callable[..., Any]] = corruption_dict
    return functions


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _corrupted(
    images: Iterable[ImageBatch],
    kinds: list[tuple[str, int]],
    workers: int,
    on_progress: Callable[[int], None],
) -> Iterator[CorruptedImages]:
    checked = (check_batch(batch) for batch in images)
    tasks = (_Task(name, severity, batch) for batch in checked for name, severity in kinds)
    num_done = 0
    for done in in_order(_work, tasks, workers):
        num_done += len(done.sample_ids)
        on_progress(num_done)
        yield done


def _work(task: _Task) -> CorruptedImages:
    ids, pixels = task.batch
    out = np.empty_like(pixels)
    for row, sample_id in enumerate(ids):
        out[row] = _corrupt(pixels[row], int(sample_id), task.name, task.severity)
    resized = is_resized(pixels.shape[1])
    return CorruptedImages(task.name, task.severity, ids, out, was_resized=resized)


def _corrupt(
    pixels: npt.NDArray[np.uint8], sample_id: int, name: str, severity: int
) -> npt.NDArray[np.uint8]:
    size, channels = pixels.shape[1:]
    image = Image.fromarray(pixels if channels > 1 else pixels[..., 0])
    if is_resized(size):
        image = image.resize((SMALLEST_SIDE, SMALLEST_SIDE), Image.Resampling.BICUBIC)
    if channels == 1 and name not in _GRAY:
        image = image.convert("RGB")
    done = Image.fromarray(_applied(image, name, severity, _seed(sample_id, name, severity)))
    done = done.convert("L" if channels == 1 else "RGB")
    if is_resized(size):
        done = done.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(done).reshape(pixels.shape)


def _applied(image: Image.Image, name: str, severity: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return uint8 [side, side] or [side, side, 3], as the library makes it.

    It divides 0 by 0 where no drop of spatter falls on an image, as on one of forty of 32 px:
    such an image stays as it is.
    """
    own = {"seed": seed} if name in _SEEDED_APART else {}
    with _global_seed(seed), np.errstate(invalid="ignore"):
        found = np.asarray(library()[name](image, severity, **own), np.float64)
    return np.where(np.isnan(found), np.asarray(image), found).astype(np.uint8)


def _seed(sample_id: int, name: str, severity: int) -> int:
    """Return 32 bits. No seed of a run is part of them: all models see the same images."""
    path = (sample_id, crc32(name.encode()), severity)
    return int(generator(0, Purpose.CORRUPTION, *path).integers(2**32))


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, the only one the library has, and put it back."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002, TID251
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def check_severities(severities: Sequence[int]) -> None:
    """Check severities.

    Raises:
        InputError: If one is not of 1 to 5, comes twice, or there is none.
    """
    wrong = [severity for severity in severities if severity not in SEVERITIES]
    if wrong or not severities or len(set(severities)) != len(severities):
        found = ", ".join(map(repr, wrong or severities)) or "none"
        raise InputError(f"severity is {found}; wanted one or more, each once, of 1 to 5")
