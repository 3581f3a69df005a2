"""Sequences of an image that changes little from frame to frame, in the style of ImageNet-P.

"P-style", not ImageNet-P: the ten perturbations are the authors', and their `strengths`, but
frames are not coded as video, which in the originals takes detail and noise away, and OpenCV
stands for ImageMagick and Pillow. Figures compare models with each other; over AlexNet's
published ones they are an estimate.

Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261, section 4.1.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError
from plstore.seeds import Purpose, generator
from trainers.robustness.batches import ImageBatch, check_batch, check_known
from trainers.robustness.opencv import opencv
from trainers.robustness.pool import check_workers, in_order
from trainers.robustness.published import PERTURBATIONS
from trainers.robustness.strengths import NUM_FRAMES, Strengths, strengths_of

_FEWEST_FRAMES: Final = 2
_SNOW_MIX: Final = 0.85  # of the image, the rest is whitened
_SNOW_FIRST_DEGREES: Final = -150

Pixels: TypeAlias = npt.NDArray[np.float32]  # [size, size, channels], 0 to 1
Frames: TypeAlias = npt.NDArray[np.uint8]  # [frames, size, size, channels]


@dataclass(frozen=True, eq=False)
class PerturbedImages:
    """A batch under one perturbation.

    Attributes:
        name: Of the perturbation.
        sample_ids: int64 [images], as they came.
        pixels: uint8 [images, frames, size, size, channels].
    """

    name: str
    sample_ids: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]


class _Task(NamedTuple):
    name: str
    num_frames: int | None
    batch: ImageBatch


class _Subject(NamedTuple):
    """What a perturbation works on: the image, how strongly, how long, by which numbers."""

    image: npt.NDArray[np.uint8]
    strengths: Strengths
    num_frames: int
    random: np.random.Generator

    @property
    def pixels(self) -> Pixels:
        return np.asarray(self.image / np.float32(255), np.float32)

    @property
    def from_middle(self) -> range:
        """Steps of each frame from the middle one."""
        middle = (self.num_frames - 1) // 2
        return range(-middle, self.num_frames - middle)


def perturbed(
    images: Iterable[ImageBatch],
    names: Sequence[str] = PERTURBATIONS,
    *,
    num_frames: int | None = None,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Iterator[PerturbedImages]:
    """Yield every batch of images under every perturbation.

    All of the first batch come first, by name as given, then those of the next. They are the
    same bits for any number of workers. Memory holds the sequences of two batches a worker,
    beside those in use: smaller batches take less.

    Args:
        images: Batches, read once: sample ids, int64 [images], and pixels, uint8 [images, size,
            size, channels], 1 or 3 channels.
        names: Of `published.PERTURBATIONS`.
        num_frames: 2 or more; None for as many as are published, 31 but for motion blur (21)
            and translation (16) near 32 px and translation (41) near 224 px.
        workers: Processes; 0 works in this one. A program that uses them begins under
            ``if __name__ == "__main__"``.
        on_progress: Called with the number of sequences so far.

    Raises:
        InputError: If a name, the number of frames or of workers is not one of these, or a
            batch is not as it must be.
        MissingExtraError: If OpenCV is not installed.
        PlstoreError: If it does not load, or a worker is ended from outside.
    """
    check_known("perturbation", names, PERTURBATIONS)
    _check_frames(num_frames)
    check_workers(workers)
    opencv()
    checked = (check_batch(batch) for batch in images)
    tasks = (_Task(name, num_frames, batch) for batch in checked for name in names)
    return _counted(in_order(_work, tasks, workers), on_progress)


def sequence(
    pixels: npt.NDArray[np.uint8], *, sample_id: int, name: str, num_frames: int | None = None
) -> Frames:
    """Return an image under a perturbation, the same for the same id and name.

    Noise begins with the image itself; zoom blur too. Brightness, translation, rotation and
    tilt have it in the middle, at frame (frames - 1) // 2. What an image does not reach is
    black, as in the originals of 32 px.

    Args:
        pixels: uint8 [size, size, channels], 1 or 3 channels.
        sample_id: Of the image, 0 or more: what is random depends on it.
        name: One of `published.PERTURBATIONS`.
        num_frames: 2 or more; None for as many as are published, see `perturbed`.

    Returns:
        uint8 [frames, size, size, channels].

    Raises:
        InputError: If the image, the name or the number of frames is not one of these.
        MissingExtraError: If OpenCV is not installed.
        PlstoreError: If it does not load.
    """
    check_known("perturbation", [name], PERTURBATIONS)
    _check_frames(num_frames)
    check_batch((np.array([sample_id], np.int64), pixels[np.newaxis]))
    return _sequence(pixels, sample_id, name, num_frames)


def _counted(
    stream: Iterator[PerturbedImages], on_progress: Callable[[int], None]
) -> Iterator[PerturbedImages]:
    num_done = 0
    for done in stream:
        num_done += len(done.sample_ids)
        on_progress(num_done)
        yield done


def _check_frames(num_frames: int | None) -> None:
    if num_frames is not None and num_frames < _FEWEST_FRAMES:
        raise InputError(
            f"num_frames is {num_frames}; wanted {_FEWEST_FRAMES} or more, since predictions "
            "are compared between frames"
        )


def _work(task: _Task) -> PerturbedImages:
    ids, pixels = task.batch
    sequences = [
        _sequence(image, int(sample_id), task.name, task.num_frames)
        for sample_id, image in zip(ids, pixels, strict=True)
    ]
    return PerturbedImages(task.name, ids, np.stack(sequences))


def _sequence(
    pixels: npt.NDArray[np.uint8], sample_id: int, name: str, num_frames: int | None
) -> Frames:
    strengths = strengths_of(len(pixels))
    wanted = num_frames or strengths.num_frames.get(name, NUM_FRAMES)
    random = generator(0, Purpose.PERTURBATION, sample_id, crc32(name.encode()))
    frames = _PERTURBATIONS[name](_Subject(pixels, strengths, wanted, random))
    return frames.reshape(wanted, *pixels.shape)


def _gaussian_noise(subject: _Subject) -> Frames:
    shape = (subject.num_frames - 1, *subject.image.shape)
    noise = subject.random.standard_normal(shape, dtype=np.float32)
    noisy = _as_bytes(subject.pixels + subject.strengths.noise_std * noise)
    return np.concatenate([subject.image[np.newaxis], noisy])


def _shot_noise(subject: _Subject) -> Frames:
    shape = (subject.num_frames - 1, *subject.image.shape)
    photons = subject.strengths.photons
    counts = subject.random.poisson(subject.pixels * photons, shape)
    return np.concatenate([subject.image[np.newaxis], _as_bytes(counts / photons)])


def _motion_blur(subject: _Subject) -> Frames:
    step, pixels = subject.strengths.blur_degrees, subject.pixels
    blurred = [
        _moved(pixels, subject.strengths.blur, step * (frame - subject.num_frames + 1))
        for frame in range(subject.num_frames)
    ]
    return _as_bytes(np.stack(blurred))


def _zoom_blur(subject: _Subject) -> Frames:
    zoomed = [
        _turned(subject.pixels, scale=1 + subject.strengths.zoom * frame)
        for frame in range(subject.num_frames)
    ]
    counts = np.arange(1, subject.num_frames + 1).reshape(-1, 1, 1, 1)
    return _as_bytes(np.cumsum(np.stack(zoomed), axis=0) / counts)


def _snow(subject: _Subject) -> Frames:
    strengths, pixels = subject.strengths, subject.pixels
    layer = _snow_layer(subject)
    gray = pixels if pixels.shape[2] == 1 else _gray(pixels)
    white = np.maximum(pixels, gray * 1.5 + 0.5)
    dim = _SNOW_MIX * pixels + (1 - _SNOW_MIX) * white
    frames = []
    for frame in range(subject.num_frames):
        degrees = _SNOW_FIRST_DEGREES + strengths.snow_degrees * frame
        flakes = _moved(layer, strengths.snow_blur, degrees)
        frames.append(dim + flakes + np.rot90(flakes, k=2))
    return _as_bytes(np.stack(frames))


def _brightness(subject: _Subject) -> Frames:
    added = [subject.strengths.brightness * step for step in subject.from_middle]
    if subject.image.shape[2] == 1:
        return _as_bytes(np.stack([subject.pixels + value for value in added]))
    cv2 = opencv()
    hsv = cv2.cvtColor(subject.pixels, cv2.COLOR_RGB2HSV)
    frames = []
    for value in added:
        brighter = hsv.copy()
        brighter[..., 2] = np.clip(hsv[..., 2] + value, 0, 1)
        frames.append(cv2.cvtColor(brighter, cv2.COLOR_HSV2RGB))
    return _as_bytes(np.stack(frames))


def _translate(subject: _Subject) -> Frames:
    steps = [step * subject.strengths.pixels for step in subject.from_middle]
    return _as_bytes(np.stack([_turned(subject.pixels, right=step) for step in steps]))


def _rotate(subject: _Subject) -> Frames:
    angles = [step * subject.strengths.degrees for step in subject.from_middle]
    return _as_bytes(np.stack([_turned(subject.pixels, degrees=angle) for angle in angles]))


def _tilt(subject: _Subject) -> Frames:
    angles = [step * subject.strengths.tilt for step in subject.from_middle]
    return _as_bytes(np.stack([_tilted(subject.pixels, angle) for angle in angles]))


def _scale(subject: _Subject) -> Frames:
    first, step = subject.strengths.scale
    scales = [first + step * frame for frame in range(subject.num_frames)]
    return _as_bytes(np.stack([_turned(subject.pixels, scale=scale) for scale in scales]))


_PERTURBATIONS: Final[Mapping[str, Callable[[_Subject], Frames]]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "brightness": _brightness,
    "translate": _translate,
    "rotate": _rotate,
    "tilt": _tilt,
    "scale": _scale,
}


def _turned(
    pixels: Pixels, *, degrees: float = 0, scale: float = 1, right: float = 0
) -> Pixels:
    """Return an image turned and scaled about its middle, then moved; bilinear."""
    cv2, size = opencv(), len(pixels)
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), degrees, scale)
    matrix[0, 2] += right
    turned = cv2.warpAffine(pixels, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(turned, np.float32).reshape(pixels.shape)


def _tilted(pixels: Pixels, degrees: float) -> Pixels:
    """Return an image turned about its upright, then its level axis, as a camera sees it.

    The camera stands before the middle, as far as the image's diagonal is long.
    """
    cv2, size = opencv(), len(pixels)
    middle, far = (size - 1) / 2, size * 2**0.5
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    seen = np.array(
        [[far * cos, 0, 0], [-far * sin * sin, far * cos, 0], [sin * cos, sin, far]]
    )
    to_middle = np.array([[1, 0, -middle], [0, 1, -middle], [0, 0, 1]])
    matrix = np.linalg.inv(to_middle) @ seen @ to_middle
    tilted = cv2.warpPerspective(pixels, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(tilted, np.float32).reshape(pixels.shape)


def _moved(pixels: Pixels, blur: tuple[float, float], degrees: float) -> Pixels:
    """Return an image blurred by motion, borders repeated: ImageMagick's one-sided Gaussian."""
    cv2 = opencv()
    kernel = _motion_kernel(*blur, degrees)
    moved = cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32).reshape(pixels.shape)


