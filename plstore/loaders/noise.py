"""Input noise as numbers: what is drawn for an image, not yet done to it.

Every number follows from (seed, draw) alone, where draws of a stream of images are counted from
0 on: not from the batch, the rank or the thread that an image falls to.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError
from plstore.loaders.randaugment import (
    DRAWS_PER_LAYER,
    MOST_LAYERS,
    OpDraw,
    RandAugment,
    draw_ops,
)
from plstore.loaders.settings import check_choice, check_kind, check_number, check_whole

Doubles = npt.NDArray[np.float64]

InputPart = Literal["crop", "flip", "augment"]
INPUT_PARTS: Final[tuple[InputPart, ...]] = get_args(InputPart)
"""Of the input noise: what some images of a batch may be without."""

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
"""Operations of `ComposedAugment` and the unit of their magnitude, both ways from no change."""

_LARGEST: Final[dict[str, float]] = {"rotate": 360.0, "shear_x": 10.0, "shear_y": 10.0}
_SHARE: Final = 1.0  # the largest magnitude of all others: what is a share has an end
_LARGEST_ASPECT: Final = 100.0
_WHITE: Final = 255

_CROP_ATTEMPTS: Final = 10  # as in the reference's random-resized crop
_CROP_DRAWS: Final = 2 * _CROP_ATTEMPTS + 2
_COMPOSED_DRAWS: Final = 2


@dataclass(frozen=True, kw_only=True)
class ComposedAugment:
    """RandAugment from a list of one's own, composed to one warp and three factors.

    For small images: the scale of the paper is absurd at 28 pixels, where a translation by 10
    pixels a unit leaves nothing, and an image that is resampled once stays sharper. Colour
    follows geometry.

    Attributes:
        n: Operations an image gets, 0 to 8, drawn with replacement.
        ops: Largest magnitude by operation, in the unit that `OPS` names: rotations to 360,
            shears to 10, all others to 1, and `zoom` below 1.
        magnitude: "uniform" draws between no change and the largest, both ways; "fixed" always
            takes the largest, in either direction, as the reference does.
    """

    n: int = 2
    ops: Mapping[str, float] = field(default_factory=dict)
    magnitude: str = "uniform"

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            InputError: If an operation or magnitude rule is unknown, or a number out of range.
        """
        check_whole("ComposedAugment n", self.n, low=0, high=MOST_LAYERS)
        check_kind("ComposedAugment ops", self.ops, Mapping)
        unknown = sorted(set(self.ops) - set(OPS))
        if unknown:
            raise InputError(
                f"RandAugment ops {', '.join(unknown)} are unknown; wanted some of "
                f"{', '.join(OPS)}"
            )
        check_choice("ComposedAugment magnitude", self.magnitude, ("uniform", "fixed"))
        for name, value in self.ops.items():
            largest = _LARGEST.get(name, _SHARE)
            if name == "identity":
                largest = inf
            check_number(
                f"ComposedAugment ops {name}", value, low=0, high=largest, below=name == "zoom"
            )


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Random-resized crop (Szegedy et al. 2015), in whole pixels of the image.

    Attributes:
        min_area: Smallest share of the image's area, above 0, up to max_area.
        max_area: Largest share of the image's area, up to 1.
        max_aspect: Aspect ratio drawn log-uniformly from 1 / max_aspect to max_aspect, which
            is 1 to 100.
    """

    min_area: float = 0.08
    max_area: float = 1.0
    max_aspect: float = 4 / 3

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            InputError: If a number is out of range.
        """
        check_number("Crop max_area", self.max_area, low=0, high=1, above=True)
        check_number("Crop min_area", self.min_area, low=0, high=self.max_area, above=True)
        check_number("Crop max_aspect", self.max_aspect, low=1, high=_LARGEST_ASPECT)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """All input noise of a student.

    Attributes:
        crop: Random-resized crop.
        flip: Probability of a horizontal flip, 0 to 1.
        augment: Further operations.
        fill: Value, 0 to 255, of pixels from outside the image; unless given, the dialect's of
            `RandAugment`, and the repeated edge for `ComposedAugment`.
    """

    crop: Crop = field(default_factory=Crop)
    flip: float = 0.5
    augment: RandAugment | ComposedAugment = field(default_factory=RandAugment)
    fill: int | None = None

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            InputError: If a setting is of another kind, or a number out of range.
        """
        check_kind("Noise crop", self.crop, Crop)
        check_number("Noise flip", self.flip, low=0, high=1)
        check_kind("Noise augment", self.augment, RandAugment, ComposedAugment)
        if self.fill is not None:
            check_whole("Noise fill", self.fill, low=0, high=_WHITE)

    def as_dict(self) -> dict[str, Any]:
        """Return all that it says, for a hash."""
        values = asdict(self)
        values["augment"]["ops"] = dict(getattr(self.augment, "ops", {}))
        return values

    @property
    def num_uniforms(self) -> int:
        """Uniform numbers that one image takes."""
        return _CROP_DRAWS + 1 + self.augment.n * self.uniforms_per_layer

    @property
    def uniforms_per_layer(self) -> int:
        """Uniform numbers that one operation takes."""
        return DRAWS_PER_LAYER if isinstance(self.augment, RandAugment) else _COMPOSED_DRAWS


@dataclass(frozen=True, kw_only=True)
class ComposedDraw:
    """One warp and three factors an image.

    Attributes:
        matrices: float32 [images, 2, 3]: from pixels of the result to pixels of the image, as
            (x, y) with (0.5, 0.5) the centre of the first, after resizing; flips are in it.
        brightness: float32 [images], 1 for no change.
        contrast: float32 [images], 1 for no change.
        saturation: float32 [images], 1 for no change.
    """

    matrices: npt.NDArray[np.float32]
    brightness: npt.NDArray[np.float32]
    contrast: npt.NDArray[np.float32]
    saturation: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class NoiseDraw:
    """The noise of some images, as numbers.

    Attributes:
        windows: int32 [images, 4]: top, left, bottom, right in source pixels.
        flips: bool [images]: mirrored after resizing, where `augment` does not do it.
        augment: What comes after.
    """

    windows: npt.NDArray[np.int32]
    flips: npt.NDArray[np.bool_]
    augment: OpDraw | ComposedDraw


@dataclass(frozen=True, kw_only=True)
class Gets:
    """Which parts of the noise each image gets.

    Attributes:
        crop: bool [images]; the others have the clean crop.
        flip: bool [images].
        augment: bool [images].
        crop_pct: Of the clean crop.
    """

    crop: npt.NDArray[np.bool_]
    flip: npt.NDArray[np.bool_]
    augment: npt.NDArray[np.bool_]
    crop_pct: float


def draw_noise(
    noise: Noise,
    *,
    widths: npt.NDArray[np.int32],
    heights: npt.NDArray[np.int32],
    size: int,
    uniforms: Doubles,
    gets: Gets | None = None,
) -> NoiseDraw:
    """Turn uniform numbers into the noise of images of these sizes.

    Args:
        noise: What is drawn.
        widths: int32 [images], pixels.
        heights: int32 [images], pixels.
        size: Pixels a side after resizing.
        uniforms: float64 [images, at least noise.num_uniforms], 0 to 1.
        gets: Which images get which parts; all of them unless given. What an image gets is the
            same, whatever it does not.
    """
    windows = _crop_windows(noise.crop, widths, heights, uniforms[:, :_CROP_DRAWS])
    flips = uniforms[:, _CROP_DRAWS] < noise.flip
    rest = uniforms[:, _CROP_DRAWS + 1 : noise.num_uniforms]
    layers = rest.reshape(len(widths), noise.augment.n, noise.uniforms_per_layer)
    bare = np.zeros(len(widths), np.bool_) if gets is None else ~gets.augment
    if gets is not None:
        clean = center_windows(widths, heights, gets.crop_pct)
        windows = np.where(gets.crop[:, None], windows, clean)
        flips &= gets.flip
    if isinstance(noise.augment, RandAugment):
        drawn = draw_ops(noise.augment, size, layers).without(bare)
        return NoiseDraw(windows=windows, flips=flips, augment=drawn)
    maps, factors = _composed(noise.augment, layers)
    maps[bare] = np.eye(3)[:2]
    factors[:, bare] = 1
    maps[flips, :, 0] *= -1
    composed = ComposedDraw(
        matrices=_to_pixels(maps, size).astype(np.float32),
        brightness=factors[0].astype(np.float32),
        contrast=factors[1].astype(np.float32),
        saturation=factors[2].astype(np.float32),
    )
    return NoiseDraw(windows=windows, flips=np.zeros_like(flips), augment=composed)


def center_windows(
    widths: npt.NDArray[np.int32], heights: npt.NDArray[np.int32], crop_pct: float
) -> npt.NDArray[np.int32]:
    """Return the clean evaluation crop: a centred square, `crop_pct` of the shorter side.

    Returns:
        int32 [images, 4]: top, left, bottom, right in source pixels.
    """
    side = np.maximum(np.rint(np.minimum(widths, heights) * crop_pct), 1).astype(np.int32)
    left, top = (widths - side) // 2, (heights - side) // 2
    return np.stack([top, left, top + side, left + side], axis=1).astype(np.int32)


def _crop_windows(
    crop: Crop,
    widths: npt.NDArray[np.int32],
    heights: npt.NDArray[np.int32],
    uniforms: Doubles,
) -> npt.NDArray[np.int32]:
    w, h = widths.astype(np.float64)[:, None], heights.astype(np.float64)[:, None]
    u = uniforms[:, : 2 * _CROP_ATTEMPTS].reshape(len(widths), 2, _CROP_ATTEMPTS)
    area = (crop.min_area + u[:, 0] * (crop.max_area - crop.min_area)) * w * h
    aspect = np.exp((2 * u[:, 1] - 1) * np.log(crop.max_aspect))
    crop_w, crop_h = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (crop_w >= 1) & (crop_h >= 1) & (crop_w <= w) & (crop_h <= h)
    pick = fits.argmax(axis=1)[:, None]
    crop_w = np.take_along_axis(crop_w, pick, axis=1)
    crop_h = np.take_along_axis(crop_h, pick, axis=1)
    # None of the attempts fits: the largest centred window of an allowed aspect ratio.
    ratio = np.clip(w / h, 1 / crop.max_aspect, crop.max_aspect)
    some = fits.any(axis=1, keepdims=True)
    crop_w = np.where(some, crop_w, np.maximum(np.rint(np.minimum(w, h * ratio)), 1))
    crop_h = np.where(some, crop_h, np.maximum(np.rint(np.minimum(h, w / ratio)), 1))
    where = uniforms[:, 2 * _CROP_ATTEMPTS :]
    left = np.where(some, np.floor(where[:, :1] * (w - crop_w + 1)), (w - crop_w) // 2)
    top = np.where(some, np.floor(where[:, 1:] * (h - crop_h + 1)), (h - crop_h) // 2)
    return np.concatenate([top, left, top + crop_h, left + crop_w], axis=1).astype(np.int32)


def _composed(spec: ComposedAugment, uniforms: Doubles) -> tuple[Doubles, Doubles]:
    """Return affine maps [count, 2, 3] in units of half the image, and factors [3, count]."""
    count = len(uniforms)
    maps = np.tile(np.eye(3), (count, 1, 1))
    factors = np.ones((3, count))
    names = sorted(spec.ops)
    for layer in range(spec.n if names else 0):
        chosen = (uniforms[:, layer, 0] * len(names)).astype(np.intp)
        strength = 2 * uniforms[:, layer, 1] - 1
        if spec.magnitude == "fixed":
            strength = np.where(strength < 0, -1.0, 1.0)
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
