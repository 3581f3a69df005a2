"""The `topk` codec: the k most probable classes exactly enough, the rest as one number.

Error bound. A stored probability differs from the true one by at most 2^-11 of it (mantissa
rounded to 10 bits, to nearest); the first one by at most 2^-9, where rounding would take its
lead. The classes outside the top k share the residual evenly, so the total variation distance
to the true distribution is at most the residual + 2^-9. With k >= the number of classes only
the rounding remains. Where k is adaptive, the residual is at most 1 - mass, or k is at its cap.
"""

import numpy as np
import numpy.typing as npt

from plstore.codec.distribution import Floats, Top, round_probs


def kept(k: int, num_classes: int) -> int:
    """Return how many classes are kept with their probability."""
    return min(k, num_classes)


def tail(rows: Floats, top: Top) -> None:
    """Return nothing: there is no tail."""
    del rows, top


def values(top: Top, num_classes: int) -> tuple[Floats, Floats]:
    """Return (probs, residual), float32 [rows, k] and [rows]."""
    num_others = max(num_classes - top.probs.shape[1], 1)
    probs = round_probs(top, top.residual / num_others)
    return probs, top.residual.astype(np.float32)


def adaptive_counts(top: Top, mass: float) -> npt.NDArray[np.int64]:
    """Return the smallest k of each row whose classes hold the mass; at most all of `top`."""
    reached = np.cumsum(top.probs, axis=1, dtype=np.float64) >= mass
    counts = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, top.probs.shape[1])
    return np.asarray(counts, np.int64)


def decode_into(
    out: Floats, class_ids: npt.NDArray[np.int32], probs: Floats, residual: Floats
) -> None:
    """Fill float32 [rows, classes] with distributions that sum to 1 within 1e-6.

    Args:
        out: What to fill; rows and classes are its shape.
        class_ids: int32 [rows, k].
        probs: float32 [rows, k].
        residual: float32 [rows].
    """
    num_rows, num_classes = out.shape
    k = class_ids.shape[1]
    tail = residual if k < num_classes else np.zeros_like(residual)
    total = probs.sum(axis=1, dtype=np.float64) + tail
    total = np.where(total > 0, total, 1)
    out[:] = (tail / max(num_classes - k, 1) / total).astype(np.float32)[:, None]
    flat = np.arange(num_rows, dtype=np.int64)[:, None] * num_classes + class_ids
    out.reshape(-1)[flat] = probs / total[:, None]