def _motion_kernel(radius: float, sigma: float, degrees: float) -> npt.NDArray[np.float32]:
    """Return weights [length, length] of sum 1: half a Gaussian from the middle outwards."""
    reach = 2 * ceil(radius)
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    along = np.deg2rad(degrees)
    for distance, weight in enumerate(weights):
        row = ceil(distance * np.sin(along) - 0.5)
        column = ceil(distance * np.cos(along) - 0.5)
        kernel[reach + row, reach + column] += weight
    return np.asarray(kernel / kernel.sum(), np.float32)


def _snow_layer(subject: _Subject) -> Pixels:
    """Return flakes, [size, size, 1]."""
    cv2, size = opencv(), len(subject.image)
    noise = subject.random.normal(0.05, subject.strengths.snow_std, (size, size))
    kept = min(ceil(size / subject.strengths.flake), size)
    start = (size - kept) // 2
    grain = noise[start : start + kept, start : start + kept]
    layer = cv2.resize(grain, (size, size), interpolation=cv2.INTER_LINEAR)
    layer[layer < 0.5] = 0  # noqa: PLR2004
    flakes: Pixels = np.clip(layer, 0, 1).astype(np.float32)
    return flakes.reshape(size, size, 1)


def _gray(pixels: Pixels) -> Pixels:
    cv2 = opencv()
    gray: Pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float32)
    return gray.reshape(*pixels.shape[:2], 1)


def _as_bytes(frames: npt.NDArray[np.floating]) -> Frames:
    return np.asarray(np.rint(np.clip(frames, 0, 1) * 255), np.uint8)
