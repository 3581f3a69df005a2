"""Two sets of labels of the same images, or one and what people say: where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from plstore.labels import LabelSet
from plstore.report.held import known_source, labels_source
from plstore.report.snapshot import Snapshot

SHIFT_BINS: Final = 40
MOST_CLASSES: Final = 24
"""Classes of a matrix that a page shows; of more, those that are confused most."""

KNOWN: Final = "known"
"""Compared with what people say an image is, in place of other labels."""

_PAIRS: Final = """
with a as ({a}), b as ({b})
select
    a.class_id as a_id,
    b.class_id as b_id,
    count(*) as n,
    sum(a.confidence::double) as a_sum,
    sum(b.confidence::double) as b_sum
from a inner join b on a.sample_id = b.sample_id
group by all order by all
"""
_SHIFT: Final = """
with a as ({a}), b as ({b})
select
    least({bins} - 1, floor((b.confidence - a.confidence + 1) / 2 * {bins}))::int as bin,
    count(*) as n
from a inner join b on a.sample_id = b.sample_id
where b.confidence is not null
group by all order by all
"""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Images that are one class by A and another by B."""

    a_id: int
    b_id: int
    num_images: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Labels A against labels B, on the images that both have.

    Attributes:
        num_images: Both have.
        num_same: Of the same class.
        a_mean: Mean confidence of A.
        b_mean: Of B; None where that is what people say.
        class_ids: Of the matrix, in order.
        matrix: int64 [classes, classes], images by A's class and B's.
        num_classes: That there are in all.
        pairs: The classes that are most often taken for another.
        shift: Images by B's confidence less A's, in bins from -1 to 1; empty without B's.
    """

    num_images: int
    num_same: int
    a_mean: float | None
    b_mean: float | None
    class_ids: Sequence[int]
    matrix: Ints
    num_classes: int
    pairs: Sequence[Pair]
    shift: Sequence[int]

    @property
    def agreement(self) -> float | None:
        """Share of images of the same class."""
        return self.num_same / self.num_images if self.num_images else None


def previous_labels(snapshot: Snapshot, labels: LabelSet) -> LabelSet | None:
    """Return the labels before these: of the same images, of an earlier iteration."""
    beside = [s for s in snapshot.labels(labels.split) if s != labels]
    earlier = [s for s in beside if s.iteration < labels.iteration]
    found = earlier or beside
    return found[-1] if found else None


def compare(snapshot: Snapshot, a: LabelSet, b: LabelSet | str) -> Comparison:
    """Compare labels with others of the same split, or with `KNOWN`; once for a snapshot."""
    return snapshot.once(("compare", a, b), lambda: _compare(snapshot, a, b))


def _compare(snapshot: Snapshot, a: LabelSet, b: LabelSet | str) -> Comparison:
    first = labels_source(snapshot, a, "a")
    second = (
        labels_source(snapshot, b, "b") if isinstance(b, LabelSet) else known_source(snapshot)
    )
    parts = {"a": f"from {first.sql}", "b": f"from {second.sql}"}
    parameters = {**first.parameters, **second.parameters}
    rows = snapshot.table(_PAIRS.format(**parts), parameters)
    shift = [0] * SHIFT_BINS if b != KNOWN else []
    if shift:
        sql = _SHIFT.format(**parts, bins=SHIFT_BINS)
        for row in snapshot.rows(sql, parameters):
            shift[max(row["bin"], 0)] = row["n"]
    return _compared(
        *(rows[name].to_numpy().astype(np.int64) for name in ("a_id", "b_id", "n")),
        sums=[_sum(rows, name) for name in ("a_sum", "b_sum")],
        num_classes=len(snapshot.class_names),
        shift=shift,
    )


def _sum(rows: Any, name: str) -> float | None:  # noqa: ANN401  Arrow's table
    values = [v for v in rows[name].to_pylist() if v is not None]
    return sum(values) if values else None


def _compared(
    a_ids: Ints,
    b_ids: Ints,
    numbers: Ints,
    *,
    sums: Sequence[float | None],
    num_classes: int,
    shift: Sequence[int],
) -> Comparison:
    total, is_same = int(numbers.sum()), a_ids == b_ids
    wrong = np.where(is_same, 0, numbers)
    order = np.argsort(-wrong, kind="stable")[:100]
    pairs = [
        Pair(a_id=int(a_ids[n]), b_id=int(b_ids[n]), num_images=int(numbers[n]))
        for n in order
        if wrong[n]
    ]
    class_ids = _shown(a_ids, b_ids, wrong, num_classes)
    places = {class_id: place for place, class_id in enumerate(class_ids)}
    matrix = np.zeros((len(class_ids), len(class_ids)), np.int64)
    for a_id, b_id, n in zip(a_ids.tolist(), b_ids.tolist(), numbers.tolist(), strict=True):
        if a_id in places and b_id in places:
            matrix[places[a_id], places[b_id]] = n
    means = [None if s is None or not total else s / total for s in sums]
    return Comparison(
        num_images=total,
        num_same=int(numbers[is_same].sum()),
        a_mean=means[0],
        b_mean=means[1],
        class_ids=class_ids,
        matrix=matrix,
        num_classes=num_classes,
        pairs=pairs,
        shift=shift,
    )


def _shown(a_ids: Ints, b_ids: Ints, wrong: Ints, num_classes: int) -> list[int]:
    """Return the classes of the matrix: all, or those that are confused most, by number."""
    if num_classes <= MOST_CLASSES:
        return list(range(num_classes))
    size = int(max(num_classes, a_ids.max(initial=0) + 1, b_ids.max(initial=0) + 1))
    often = np.bincount(a_ids, wrong, size) + np.bincount(b_ids, wrong, size)
    return sorted(int(n) for n in np.argsort(-often, kind="stable")[:MOST_CLASSES])
