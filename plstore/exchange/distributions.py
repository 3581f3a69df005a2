"""What people call probabilities, as distributions; logits, by a softmax.

How far a row may be from a sum of 1, and how it is brought there:

* Within 2^-10 it is kept as it is.
* Within 3 * 2^-9 it is divided by its sum: a softmax in bfloat16 rounds the exponential, the
  sum and the quotient, each by 2^-9 of it at most.
* A row that is written with d decimals, 2 to 5, is rounded by half a unit a class: its sum may
  be as much as classes * 0.5 * 10^-d below 1, and above 1 as much as half a unit for each class
  that is not 0. What is missing is shared out evenly over all classes, what is too much is
  taken evenly from those above 0, so that no value moves further than rounding had moved it.
  (Of 1,000 classes with 3 decimals nearly all may be 0.000; dividing a confidence of 0.5 by
  the sum of what is left would give 0.9.)

Anything else is no distribution.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError

Floats = npt.NDArray[np.float32]
Place = Callable[[int], str]
"""Says where a row of an array comes from."""

HALF_PRECISION: Final = 3 * 2.0**-9
_AS_IT_IS = 2.0**-10
_DECIMALS = (2, 3, 4, 5)
_FLOAT_STEP = 2.0**-24  # how far a float32 of 0 to 1 may be from the decimals it was read from
_WELL_ABOVE = 1.1
_PERCENT = 100


def as_distributions(values: Floats, place: Place) -> Floats:
    """Return rows that sum to 1 within 1e-3; see the module for what is brought there.

    Args:
        values: float32 [rows, classes].
        place: Names a row, for the message.

    Raises:
        InputError: If a row is no distribution; the message says what it looks like.
    """
    _check_finite(values, place, allowed=None)
    wrong = ~_are_near(values)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{place(row)} {_verdict(values[row])}")
    sums = values.sum(axis=1, dtype=np.float64)
    off = np.abs(sums - 1) > _AS_IT_IS
    if off.any():
        values = values.copy()
        values[off] = _summing_to_one(values[off], sums[off])
    return values


def softmax(values: Floats, place: Place) -> Floats:
    """Return the softmax of logits, float32 [rows, classes]; -inf is a class ruled out.

    Raises:
        InputError: If a row holds NaN or infinity, or rules out all classes.
    """
    _check_finite(values, place, allowed=-np.inf)
    largest = values.max(axis=1, keepdims=True)
    if not np.isfinite(largest).all():
        row = int(np.argmin(np.isfinite(largest[:, 0])))
        raise InputError(f"{place(row)} holds -inf for all classes; wanted logits")
    exponents = np.exp(values - largest)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


def check_logits(values: Floats, source: Path) -> None:
    """Stop if all of these rows are distributions already: a softmax would flatten them.

    Raises:
        InputError: If they are.
    """
    if len(values) and np.isfinite(values).all() and _are_near(values).all():
        raise InputError(
            f"the rows of {source} are probabilities already: none is negative, and each sums "
            "to 1. A softmax would flatten them; leave out --logits"
        )


def _check_finite(values: Floats, place: Place, allowed: float | None) -> None:
    good = np.isfinite(values)
    if allowed is not None:
        good |= values == allowed
    if not good.all():
        row, column = (int(i) for i in np.argwhere(~good)[0])
        raise InputError(
            f"{place(row)} holds {values[row, column]} for class {column}; wanted numbers"
        )


def _are_near(values: Floats) -> npt.NDArray[np.bool_]:
    """Return which finite rows are distributions but for rounding."""
    gaps = 1 - values.sum(axis=1, dtype=np.float64)
    near = (values.min(axis=1) >= 0) & (np.abs(gaps) <= HALF_PRECISION)
    far = np.flatnonzero(~near & (values.min(axis=1) >= 0) & (values.max(axis=1) > 0))
    if len(far):
        rounded = values[far]
        limits = HALF_PRECISION + _units(rounded) / 2 * _num_rounded(rounded, gaps[far])
        near[far] = np.abs(gaps[far]) <= limits
    return np.asarray(near, np.bool_)


def _units(rows: Floats) -> npt.NDArray[np.float64]:
    """Return what one unit of the last decimal is that each row has; 0 where it has many."""
    units = np.zeros(len(rows))
    for decimals in reversed(_DECIMALS):
        scaled = rows.astype(np.float64) * 10**decimals
        whole = np.abs(scaled - np.rint(scaled)).max(axis=1) <= _FLOAT_STEP * 10**decimals
        units[whole] = 10.0**-decimals
    return units


def _num_rounded(rows: Floats, gaps: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return how many values may have made up the gap: those at 0 were not rounded up."""
    return np.asarray(np.where(gaps > 0, rows.shape[1], np.count_nonzero(rows, axis=1)))


def _summing_to_one(rows: Floats, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    gaps = 1 - sums
    scaled = rows / sums[:, None]
    shares = (gaps / np.maximum(_num_rounded(rows, gaps), 1))[:, None]
    moved = np.where((gaps > 0)[:, None] | (rows > 0), np.maximum(rows + shares, 0), 0)
    moved /= moved.sum(axis=1, keepdims=True)
    return np.where((np.abs(gaps) <= HALF_PRECISION)[:, None], scaled, moved)


def _verdict(row: Floats) -> str:
    """Say what a row looks like that is no distribution."""
    found = (
        f"has the minimum {row.min():g}, the maximum {row.max():g} and the sum {row.sum():g}"
    )
    if row.min() >= 0 and abs(row.sum() / _PERCENT - 1) <= _WELL_ABOVE - 1:
        return f"{found}: percents? Divide them by 100"
    if row.min() < 0 or row.max() > _WELL_ABOVE:
        return f"{found}: no probabilities. Logits want --logits"
    return (
        f"{found}: no probabilities. Wanted values of 0 to 1 that sum to 1, but for rounding: "
        f"{HALF_PRECISION:.4f}, and half a unit of the last decimal a class"
    )
