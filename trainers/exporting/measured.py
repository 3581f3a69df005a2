"""What the table `runs` says of a model's accuracy, with what that is worth."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

import pyarrow.compute as pc

from plstore.errors import PlstoreError
from plstore.store import Store
from trainers.evaluation.intervals import counted, wilson

_SPLITS: Final = ("validation", "test", "labeled")
_END: Final = "_accuracy"

Measurements = Counter[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The accuracy of a model on the images of a split.

    Attributes:
        split: Of the images.
        accuracy: In percent.
        num_images: Images of the split with that many right; None where no count of the images
            that there are now is this accuracy: it was measured on others.
        num_right: Of them.
        interval: Wilson's, of 95 %, in percent.
    """

    split: str
    accuracy: float
    num_images: int | None = None
    num_right: int | None = None
    interval: tuple[float, float] | None = None


def measured(store: Store, teacher_id: str) -> list[Measured]:
    """Return the last accuracy of a model on each split that it was measured on."""
    version = store.table("runs").version()
    there = _at(store, teacher_id, version)
    found = []
    for split in _SPLITS:
        values = sorted({value for name, value in there if name == f"{split}{_END}"})
        if values:
            last = values[0] if len(values) == 1 else _last(store, teacher_id, split, there)
            found.append(_with_interval(store, split, last))
    return found


def _with_interval(store: Store, split: str, accuracy: float) -> Measured:
    num_images = store.count_images(split)
    num_right = counted(accuracy, num_images)
    if num_right is None:
        return Measured(split=split, accuracy=accuracy)
    return Measured(
        split=split,
        accuracy=accuracy,
        num_images=num_images,
        num_right=num_right,
        interval=wilson(num_right, num_images),
    )


def _at(store: Store, teacher_id: str, version: int) -> Measurements:
    names = [f"{split}{_END}" for split in _SPLITS]
    where = (pc.field("run") == teacher_id) & pc.field("name").isin(names)
    rows = store.table("runs").read(version=version, columns=["name", "value"], where=where)
    return Counter((row["name"], row["value"]) for row in rows.to_pylist())


def _last(store: Store, teacher_id: str, split: str, there: Measurements) -> float:
    """Return what was measured last: what the first older version lacks.

    Versions that are gone tell no order any more; then the lowest is said.
    """
    name = f"{split}{_END}"
    values = {key: n for key, n in there.items() if key[0] == name}
    for version in range(store.table("runs").version() - 1, -1, -1):
        try:
            before = _at(store, teacher_id, version)
        except (PlstoreError, OSError):
            break
        newer = [value for (_, value), n in values.items() if before[name, value] < n]
        if newer:
            return min(newer)
    return min(value for _, value in values)
