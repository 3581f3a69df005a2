"""Which labeled images go to validation: those of lowest seeded hash that can be used.

The share holds in each class, with at least one image, and never all. An image that is in the
store keeps its split: the others are split, as many as the share then wants. So an
import that was stopped chooses the same images when it goes on, and a collection may grow.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from plstore.errors import InputError
from plstore.schema import ACCEPTED

Ints = npt.NDArray[np.intp]
Verdicts = Callable[[Sequence[int]], Iterator[str]]

_UNSEEN, _REFUSED, _USABLE = -1, 0, 1


@dataclass(frozen=True, kw_only=True)
class ValidationSplit:
    """How validation is split off.

    Attributes:
        fraction: Share of each class's labeled images, above 0 and below 1; None for none.
        seed: Of the hash of an image's name.
    """

    fraction: float | None
    seed: int

    def __post_init__(self) -> None:
        """Check the share."""
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise InputError(
                f"the validation fraction is {self.fraction}; wanted above 0 and below 1"
            )

    def hashes(self, keys: Sequence[str]) -> npt.NDArray[np.uint64]:
        """Return what orders names: uint64 [keys]."""
        found = (xxhash.xxh3_64_intdigest(key.encode(), self.seed) for key in keys)
        return np.fromiter(found, np.uint64, len(keys))

    def count(self, num_images: int) -> int:
        """Return how many of a class go to validation."""
        if self.fraction is None:
            return 0
        return max(min(max(round(self.fraction * num_images), 1), num_images - 1), 0)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The labeled images of one collection, by class, in the order of their hashes.

    Attributes:
        classes: Rows of each class, by its id, ordered by hash.
        usable: int8 [rows]: 1 and 0 for images of the store that are used or refused, else -1.
        in_validation: bool [rows]: images of the store that are there already.
        learned: Classes of which the store has a usable labeled image.
    """

    classes: dict[int, Ints]
    usable: npt.NDArray[np.int8]
    in_validation: npt.NDArray[np.bool_]
    learned: set[int]


def by_class(labels: npt.NDArray[np.int32], hashes: npt.NDArray[np.uint64]) -> dict[int, Ints]:
    """Return the rows of each class in the order of their hashes, ties in that of the rows."""
    order = np.lexsort((hashes, labels))
    names, starts = np.unique(labels[order], return_index=True)
    ends = [*starts[1:].tolist(), len(order)]
    parts = zip(names.tolist(), starts.tolist(), ends[: len(starts)], strict=True)
    return {name: order[start:end] for name, start, end in parts}


def split_by_name(validation: ValidationSplit, classes: dict[int, Ints]) -> Ints:
    """Return the rows that go to validation where nothing is known of any image."""
    drawn = [rows[: validation.count(len(rows))] for rows in classes.values()]
    return np.concatenate([np.empty(0, np.intp), *drawn])


def split_usable(
    validation: ValidationSplit, candidates: Candidates, verdicts: Verdicts
) -> tuple[Ints, dict[int, Counter[str]]]:
    """Return the rows that go to validation, and the classes that no image can teach.

    Images are looked at in the order of their hashes until enough can be used, and one more,
    which stays labeled.

    Args:
        validation: How.
        candidates: Among which.
        verdicts: Judges images by row; asked for each row once at most.

    Returns:
        The rows, and for each class without a usable image the verdicts on its images.
    """
    new = candidates.usable == _UNSEEN
    state = candidates.usable.copy()
    reasons: dict[int, str] = {}
    open_, drawn = dict(candidates.classes), [np.empty(0, np.intp)]
    lost: dict[int, Counter[str]] = {}
    while open_:
        unseen: list[int] = []
        for number, rows in list(open_.items()):
            have = int(candidates.in_validation[rows].sum())
            chosen, missing = _choose(validation, rows.tolist(), state, new, have)
            unseen += missing
            if missing:
                continue
            drawn.append(np.array(chosen, np.intp))
            del open_[number]
            if number not in candidates.learned and not (state[rows] != _REFUSED).any():
                found = [reasons.get(row, "refused before") for row in rows.tolist()]
                lost[number] = Counter(found)
        for row, verdict in zip(unseen, verdicts(unseen), strict=True):
            state[row] = _USABLE if verdict == ACCEPTED else _REFUSED
            reasons[row] = verdict
    return np.concatenate(drawn), lost


def _choose(
    validation: ValidationSplit,
    rows: Sequence[int],
    state: npt.NDArray[np.int8],
    new: npt.NDArray[np.bool_],
    have: int,
) -> tuple[list[int], list[int]]:
    """Return the rows of one class that go to validation, or those to be looked at first."""
    refused = usable = 0
    unseen = []
    for row in rows:
        if usable > validation.count(len(rows) - refused):
            break
        if state[row] == _UNSEEN:
            unseen.append(row)
        refused += state[row] == _REFUSED
        usable += state[row] != _REFUSED
    wanted = validation.count(len(rows) - refused) - have
    chosen: list[int] = []
    if unseen:
        return chosen, unseen
    for row in rows:
        if len(chosen) >= wanted:
            break
        if new[row] and state[row] == _UNSEEN:
            unseen.append(row)
        if new[row] and state[row] != _REFUSED:
            chosen.append(row)
    return chosen, unseen
