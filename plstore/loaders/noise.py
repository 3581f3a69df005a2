"""Input noise as numbers: what is drawn for an image, not yet done to it.

RandAugment (Cubuk et al. 2020; Noisy Student, section 3.1) applies `num_ops` operations, drawn
with replacement from a list, to every image. Here the list and the magnitudes are named by the
recipe, because libraries disagree on what "magnitude 27" means, and because the paper's scale
(translate by 10 pixels a unit) is absurd at 28 pixels. Geometric operations compose to one
affine map and colour operations to three factors, so an image is resampled once, not `num_ops`
times; colour follows geometry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError

Doubles = npt.NDArray[np.float64]

OPS: Final[dict[str, str]] = {
    "identity": "nothing; its magnitude is ignored",
    "rotate": "degrees",
    "shear_x": "pixels of shift per pixel of height",
    "shear_y": "pixels of shift per pixel of width",
    "translate_x": "share of the width",
    "translate_y": "share of the height",
    "zoom": "share by which the image grows or shrinks",
    "brightness": "share by which values are scaled",
    "contrast": "share by which the distance to mid-gray is scaled",
    "saturation": "share by which the distance to gray is scaled; RGB only",
}
"""Operations and the unit of their magnitude. Each goes both ways from "no change"."""

_DRAWS_PER_CROP: Final = 10  # attempts, as in the reference's random-resized crop


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Operations for every image.

    Attributes:
        num_ops: Operations an image gets, 0 or more, drawn with replacement.
        ops: Largest magnitude by operation, in the unit that `OPS` names.
        magnitude: "uniform" draws between no change and the largest, both ways; "fixed" always
            takes the largest, in either direction, as the reference does.
    """

    num_ops: int = 2
    ops: Mapping[str, float] = field(default_factory=dict)
    magnitude: str = "uniform"

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            InputError: If an operation or magnitude rule is unknown.
        """
        unknown = sorted(set(self.ops) - set(OPS))
        if unknown:
            raise InputError(
                f"RandAugment ops {', '.join(unknown)} are unknown; wanted some of "
                f"{', '.join(OPS)}"
            )
        if self.magnitude not in {"uniform", "fixed"}:
            raise InputError(f"magnitude is {self.magnitude!r}; wanted 'uniform' or 'fixed'")


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Random-resized crop (Szegedy et al. 2015).

    Attributes:
        min_area: Smallest share of the image's area, 0 to 1.
        max_area: Largest share of the image's area, 0 to 1.
        max_aspect: Aspect ratio drawn log-uniformly from 1 / max_aspect to max_aspect.
    """

    min_area: float = 0.08
    max_area: float = 1.0
    max_aspect: float = 4 / 3


@dataclass(frozen=True, kw_only=True)
class Noise:
    """All input noise of a student.

    Attributes:
        crop: Random-resized crop.
        flip: Probability of a horizontal flip, 0 to 1.
        randaugment: Further operations.
        fill: Value, 0 to 255, of pixels from outside the image; None repeats its edge.
    """

    crop: Crop = field(default_factory=Crop)
    flip: float = 0.5
    randaugment: RandAugment = field(default_factory=RandAugment)
    fill: int | None = None


@dataclass(frozen=True, kw_only=True)
class NoiseDraw:
    """The noise of some images, as numbers.

    Attributes:
        windows: float32 [images, 4]: top, left, bottom, right in source pixels.
        matrices: float32 [images, 2, 3]: output pixel to input pixel (x, y), after resizing.
        brightness: float32 [images], 1 for no change.
        contrast: float32 [images], 1 for no change.
        saturation: float32 [images], 1 for no change.
    """

    windows: npt.NDArray[np.float32]
    matrices: npt.NDArray[np.float32]
    brightness: npt.NDArray[np.float32]
    contrast: npt.NDArray[np.float32]
    saturation: npt.NDArray[np.float32]


def draw_noise(
    noise: Noise,
    *,
    widths: npt.NDArray[np.int32],
    heights: npt.NDArray[np.int32],
    size: int,
    random: np.random.Generator,
) -> NoiseDraw:
    """Draw the noise of images of these widths and heights, made ``size x size`` pixels."""
    count = len(widths)
    windows = _crop_windows(noise.crop, widths, heights, random)
    flips = random.random(count) < noise.flip
    maps, factors = _randaugment(noise.randaugment, count, random)
    maps[flips, :, 0] *= -1
    return NoiseDraw(
        windows=windows.astype(np.float32),
        matrices=_to_pixels(maps, size).astype(np.float32),
        brightness=factors[0].astype(np.float32),
        contrast=factors[1].astype(np.float32),
        saturation=factors[2].astype(np.float32),
    )


