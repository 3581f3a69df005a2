"""The codec `hard`: the most probable class alone, as if it were certain.

Error bound. None: all else is lost. The class is kept; on the row itself, `confidence` and
`entropy` say how sure the teacher was.
"""

import numpy as np

from plstore.codec.distribution import Floats, Top


def kept(k: int, num_classes: int) -> int:
    """Return how many classes are kept with their probability."""
    return min(1, k, num_classes)


def values(top: Top, num_classes: int) -> tuple[Floats, Floats]:
    """Return (probs, residual), float32 [rows, 1] and [rows]."""
    del num_classes
    return np.ones_like(top.probs), np.zeros(len(top.probs), np.float32)


def tail(rows: Floats, top: Top) -> None:
    """Return nothing: there is no tail."""
    del rows, top
