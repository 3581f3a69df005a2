"""RandAugment with its dialect said: what "N operations of magnitude M" means, as numbers.

RandAugment (Cubuk et al. 2020; Noisy Student, section 3.1: N = 2, M = 27) draws operations from
a list, with replacement. Libraries have different lists and different scales for M, so the same
two numbers are different noise. Here a dialect is named, and all of its random choices come out
as arrays that every backend executes alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError
from plstore.loaders.settings import check_choice, check_kind, check_number, check_whole

Doubles = npt.NDArray[np.float64]
DialectName = Literal["noisystudent", "timm", "torchvision", "dali"]


class Op(IntEnum):
    """An operation; its value is in the unit that stands beside it."""

    IDENTITY = 0
    AUTO_CONTRAST = 1
    EQUALIZE = 2
    INVERT = 3
    ROTATE = 4  # degrees
    POSTERIZE = 5  # bits kept, at least 1
    SOLARIZE = 6  # values from this one on are inverted
    SOLARIZE_ADD = 7  # added to values below 128
    COLOR = 8  # factor; 0 is gray, 1 no change
    CONTRAST = 9  # factor
    BRIGHTNESS = 10  # factor
    SHARPNESS = 11  # factor; 0 is smoothed, 1 no change
    SHEAR_X = 12  # pixels a pixel of height
    SHEAR_Y = 13  # pixels a pixel of width
    TRANSLATE_X = 14  # pixels
    TRANSLATE_Y = 15  # pixels
    CUTOUT = 16  # pixels from the centre to the side of the square


GEOMETRIC: Final = (Op.ROTATE, Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y)
_ENHANCE: Final = (Op.COLOR, Op.CONTRAST, Op.BRIGHTNESS, Op.SHARPNESS)
DRAWS_PER_LAYER: Final = 8
MOST_LAYERS: Final = 8
_LARGEST_M: Final = 1000.0
_MOST_PIXELS: Final = 100_000.0


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """`n` operations of magnitude `m`, as a dialect understands them.

    Attributes:
        n: Operations an image gets, 0 to 8.
        m: Magnitude, 0 to 1,000. In `noisystudent` and `timm` 10 is the end of AutoAugment's
            scale; in `torchvision` and `dali` it is a bin of 31, 0 to 30.
        dialect: Whose list and scale:

            * `noisystudent`: the official code's (google-research/noisystudent,
              randaugment.py): 16 operations with Cutout, a scale without an end (M = 27 rotates
              by 81 degrees), nearest-neighbour warps, gray 128 outside.
            * `timm`: 15 operations, half of them skipped (`probability`), M held to 10 unless
              `max_magnitude` says more; bilinear.
            * `torchvision`: 14 operations, nearest-neighbour, black outside.
            * `dali`: the 14 of `nvidia.dali.auto_aug.rand_augment`, bilinear, gray 128 outside.
        probability: Of each operation, 0 to 1; the dialect's (`timm` 0.5, else 1) unless
            given.
        magnitude_std: `timm`: standard deviation of the magnitude (its `mstd`), 0 to 1,000.
        max_magnitude: `timm`: end of the scale (its `mmax`), above 0; 10 unless given.
        increasing: `timm`: operations that grow with M (its `inc1`).
        translate_const: `noisystudent`: pixels of a translation at magnitude 10, to 100,000.
        cutout_const: `noisystudent`: half a side of the square at magnitude 10, pixels, to
            100,000.
    """

    n: int = 2
    m: float = 27
    dialect: DialectName = "noisystudent"
    probability: float | None = None
    magnitude_std: float = 0.0
    max_magnitude: float | None = None
    increasing: bool = False
    translate_const: float = 100.0
    cutout_const: float = 40.0

    def __post_init__(self) -> None:
        """Check every setting, and the numbers against the dialect.

        Raises:
            InputError: If the dialect is unknown, or does not know a magnitude or an option,
                or a number is out of range.
        """
        check_choice("RandAugment dialect", self.dialect, DIALECTS)
        check_whole("RandAugment n", self.n, low=0, high=MOST_LAYERS)
        check_number("RandAugment m", self.m, low=0, high=_LARGEST_M)
        if self.probability is not None:
            check_number("RandAugment probability", self.probability, low=0, high=1)
        std, end = self.magnitude_std, self.max_magnitude
        check_number("RandAugment magnitude_std", std, low=0, high=_LARGEST_M)
        if end is not None:
            check_number("RandAugment max_magnitude", end, low=0, high=_LARGEST_M, above=True)
        check_kind("RandAugment increasing", self.increasing, bool)
        for name in ("translate_const", "cutout_const"):
            check_number(f"RandAugment {name}", getattr(self, name), low=0, high=_MOST_PIXELS)
        self._check_dialect()

    def _check_dialect(self) -> None:
        if self.dialect in {"torchvision", "dali"} and (self.m > _LAST_BIN or self.m % 1):
            raise InputError(
                f"RandAugment m is {self.m}; in the dialect {self.dialect!r} it is a bin, a "
                f"whole number from 0 to {_LAST_BIN}"
            )
        own = (self.magnitude_std, self.max_magnitude, self.increasing)
        if self.dialect != "timm" and own != (0.0, None, False):
            raise InputError(
                "magnitude_std, max_magnitude and increasing are options of the dialect "
                f"'timm'; found them with {self.dialect!r}"
            )


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a dialect's operations are executed.

    Attributes:
        ops: Its list, in the order in which they are drawn.
        bilinear: Whether warps interpolate, or take the nearest pixel.
        fill: Value outside the image, 0 to 255; None for the mean colour of the data config.
        probability: Of each operation.
        mean_contrast: Whether contrast is about the image's own mean gray; else about the
            official code's constant, see `contrast_centre`.
        magnitudes: (spec, op, levels, pixels a side) to the op's value, before its sign.
    """

    ops: tuple[Op, ...]
    bilinear: bool
    fill: int | None
    probability: float
    mean_contrast: bool
    magnitudes: Callable[[RandAugment, Op, Doubles, int], Doubles]


