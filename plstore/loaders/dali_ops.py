"""Operations on pixels as DALI's operators do them, with their parameters as data.

The formulas follow `nvidia.dali.auto_aug`, so `Equalize` is OpenCV's, not Pillow's, and
`Sharpness` also changes the border. A fill has one value for all channels.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.auto_aug.core import select

from plstore.loaders.randaugment import GEOMETRIC, Dialect, Op, OpDraw, contrast_centre
from plstore.loaders.work import BackendSpec

Node = Any  # DALI's graph nodes are untyped
Arguments = Mapping[str, Node]

_ARGUMENTS: Final = ("ops", "values", "matrices", "kernels", "masks")
_CUTOUT_ARGUMENTS: Final = ("anchors", "shapes")
DTYPES: Final = {"ops": types.INT32, "masks": types.UINT8}
_SMOOTH: Final = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
_SAME: Final = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)


def argument_names(dialect: Dialect | None) -> tuple[str, ...]:
    """Return the inputs of a layer."""
    if dialect is None:
        return ()
    return _ARGUMENTS + (_CUTOUT_ARGUMENTS if Op.CUTOUT in dialect.ops else ())


def arguments(draw: OpDraw, dialect: Dialect, size: int) -> dict[str, Any]:
    """Return the inputs of every layer, by name and layer number, for `layer`."""
    places = np.zeros(len(Op), np.int32)
    for place, op in enumerate((Op.IDENTITY, *_others(dialect))):
        places[op] = place
    arrays: dict[str, Any] = {}
    for number in range(draw.ops.shape[1]):
        values, centres = draw.values[:, number], draw.centres[:, number]
        bits = np.clip(values, 0, 8).astype(np.int64)
        near = np.clip(centres - values[:, None], 0, size)[:, ::-1]
        far = np.clip(centres + values[:, None], 0, size)[:, ::-1]
        factors = values[:, None, None]
        found = {
            "ops": places[draw.ops[:, number]],
            "values": values,
            "matrices": draw.matrices[:, number],
            "kernels": factors * _SAME + (1 - factors) * _SMOOTH,
            "masks": (255 ^ ((1 << (8 - bits)) - 1)).astype(np.uint8),
            "anchors": near.astype(np.float32),
            "shapes": (far - near).astype(np.float32),
        }
        for name in argument_names(dialect):
            arrays[f"{name}-{number}"] = np.ascontiguousarray(found[name])
    return arrays


def layer(images: Node, inputs: Arguments, spec: BackendSpec, *, on_gpu: bool) -> Node:
    """Return images after one layer of operations."""
    dialect, fill = spec.dialect, spec.fill
    if dialect is None or fill is None:
        return images
    near = {name: inputs[name].gpu() if on_gpu else inputs[name] for name in _BESIDE}
    operations = [
        _operation(op, dialect, spec, sum(fill) / len(fill))
        for op in (Op.IDENTITY, *_others(dialect))
    ]
    return select(operations, inputs["ops"], images, {**inputs, **near})


_BESIDE: Final = ("kernels", "masks")  # inputs that must be where the images are


def _others(dialect: Dialect) -> tuple[Op, ...]:
    return tuple(op for op in dialect.ops if op is not Op.IDENTITY)


def _operation(
    op: Op, dialect: Dialect, spec: BackendSpec, fill: float
) -> Callable[[Node, Arguments], Node]:
    gray = spec.format.channels == 1
    if op in GEOMETRIC:
        interpolation = types.INTERP_LINEAR if dialect.bilinear else types.INTERP_NN
        return lambda images, inputs: fn.warp_affine(
            images,
            matrix=inputs["matrices"],
            inverse_map=True,
            interp_type=interpolation,
            fill_value=fill,
        )
    if op is Op.CUTOUT:
        return lambda images, inputs: fn.erase(
            images,
            anchor=inputs["anchors"],
            shape=inputs["shapes"],
            axis_names="HW",
            fill_value=fill,
        )
    if op is Op.CONTRAST:
        centre = contrast_centre(dialect, spec.format.size)
        return lambda images, inputs: _contrast(images, inputs["values"], centre, gray=gray)
    if gray and op is Op.COLOR:
        return _SIMPLE[Op.IDENTITY]
    return _SIMPLE[op]


def _contrast(images: Node, factors: Node, centre: float | None, *, gray: bool) -> Node:
    if centre is not None:
        return fn.brightness_contrast(images, contrast=factors, contrast_center=centre)
    means = fn.reductions.mean(images, axis_names="HW", keep_dims=True)
    if not gray:
        weights = types.Constant(np.array([0.299, 0.587, 0.114], np.float32))
        means = fn.reductions.sum(means * weights, axis_names="C", keep_dims=True)
    return fn.cast_like(means + (images - means) * factors, images)


def _auto_contrast(images: Node, _: Arguments) -> Node:
    low = fn.reductions.min(images, axis_names="HW", keep_dims=True)
    high = fn.reductions.max(images, axis_names="HW", keep_dims=True)
    span = high - low
    flat = span == 0
    scale = 255 / (span * (flat ^ True) + types.Constant(255, dtype=types.UINT8) * flat)
    return fn.cast_like((images - low * (flat ^ True)) * scale, images)


def _solarize(images: Node, inputs: Arguments) -> Node:
    below = images < inputs["values"]
    inverted = types.Constant(255, dtype=types.UINT8) - images
    return below * images + (below ^ True) * inverted


def _solarize_add(images: Node, inputs: Arguments) -> Node:
    dark = images < types.Constant(128, dtype=types.UINT8)
    return fn.cast_like(images + dark * inputs["values"], images)


_SIMPLE: Final[Mapping[Op, Callable[[Node, Arguments], Node]]] = {
    Op.IDENTITY: lambda images, _: images,
    Op.AUTO_CONTRAST: _auto_contrast,
    Op.EQUALIZE: lambda images, _: fn.equalize(images),
    Op.INVERT: lambda images, _: types.Constant(255, dtype=types.UINT8) - images,
    Op.POSTERIZE: lambda images, inputs: images & inputs["masks"],
    Op.SOLARIZE: _solarize,
    Op.SOLARIZE_ADD: _solarize_add,
    Op.COLOR: lambda images, inputs: fn.saturation(images, saturation=inputs["values"]),
    Op.BRIGHTNESS: lambda images, inputs: fn.brightness(images, brightness=inputs["values"]),
    Op.SHARPNESS: lambda images, inputs: fn.filter(images, inputs["kernels"]),
}
