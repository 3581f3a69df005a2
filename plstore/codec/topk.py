"""The `topk` codec: the k most probable classes exactly enough, the rest as one number.

Error bound. A stored probability differs from the true one by at most 2^-11 of it (mantissa
rounded to 10 bits, to nearest); the first one by at most 2^-9, where rounding would take its
lead. The classes outside the top k share the residual evenly, so the total variation distance
to the true distribution is at most the residual + 2^-9. With k >= the number of classes only
the rounding remains.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.errors import InputError
from plstore.schema import LABEL_TYPE

Floats = npt.NDArray[np.float32]

_DROPPED_BITS = np.uint32(13)  # float32 keeps 23 mantissa bits, the codec 10
_STEP = np.uint32(1 << int(_DROPPED_BITS))
_CHUNK_ROWS = 2048  # argpartition of 1,000 classes is 1.8x faster in cache-sized chunks
_SUM_TOLERANCE = 1e-3


def check(probabilities: Floats) -> Floats:
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
    bad = ~(np.abs(rows.sum(axis=1, dtype=np.float64) - 1) <= _SUM_TOLERANCE)
    bad |= (rows < 0).any(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"row {row} of the probabilities is no distribution: minimum {rows[row].min()}, "
            f"sum {rows[row].sum()}; wanted values of 0 to 1 that sum to 1 "
            f"within {_SUM_TOLERANCE} (apply a softmax to logits first)"
        )
    return rows


def statistics(
    probabilities: Floats,
) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
    """Return (class_id, confidence, entropy), each [rows], of float [rows, classes].

    ``class_id`` is the argmax (the lowest class on a tie), ``confidence`` the exact float32
    maximum, ``entropy`` is in nats.
    """
    rows = check(probabilities)
    class_id = rows.argmax(axis=1).astype(np.int32)
    confidence = np.take_along_axis(rows, class_id[:, None].astype(np.intp), axis=1)[:, 0]
    logs = np.log(np.where(rows > 0, rows, np.float32(1)))
    entropy = -np.einsum("rc,rc->r", rows, logs)
    return class_id, confidence, np.maximum(entropy, 0).astype(np.float32)


def _round_mantissa(values: Floats) -> Floats:
    bits = np.ascontiguousarray(values).view(np.uint32)
    half = np.uint32(1 << (int(_DROPPED_BITS) - 1))
    return (((bits + half) >> _DROPPED_BITS) << _DROPPED_BITS).view(np.float32)


def _rounded(exact: Floats, tail: npt.NDArray[np.float64]) -> Floats:
    # Rounding may tie the first class with the second, or let it sink below the even share of
    # those that are not kept: one step up keeps the argmax in every row.
    rounded = _round_mantissa(exact)
    rivals = np.maximum(tail, rounded[:, 1]) if rounded.shape[1] > 1 else tail
    tied = rounded[:, 0] <= rivals
    rounded[tied, 0] = (rounded[tied, 0].view(np.uint32) + _STEP).view(np.float32)
    return rounded


def _largest(rows: Floats, k: int) -> npt.NDArray[np.intp]:
    num_classes = rows.shape[1]
    if k < num_classes:
        part = np.argpartition(rows, num_classes - k, axis=1)[:, num_classes - k :]
        part.sort(axis=1)  # ties below go to the lowest class
    else:
        part = np.broadcast_to(np.arange(num_classes), rows.shape)
    order = np.argsort(-np.take_along_axis(rows, part, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(part, order, axis=1)
    return _put_argmax_first(top, rows.argmax(axis=1))


def _put_argmax_first(
    top: npt.NDArray[np.intp], argmax: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    # argpartition may cut a tie for the maximum arbitrarily: the argmax must stay, and lead.
    wrong = np.flatnonzero(top[:, 0] != argmax)
    for row in wrong:
        rest = top[row][top[row] != argmax[row]]
        top[row] = np.concatenate([[argmax[row]], rest[: top.shape[1] - 1]])
    return top


def encode(probabilities: Floats, *, k: int = 20) -> pa.StructArray:
    """Encode distributions as `LABEL_TYPE`.

    Args:
        probabilities: float [rows, classes], rows summing to 1 within 1e-3.
        k: Classes kept, at least 1; more than the number of classes keeps all.

    Raises:
        InputError: If a row is not a distribution or k is below 1.
    """
    if k < 1:
        raise InputError(f"k is {k}; wanted at least 1 class to keep")
    rows = check(probabilities)
    k = min(k, rows.shape[1])
    chunks = [
        _largest(rows[start : start + _CHUNK_ROWS], k)
        for start in range(0, len(rows), _CHUNK_ROWS)
    ]
    top = np.concatenate(chunks) if chunks else np.empty((0, k), dtype=np.intp)
    exact = np.take_along_axis(rows, top, axis=1)
    residual = np.clip(1 - exact.sum(axis=1, dtype=np.float64), 0, 1)
    if k == rows.shape[1]:
        residual[:] = 0
    offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * k)
    tail = residual / max(rows.shape[1] - k, 1)
    class_ids = pa.ListArray.from_arrays(offsets, pa.array(top.ravel().astype(np.int32)))
    probs = pa.ListArray.from_arrays(offsets, pa.array(_rounded(exact, tail).ravel()))
    return pa.StructArray.from_arrays(
        [class_ids, probs, pa.array(residual.astype(np.float32))], fields=list(LABEL_TYPE)
    )


def decode(labels: pa.StructArray, num_classes: int) -> Floats:
    """Decode `LABEL_TYPE` to float32 [rows, num_classes], each row summing to 1 within 1e-6.

    The residual is shared evenly by the classes that were not kept. Null labels decode to
    zeros. The argmax of every row is its first stored class.

    Raises:
        InputError: If a stored class is outside 0 to num_classes - 1.
    """
    class_ids, probs, residual = labels.flatten()
    counts = class_ids.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    flat_ids = class_ids.flatten().to_numpy(zero_copy_only=False)
    if len(flat_ids) and not 0 <= flat_ids.min() <= flat_ids.max() < num_classes:
        raise InputError(
            f"labels hold classes {flat_ids.min()} to {flat_ids.max()}; "
            f"wanted 0 to {num_classes - 1}"
        )
    tail = residual.fill_null(0).to_numpy(zero_copy_only=False) / np.maximum(
        num_classes - counts, 1
    )
    rows = np.repeat(tail.astype(np.float64)[:, None], num_classes, axis=1)
    rows[np.repeat(np.arange(len(labels)), counts), flat_ids] = probs.flatten().to_numpy(
        zero_copy_only=False
    )
    sums = rows.sum(axis=1, keepdims=True)
    return (rows / np.where(sums > 0, sums, 1)).astype(np.float32)
