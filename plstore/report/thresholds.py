"""What a floor and a quota leave of a teacher's labels: from counts alone, so at once.

The counts by class and confidence are kept beside the labels; the arithmetic is that of
`plstore select --dry-run`, which the tests hold it to.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError
from plstore.labels import NUM_BUCKETS, LabelSet
from plstore.report.snapshot import Snapshot, labels_name
from plstore.selection import Balance, find_standing, pool_of_labels

_LABELED: Final = """
select class_id, confidence, (class_id = true_id)::int as is_right
from evaluated('validation', '')
where teacher_id = $teacher and iteration = $iteration
"""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Labels that may be chosen, counted, and how right such labels are on validation images.

    Attributes:
        labels: Whose.
        class_ids: int64 [cells], ascending.
        buckets: int64 [cells], of confidence: b holds what is above b / 1000.
        numbers: int64 [cells], labels in each.
        num_classes: Of the store.
        num_accepted: Unlabeled images that training may read.
        validation: float64 [images, 3]: class said, confidence, whether it is right.
    """

    labels: LabelSet
    class_ids: Ints
    buckets: Ints
    numbers: Ints
    num_classes: int
    num_accepted: int
    validation: npt.NDArray[np.float64]

    def histogram(self, class_id: int | None = None, bins: int = 50) -> list[int]:
        """Return labels by confidence in bins of one width, of one class or all."""
        here = slice(None) if class_id is None else self.class_ids == class_id
        places = self.buckets[here] * bins // NUM_BUCKETS
        sums = np.bincount(places, self.numbers[here], minlength=bins)
        return [int(n) for n in sums]

    def by_class(self, first: int = 0) -> Ints:
        """Return labels by class, int64 [classes], from a bucket on."""
        here = self.buckets >= first
        weights = self.numbers[here]
        sums = np.bincount(self.class_ids[here], weights, minlength=self.num_classes)
        return sums.astype(np.int64)


def counts_of(snapshot: Snapshot, labels: LabelSet) -> Counts:
    """Return the counts of labels; they are made once for a snapshot."""
    return snapshot.once(("counts", labels), lambda: _count(snapshot, labels))


def _count(snapshot: Snapshot, labels: LabelSet) -> Counts:
    store = snapshot.store
    shards = store.table("soft_labels").shards(snapshot.pins["soft_labels"], labels.partition)
    standing = find_standing(store, snapshot.pins)
    pool = pool_of_labels(store, labels, shards, standing)
    if pool.counts is None:
        raise InputError(f"the labels of {labels_name(labels)} have no counts")
    rows = pool.counts().group_by(["class_id", "bucket"]).aggregate([("num_labels", "sum")])
    rows = rows.filter(pa_positive(rows)).sort_by(
        [("class_id", "ascending"), ("bucket", "ascending")]
    )
    parameters = {"teacher": labels.teacher_id, "iteration": labels.iteration}
    known = snapshot.table(_LABELED, parameters)
    columns = [
        known[name].to_numpy().astype(np.float64)
        for name in ("class_id", "confidence", "is_right")
    ]
    return Counts(
        labels=labels,
        class_ids=rows["class_id"].to_numpy().astype(np.int64),
        buckets=rows["bucket"].to_numpy().astype(np.int64),
        numbers=rows["num_labels_sum"].to_numpy().astype(np.int64),
        num_classes=len(snapshot.class_names),
        num_accepted=standing.num_accepted,
        validation=np.column_stack(columns),
    )


def pa_positive(rows: Any) -> Any:  # noqa: ANN401  a table of Arrow's, and a mask of it
    """Return which counts are left: those of barred images were taken off."""
    import pyarrow.compute as pc

    return pc.greater(rows["num_labels_sum"], 0)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a balance leaves.

    Attributes:
        balance: With the quota that was meant.
        predicted: Labels by class, int64 [classes].
        candidates: Of those, above the floor.
        quotas: Wanted.
        kept: Images that are kept.
        draws: Sum of their copies.
        cuts: Confidence above which a class keeps, float64 [classes], to a thousandth.
        accuracy: Estimated share of right labels by class, NaN where validation has none.
        num_seen: Validation images that the estimates are from, by class.
        num_accepted: Unlabeled images.
    """

    balance: Balance
    predicted: Ints
    candidates: Ints
    quotas: Ints
    kept: Ints
    draws: Ints
    cuts: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    num_seen: Ints
    num_accepted: int

    @property
    def estimate(self) -> float | None:
        """Estimated share of right pseudo-labels among those that are kept."""
        weights = np.where(np.isnan(self.accuracy), 0, self.kept)
        if not weights.sum():
            return None
        return float((np.nan_to_num(self.accuracy) * weights).sum() / weights.sum())

    @property
    def copies(self) -> npt.NDArray[np.float64]:
        """Draws of an image, the mean by class."""
        return self.draws / np.maximum(self.kept, 1)


def keep(counts: Counts, balance: Balance, class_names: tuple[str, ...]) -> Kept:
    """Return what a balance leaves of labels.

    Raises:
        InputError: If the balance is none of these classes.
    """
    meant = balance.with_even_quota(counts.num_accepted, max(counts.num_classes, 1))
    first = round(balance.min_confidence * NUM_BUCKETS)
    candidates = counts.by_class(first)
    quotas = meant.quotas_of(candidates, class_names)
    kept = np.minimum(candidates, quotas)
    draws = np.where(kept > 0, quotas, 0) if meant.policy == "exact" else kept
    cuts = _cuts(counts, first, kept)
    accuracy, seen = _accuracy(counts, cuts)
    return Kept(
        balance=meant,
        predicted=counts.by_class(),
        candidates=candidates,
        quotas=quotas,
        kept=kept,
        draws=draws,
        cuts=cuts,
        accuracy=accuracy,
        num_seen=seen,
        num_accepted=counts.num_accepted,
    )


def _cuts(counts: Counts, first: int, kept: Ints) -> npt.NDArray[np.float64]:
    """Return the lower edge of the bucket in which each class meets what it keeps."""
    here = counts.buckets >= first
    classes, buckets = counts.class_ids[here], counts.buckets[here]
    numbers = counts.numbers[here]
    # From the surest on: cells stand by class and bucket, so they are added up backwards.
    above = np.cumsum(numbers[::-1])[::-1]
    ends = np.searchsorted(classes, np.arange(counts.num_classes), side="right")
    after = np.append(above, 0)[np.minimum(ends, len(above))]
    is_needed = above - numbers - after[classes] < kept[classes]
    cuts = np.ones(counts.num_classes)
    np.minimum.at(cuts, classes[is_needed], buckets[is_needed] / NUM_BUCKETS)
    return cuts


def _accuracy(
    counts: Counts, cuts: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], Ints]:
    """Return the share of right labels above each class's cut, and of how many images."""
    classes = counts.validation[:, 0].astype(np.int64)
    here = counts.validation[:, 1] > cuts[classes]
    size = counts.num_classes
    seen = np.bincount(classes[here], minlength=size)
    right = np.bincount(classes[here], counts.validation[here, 2], minlength=size)
    with np.errstate(invalid="ignore"):
        return right / np.where(seen > 0, seen, np.nan), seen.astype(np.int64)
