"""Labels in a table, one class a row, as classes of a store and as distributions."""

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from plstore.exchange.classes import UNKNOWN, Value, class_column, marks_unknown

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_NEAR_EVEN = 0.9  # an even confidence, rounded down, is this part of it at least
_LEAD = 1 + 2.0**-10


def classes_of(values: Sequence[Value], class_names: Sequence[str]) -> list[str | None]:
    """Return a column of labels as names of classes; None where one is missing.

    A class of the store is taken as it is spelled, also one named NA. Otherwise see
    `class_column`; -1 beside class numbers is missing.

    Args:
        values: Of a column.
        class_names: Of the store.
    """
    known = set(class_names)
    names = class_column(values)
    if UNKNOWN not in known and marks_unknown(names):
        names = [None if name == UNKNOWN else name for name in names]
    spelled = [unicodedata.normalize("NFC", str(value).strip()) for value in values]
    return [
        text if text in known and value is not None else name
        for value, text, name in zip(values, spelled, names, strict=True)
    ]


def wrong_confidence(
    confidence: npt.NDArray[np.float64], num_classes: int
) -> npt.NDArray[np.bool_]:
    """Return which confidences cannot be those of the most probable of all classes.

    Such a one is at most 1, and not below an even share of the classes but for rounding.
    """
    least = _NEAR_EVEN / num_classes if num_classes > 1 else 1
    return ~((confidence >= least) & (confidence <= 1))


def spread(class_ids: Ints, confidence: npt.NDArray[np.float64], num_classes: int) -> Floats:
    """Return distributions: a class with its confidence, the others with even shares.

    The label says nothing of the others, as a `topk` label says nothing of those outside its
    top. Without a confidence (1) it is certain.

    Args:
        class_ids: int64 [rows].
        confidence: float64 [rows], see `wrong_confidence`.
        num_classes: Of the store.

    Returns:
        float32 [rows, num_classes]; the class leads in each row.
    """
    if num_classes == 1:
        return np.ones((len(class_ids), 1), np.float32)
    leading = np.minimum(np.maximum(confidence, _LEAD / num_classes), 1)
    rows = np.empty((len(class_ids), num_classes), np.float32)
    rows[:] = ((1 - leading) / (num_classes - 1))[:, None]
    rows[np.arange(len(class_ids)), class_ids] = leading
    return rows