def center_windows(
    widths: npt.NDArray[np.int32], heights: npt.NDArray[np.int32], crop_pct: float
) -> npt.NDArray[np.float32]:
    """Return the clean evaluation crop: a centred square, `crop_pct` of the shorter side.

    Returns:
        float32 [images, 4]: top, left, bottom, right in source pixels.
    """
    side = np.minimum(widths, heights) * crop_pct
    left, top = (widths - side) / 2, (heights - side) / 2
    return np.stack([top, left, top + side, left + side], axis=1).astype(np.float32)


def _crop_windows(
    crop: Crop,
    widths: npt.NDArray[np.int32],
    heights: npt.NDArray[np.int32],
    random: np.random.Generator,
) -> Doubles:
    w, h = widths.astype(np.float64)[:, None], heights.astype(np.float64)[:, None]
    shape = (len(widths), _DRAWS_PER_CROP)
    area = random.uniform(crop.min_area, crop.max_area, shape) * w * h
    bound = np.log(crop.max_aspect)
    aspect = np.exp(random.uniform(-bound, bound, shape))
    crop_w, crop_h = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fits = (crop_w <= w) & (crop_h <= h)
    pick = fits.argmax(axis=1)[:, None]
    crop_w = np.take_along_axis(crop_w, pick, axis=1)
    crop_h = np.take_along_axis(crop_h, pick, axis=1)
    # None of the attempts fits: the largest centred window of an allowed aspect ratio.
    ratio = np.clip(w / h, 1 / crop.max_aspect, crop.max_aspect)
    some = fits.any(axis=1, keepdims=True)
    crop_w = np.where(some, crop_w, np.minimum(w, h * ratio))
    crop_h = np.where(some, crop_h, np.minimum(h, w / ratio))
    where = random.random((len(widths), 2))
    left = np.where(some, where[:, :1] * (w - crop_w), (w - crop_w) / 2)
    top = np.where(some, where[:, 1:] * (h - crop_h), (h - crop_h) / 2)
    return np.concatenate([top, left, top + crop_h, left + crop_w], axis=1)


def _randaugment(
    spec: RandAugment, count: int, random: np.random.Generator
) -> tuple[Doubles, Doubles]:
    """Return affine maps [count, 2, 3] in units of half the image, and factors [3, count]."""
    maps = np.tile(np.eye(3), (count, 1, 1))
    factors = np.ones((3, count))
    names = sorted(spec.ops)
    for _ in range(spec.num_ops if names else 0):
        chosen = random.integers(len(names), size=count)
        strength = random.uniform(-1, 1, count)
        if spec.magnitude == "fixed":
            strength = np.sign(strength)
        for index, name in enumerate(names):
            rows = np.flatnonzero(chosen == index)
            values = strength[rows] * spec.ops[name]
            if name in _FACTORS:
                factors[_FACTORS.index(name), rows] *= 1 + values
            elif name != "identity":
                maps[rows] = maps[rows] @ _affine(name, values)
    return maps[:, :2], factors


_FACTORS = ("brightness", "contrast", "saturation")


def _affine(name: str, values: Doubles) -> Doubles:
    map_ = np.tile(np.eye(3), (len(values), 1, 1))
    if name == "rotate":
        angle = np.deg2rad(values)
        map_[:, 0, 0] = map_[:, 1, 1] = np.cos(angle)
        map_[:, 1, 0], map_[:, 0, 1] = np.sin(angle), -np.sin(angle)
    elif name == "zoom":
        map_[:, 0, 0] = map_[:, 1, 1] = 1 + values
    else:
        row, column, scale = {
            "shear_x": (0, 1, 1.0),
            "shear_y": (1, 0, 1.0),
            "translate_x": (0, 2, 2.0),
            "translate_y": (1, 2, 2.0),
        }[name]
        map_[:, row, column] = scale * values
    return map_


def _to_pixels(maps: Doubles, size: int) -> Doubles:
    """Turn maps about the centre, in half images, into maps of pixel coordinates."""
    half = size / 2
    linear = maps[:, :, :2]
    offset = half + half * maps[:, :, 2] - linear.sum(axis=2) * half
    return np.concatenate([linear, offset[:, :, None]], axis=2)
