"""The `dense` codec: the top k as `topk` keeps them, and the shape of all the rest.

A class outside the top k is kept as the fourth root of its share of the k-th probability, in 18
steps (a byte each, in order of class id, after one byte that holds the number of steps). In
that scale a step costs about as much divergence for a likely class as for an unlikely one,
between temperatures 1 (where the square root would be best) and 4; steps of the logarithm
spend most of their bytes on classes of no weight.

Error bound. The top k are those of `topk`. For any other class, with r its share of the k-th
probability and r' the decoded one before the residual is shared out in proportion,
|r^(1/4) - r'^(1/4)| <= 1/36. The sum of all others is the residual, exactly.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.codec.distribution import Floats, Top
from plstore.codec.topk import kept, values
from plstore.errors import InputError

__all__ = ["STEPS", "decode_into", "kept", "tail", "values"]

STEPS = 18
_ZERO = 0.25  # a class of code STEPS is between 0 and half a step: decoded to a quarter


def tail(rows: Floats, top: Top) -> pa.BinaryArray | None:
    """Return the codes of all classes outside the top k, [rows] of 1 + classes - k bytes."""
    num_rows, num_classes = rows.shape
    k = top.class_ids.shape[1]
    width = 1 + num_classes - k
    others = np.ones(rows.shape, dtype=bool)
    np.put_along_axis(others, top.class_ids.astype(np.intp), values=False, axis=1)
    share = rows[others].reshape(num_rows, num_classes - k)
    share /= np.maximum(top.probs[:, -1:], np.float32(1e-38))
    codes = np.empty((num_rows, width), np.uint8)
    codes[:, 0] = STEPS
    codes[:, 1:] = np.rint((1 - np.sqrt(np.sqrt(share))) * STEPS)
    offsets = pa.py_buffer(np.arange(num_rows + 1, dtype=np.int32) * width)
    return pa.Array.from_buffers(pa.binary(), num_rows, [None, offsets, pa.py_buffer(codes)])


def decode_into(
    out: Floats,
    class_ids: npt.NDArray[np.int32],
    probs: Floats,
    residual: Floats,
    tail: npt.NDArray[np.uint8],
) -> None:
    """Fill float32 [rows, classes] with distributions that sum to 1 within 1e-6.

    Args:
        out: What to fill; rows and classes are its shape.
        class_ids: int32 [rows, k].
        probs: float32 [rows, k].
        residual: float32 [rows].
        tail: uint8 [rows, 1 + classes - k].

    Raises:
        InputError: If the tail is not of this codec or of another number of classes.
    """
    num_classes = out.shape[1]
    k = class_ids.shape[1]
    if tail.shape[1] != 1 + num_classes - k or (tail[:, 0] == 0).any():
        raise InputError(
            f"coded tails of {tail.shape[1]} bytes beside {k} classes; wanted "
            f"{1 + num_classes - k} for {num_classes} classes, the first not 0"
        )
    steps = int(tail[0, 0])
    if (tail[:, 0] != steps).any() or (tail[:, 1:] > steps).any():
        raise InputError(f"coded tails do not agree with their {steps} steps: damaged labels")
    shares = _shares(steps)[tail[:, 1:]]
    sums = shares.sum(axis=1, dtype=np.float64)
    scale = residual / np.where(sums > 0, sums, 1)
    shares *= scale[:, None].astype(np.float32)
    np.minimum(shares, probs[:, :1] * np.float32(1 - 2**-11), out=shares)  # the argmax leads
    others = np.ones(out.shape, dtype=bool)
    np.put_along_axis(others, class_ids.astype(np.intp), values=False, axis=1)
    out[others] = shares.reshape(-1)
    np.put_along_axis(out, class_ids.astype(np.intp), probs, axis=1)
    total = out.sum(axis=1, dtype=np.float64)
    out *= (1 / np.where(total > 0, total, 1)).astype(np.float32)[:, None]


@cache
def _shares(steps: int) -> npt.NDArray[np.float32]:
    roots = 1 - np.arange(steps + 1) / steps
    roots[-1] = _ZERO / steps
    return (roots**4).astype(np.float32)