@dataclass(frozen=True, kw_only=True)
class OpDraw:
    """The operations of some images, as numbers.

    Attributes:
        ops: uint8 [images, n], of `Op`, in the order in which they are done.
        values: float32 [images, n], in the op's unit, signed.
        matrices: float32 [images, n, 2, 3]: from pixels of the result to pixels of the image,
            as (x, y) with (0.5, 0.5) the centre of the first; no change where the op is none.
        centres: int32 [images, n, 2]: pixel (x, y) about which Cutout cuts.
    """

    ops: npt.NDArray[np.uint8]
    values: npt.NDArray[np.float32]
    matrices: npt.NDArray[np.float32]
    centres: npt.NDArray[np.int32]

    def without(self, bare: npt.NDArray[np.bool_]) -> "OpDraw":
        """Return the same with no operation for some images, bool [images]."""
        if not bare.any():
            return self
        rows = bare[:, None]
        none = np.eye(2, 3, dtype=np.float32)
        return OpDraw(
            ops=np.where(rows, np.uint8(Op.IDENTITY), self.ops),
            values=np.where(rows, np.float32(0), self.values),
            matrices=np.where(rows[:, :, None, None], none, self.matrices),
            centres=self.centres,
        )


def draw_ops(spec: RandAugment, size: int, uniforms: Doubles) -> OpDraw:
    """Turn uniform numbers into operations.

    Args:
        spec: What is drawn.
        size: Pixels a side of the images.
        uniforms: float64 [images, n, DRAWS_PER_LAYER], 0 to 1.
    """
    dialect = DIALECTS[spec.dialect]
    u = np.moveaxis(uniforms, 2, 0)
    chosen = np.array(dialect.ops, np.uint8)[(u[0] * len(dialect.ops)).astype(np.intp)]
    probability = dialect.probability if spec.probability is None else spec.probability
    chosen[u[1] >= probability] = Op.IDENTITY
    levels = np.full(chosen.shape, float(spec.m))
    if spec.magnitude_std:  # Box and Muller
        normal = np.sqrt(-2 * np.log1p(-u[3])) * np.cos(2 * np.pi * u[4])
        levels += spec.magnitude_std * normal
    if spec.dialect == "timm":
        end = _LEVELS if spec.max_magnitude is None else spec.max_magnitude
        levels = levels.clip(0, end)
    signs = np.where(u[2] < 0.5, -1.0, 1.0)  # noqa: PLR2004  either way, evenly
    values = np.zeros(chosen.shape)
    for op in dialect.ops:
        here = chosen == op
        if here.any():
            signed = np.where(_is_signed(spec, op), signs[here], 1.0)
            values[here] = _value(spec, op, levels[here], signed, size)
    return OpDraw(
        ops=chosen,
        values=values.astype(np.float32),
        matrices=_matrices(chosen, values, size, centred=spec.dialect == "noisystudent"),
        centres=np.stack([u[5] * size, u[6] * size], axis=-1).astype(np.int32),
    )


