"""What all codecs share: a check, the largest classes, rounding, the entropy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

CHUNK_ROWS = 512
"""Rows worked on at a time: 1,000 classes of them fit a cache."""

_DROPPED_BITS = np.uint32(13)  # float32 keeps 23 mantissa bits, the codecs 10
STEP = np.uint32(1 << int(_DROPPED_BITS))
_SUM_TOLERANCE = 1e-3
_NEAR = 2.0**-20


@dataclass(frozen=True, kw_only=True)
class Top:
    """The most probable classes of some distributions.

    Attributes:
        class_ids: int32 [rows, k], most probable first, the lowest class first on a tie.
        probs: float32 [rows, k], exact.
        residual: float64 [rows], the mass of all other classes.
    """

    class_ids: Ints
    probs: Floats
    residual: npt.NDArray[np.float64]


def check(probabilities: npt.NDArray[np.floating]) -> Floats:
    """Return the distributions as contiguous float32, or say which row is not one.

    Args:
        probabilities: float [rows, classes], each row 0 to 1 and summing to 1 within 1e-3.

    Raises:
        InputError: If the shape is not two-dimensional or a row is not a distribution.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] < 1:  # noqa: PLR2004  rows and classes
        raise InputError(
            f"probabilities have shape {probabilities.shape}; wanted [rows, classes]"
        )
    rows = np.ascontiguousarray(probabilities, dtype=np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        _check_chunk(rows[start : start + CHUNK_ROWS], start)
    return rows


def _check_chunk(rows: Floats, start: int) -> None:
    bad = ~(np.abs(rows.sum(axis=1) - 1) <= _SUM_TOLERANCE)
    bad |= rows.min(axis=1) < 0
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"row {start + row} of the probabilities is no distribution: minimum "
            f"{rows[row].min()}, sum {rows[row].sum()}; wanted values of 0 to 1 that sum to 1 "
            f"within {_SUM_TOLERANCE} (apply a softmax to logits first)"
        )


def largest(rows: Floats, k: int) -> Top:
    """Return the k most probable classes of distributions, a chunk of them at a time.

    Args:
        rows: float32 [rows, classes], contiguous, none negative.
        k: 1 to classes.
    """
    num_classes = rows.shape[1]
    if k < num_classes:
        ids = _classes_at_least(rows, _kth(rows, k), k)
    else:
        ids = np.broadcast_to(np.arange(num_classes), rows.shape)
    probs = np.take_along_axis(rows, ids, axis=1)
    order = np.argsort(-probs, axis=1, kind="stable")
    probs = np.take_along_axis(probs, order, axis=1)
    residual = np.clip(1 - probs.sum(axis=1, dtype=np.float64), 0, 1)
    if k == num_classes:
        residual[:] = 0
    class_ids = np.take_along_axis(ids, order, axis=1).astype(np.int32)
    return Top(class_ids=class_ids, probs=probs, residual=residual)


def _kth(rows: Floats, k: int) -> Floats:
    # As integers the bits of floats that are not negative have the same order, and are faster.
    place = rows.shape[1] - k
    bits = np.partition(rows.view(np.int32), place, axis=1)[:, place]
    return np.ascontiguousarray(bits).view(np.float32)


def _classes_at_least(rows: Floats, kth: Floats, k: int) -> npt.NDArray[np.intp]:
    """Return the k largest classes of each row in ascending order; ties to the lowest."""
    chosen = rows >= kth[:, None]
    flat = np.flatnonzero(chosen)
    if len(flat) != len(rows) * k:
        tied = np.flatnonzero(chosen.sum(axis=1) > k)
        above = rows[tied] > kth[tied, None]
        level = rows[tied] == kth[tied, None]
        places = np.cumsum(level, axis=1, dtype=np.int32)
        wanted = k - above.sum(axis=1, dtype=np.int32)
        chosen[tied] = above | (level & (places <= wanted[:, None]))
        flat = np.flatnonzero(chosen)
    classes: npt.NDArray[np.intp] = flat.reshape(len(rows), k) % rows.shape[1]
    return classes


def round_probs(top: Top, rival: npt.NDArray[np.floating]) -> Floats:
    """Return probabilities with a mantissa of 10 bits, the first still the largest.

    Args:
        top: The classes that are kept.
        rival: [rows], the most that any other class is decoded to.
    """
    bits = np.ascontiguousarray(top.probs).view(np.uint32)
    half = np.uint32(1 << (int(_DROPPED_BITS) - 1))
    rounded = (((bits + half) >> _DROPPED_BITS) << _DROPPED_BITS).view(np.float32)
    if rounded.shape[1] > 1:
        rival = np.maximum(rival, rounded[:, 1])
    tied = rounded[:, 0] <= rival * (1 + _NEAR)  # float32 could not tell them apart
    rounded[tied, 0] = (rounded[tied, 0].view(np.uint32) + STEP).view(np.float32)
    return np.asarray(rounded, np.float32)


def entropy(rows: Floats, scratch: Floats) -> Floats:
    """Return the entropy of distributions in nats, float32 [rows]."""
    logs = np.maximum(rows, np.float32(1e-30), out=scratch[: len(rows)])
    np.log(logs, out=logs)
    spread = -np.einsum("rc,rc->r", rows, logs)
    return np.asarray(np.maximum(spread, 0), np.float32)
