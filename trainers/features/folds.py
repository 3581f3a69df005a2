"""Cross-validation of a regression: its strength, and what it says of images it did not see.

Few validation images say little; the labeled images, each held out once, say more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from trainers.models.linear import STRENGTHS, WORSE_IN_A_ROW, Examples, Floats, Linear, fit

FOLDS: Final = 5
_FEW: Final = 500
"""Validation images from which they choose alone."""
_MOST: Final = 20_000
"""Labeled images up to which fitting so often is quick."""


@dataclass(frozen=True, kw_only=True)
class Folded:
    """What cross-validation found.

    Attributes:
        strength: C with the lowest loss on held-out and validation images.
        rows: int64, of the examples that were held out once.
        probabilities: float32 [rows, classes], by the fit that did not see them.
        accuracy: Of the rows, in percent.
        nll: Mean loss of rows and validation images, in nats.
    """

    strength: float
    rows: npt.NDArray[np.int64]
    probabilities: Floats
    accuracy: float
    nll: float


def is_wanted(num_labeled: int, num_validation: int) -> bool:
    """Whether validation images are too few to choose alone, and labeled ones not too many."""
    return num_validation < _FEW and num_labeled <= _MOST


def fold_of(class_ids: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Return the fold of each example, as many of each class in each; -1 of a lonely one.

    Args:
        class_ids: int64 [examples]. The only example of its class is never held out.
        seed: Of the draw.
    """
    folds = np.full(len(class_ids), -1)
    random = np.random.default_rng(seed)
    for class_id in np.unique(class_ids):
        members = random.permutation(np.flatnonzero(class_ids == class_id))
        if len(members) > 1:
            folds[members] = np.arange(len(members)) % FOLDS
    return folds


def cross_validate(
    examples: Examples,
    validation: Examples | None,
    *,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
) -> Folded | None:
    """Fit along a path of strengths without each fold in turn; None where none can be held out.

    Args:
        examples: Labeled images, with hard targets.
        validation: Further images that no fit sees; those of all folds are asked.
        seed: Of the folds.
        strengths: C to try, in ascending order; two that are worse in a row end it.
    """
    folds = fold_of(examples.targets.argmax(axis=1), seed)
    rows = np.flatnonzero(folds >= 0)
    if not len(rows):
        return None
    numbers = np.unique(folds[rows]).tolist()
    last: dict[int, Linear] = {}
    best, worse = None, 0
    for strength in strengths:
        last = {n: fit(_take(examples, folds != n), strength, last.get(n)) for n in numbers}
        found = _measured(examples, validation, folds, last)
        worse = 0 if best is None or found.nll < best.nll else worse + 1
        best = found if worse == 0 else best
        if worse == WORSE_IN_A_ROW:
            break
    return best


def _measured(
    examples: Examples,
    validation: Examples | None,
    folds: npt.NDArray[np.int64],
    fits: dict[int, Linear],
) -> Folded:
    """Return what the fits without each fold say of it, and of validation on average."""
    probs = np.zeros_like(examples.targets)
    losses: list[tuple[float, float]] = []
    for number, linear in fits.items():
        held_out = _take(examples, folds == number)
        probs[folds == number] = linear.probabilities(held_out.vectors)
        losses.append((held_out.nll(linear), len(held_out.weights)))
        if validation is not None:
            losses.append((validation.nll(linear), len(validation.weights) / len(fits)))
    values, counts = np.array(losses).T
    rows = np.flatnonzero(folds >= 0)
    right = probs.argmax(axis=1) == examples.targets.argmax(axis=1)
    strength = next(iter(fits.values())).strength
    return Folded(
        strength=float(strength or 0.0),
        rows=rows,
        probabilities=probs[rows],
        accuracy=float(100 * right[rows].mean()),
        nll=float(np.average(values, weights=counts)),
    )


def _take(examples: Examples, which: npt.NDArray[np.bool_]) -> Examples:
    return replace(
        examples,
        vectors=examples.vectors[which],
        targets=examples.targets[which],
        weights=examples.weights[which],
    )