def contrast_centre(dialect: Dialect, size: int) -> float | None:
    """Return the gray about which contrast is changed; None for the image's own mean.

    The official code divides the number of pixels, not the sum of their values, by 256, so that
    images of 256 x 256 and more are moved away from white.
    """
    return None if dialect.mean_contrast else float(min(size * size // 256, 255))


def _is_signed(spec: RandAugment, op: Op) -> bool:
    if op in GEOMETRIC:
        return True
    around_one = spec.dialect in {"torchvision", "dali"} or spec.increasing
    return op in _ENHANCE and around_one


def _value(spec: RandAugment, op: Op, levels: Doubles, signs: Doubles, size: int) -> Doubles:
    values = DIALECTS[spec.dialect].magnitudes(spec, op, levels, size)
    if op is Op.POSTERIZE:
        return np.maximum(values, 1)  # a black image teaches nothing, and Pillow refuses it
    if op in _ENHANCE and _is_signed(spec, op):
        lowest = 0.1 if spec.dialect == "timm" else 0.0
        return np.maximum(1 + signs * values, lowest)
    return signs * values


def _noisystudent(spec: RandAugment, op: Op, levels: Doubles, _: int) -> Doubles:
    share = levels / _LEVELS
    whole = {
        Op.POSTERIZE: 4.0,
        Op.SOLARIZE: 256.0,
        Op.SOLARIZE_ADD: 110.0,
        Op.CUTOUT: spec.cutout_const,
    }
    if op in whole:
        return np.floor(share * whole[op])
    if op in {Op.TRANSLATE_X, Op.TRANSLATE_Y}:
        return share * spec.translate_const
    return share * 1.8 + 0.1 if op in _ENHANCE else share * _WARPS.get(op, 0.0)


def _timm(spec: RandAugment, op: Op, levels: Doubles, size: int) -> Doubles:
    share = levels / _LEVELS
    if op in {Op.TRANSLATE_X, Op.TRANSLATE_Y}:
        return share * 0.45 * size
    if op is Op.POSTERIZE:
        bits = np.floor(share * 4)
        return 4 - bits if spec.increasing else bits
    if op is Op.SOLARIZE:
        threshold = np.minimum(256, np.floor(share * 256))
        return 256 - threshold if spec.increasing else threshold
    if op is Op.SOLARIZE_ADD:
        return np.minimum(128, np.floor(share * 110))
    if op in _ENHANCE:
        return share * 0.9 if spec.increasing else share * 1.8 + 0.1
    return share * _WARPS.get(op, 0.0)


def _torchvision(_: RandAugment, op: Op, levels: Doubles, size: int) -> Doubles:
    share = levels / _LAST_BIN
    if op in {Op.TRANSLATE_X, Op.TRANSLATE_Y}:
        return np.floor(share * 150 / 331 * size)
    if op is Op.POSTERIZE:
        return 8 - np.round(levels / (_LAST_BIN / 4))
    if op is Op.SOLARIZE:
        return np.ceil(255 * (1 - share))
    return share * 0.9 if op in _ENHANCE else share * _WARPS.get(op, 0.0)


def _dali(_: RandAugment, op: Op, levels: Doubles, size: int) -> Doubles:
    share = levels / _LAST_BIN
    if op in {Op.TRANSLATE_X, Op.TRANSLATE_Y}:
        return share * 100 / 224 * size
    if op is Op.POSTERIZE:
        return 8 - np.round(share * 4)
    if op is Op.SOLARIZE:
        return np.ceil(256 * (1 - share))
    return share * 0.9 if op in _ENHANCE else share * _WARPS.get(op, 0.0)


def _matrices(
    ops: npt.NDArray[np.uint8], values: Doubles, size: int, *, centred: bool
) -> npt.NDArray[np.float32]:
    """Return the warps. `centred`: the official code counts from the first pixel's centre."""
    maps = np.zeros((*ops.shape, 2, 3))
    maps[..., 0, 0] = maps[..., 1, 1] = 1
    for op, (row, column) in _SHEARS.items():
        here = ops == op
        maps[here, row, column] = values[here]
        if centred:
            maps[here, row, 2] = -0.5 * values[here]
    for op, row in ((Op.TRANSLATE_X, 0), (Op.TRANSLATE_Y, 1)):
        here = ops == op
        maps[here, row, 2] = values[here]
    here = ops == Op.ROTATE
    angles, middle = np.deg2rad(values[here]), size / 2
    cos, sin = np.cos(angles), np.sin(angles)
    maps[here, 0] = np.stack([cos, -sin, middle * (1 - cos + sin)], axis=-1)
    maps[here, 1] = np.stack([sin, cos, middle * (1 - cos - sin)], axis=-1)
    return maps.astype(np.float32)


_LEVELS: Final = 10.0
_LAST_BIN: Final = 30
_WARPS: Final = {Op.ROTATE: 30.0, Op.SHEAR_X: 0.3, Op.SHEAR_Y: 0.3}
_SHEARS: Final = {Op.SHEAR_X: (0, 1), Op.SHEAR_Y: (1, 0)}
_SHARED: Final = (
    Op.AUTO_CONTRAST,
    Op.EQUALIZE,
    Op.ROTATE,
    Op.POSTERIZE,
    Op.SOLARIZE,
    *_ENHANCE,
    *GEOMETRIC[1:],
)

DIALECTS: Final[Mapping[str, Dialect]] = {
    "noisystudent": Dialect(
        ops=(*_SHARED, Op.INVERT, Op.SOLARIZE_ADD, Op.CUTOUT),
        bilinear=False,
        fill=128,
        probability=1.0,
        mean_contrast=False,
        magnitudes=_noisystudent,
    ),
    "timm": Dialect(
        ops=(*_SHARED, Op.INVERT, Op.SOLARIZE_ADD),
        bilinear=True,
        fill=None,
        probability=0.5,
        mean_contrast=True,
        magnitudes=_timm,
    ),
    "torchvision": Dialect(
        ops=(*_SHARED, Op.IDENTITY),
        bilinear=False,
        fill=0,
        probability=1.0,
        mean_contrast=True,
        magnitudes=_torchvision,
    ),
    "dali": Dialect(
        ops=(*_SHARED, Op.IDENTITY),
        bilinear=True,
        fill=128,
        probability=1.0,
        mean_contrast=True,
        magnitudes=_dali,
    ),
}
"""Dialects by name."""
