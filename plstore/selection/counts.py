"""Counts by class and bucket of confidence: what a selection is decided from."""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.errors import StoreError
from plstore.labels import NUM_BUCKETS
from plstore.selection.balance import Counts

_CLASSES_AT_ONCE = 128  # classes whose counts are in memory at once


class Engine(Protocol):
    """What runs the steps of a selection over the relation `candidates`."""

    def rows(
        self, sql: str, parameters: Mapping[str, Any], tables: Mapping[str, pa.Table]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a query over `candidates` and some small tables."""
        ...


@cache
def step(name: str) -> str:
    """Return the SQL of a step."""
    return (Path(__file__).parent / "steps" / f"{name}.sql").read_text()


def edge(bucket: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the lower edge of a bucket, as labels are compared with it."""
    return (np.asarray(bucket, np.float64) / NUM_BUCKETS).astype(np.float32)


def floor_bucket(min_confidence: float) -> int | None:
    """Return the first bucket above a floor, or None if the floor is inside of one."""
    bucket = round(min_confidence * NUM_BUCKETS)
    return bucket if edge(bucket) == np.float32(min_confidence) else None


class HistogramByClass:
    """A histogram, read some classes at a time: all of it would be large for many classes."""

    def __init__(
        self,
        histogram: pa.Table,
        num_classes: int,
        first: int = 0,
        partial: Counts | None = None,
    ) -> None:
        """Take counts; buckets below `first` do not count, and that one as in `partial`."""
        classes = histogram["class_id"].to_numpy()
        if (np.diff(classes) < 0).any():
            histogram = histogram.sort_by("class_id")
            classes = histogram["class_id"].to_numpy()
        if len(classes) and not (classes[0] >= 0 and classes[-1] < num_classes):
            raise StoreError(
                f"labels of classes {classes[0]} to {classes[-1]} in a store of {num_classes}; "
                "'plstore verify' tells which"
            )
        self._histogram = histogram
        self._num_classes = num_classes
        self._first = first
        self._partial = partial
        starts = np.arange(0, num_classes + _CLASSES_AT_ONCE, _CLASSES_AT_ONCE)
        self._ends = np.searchsorted(classes, starts).tolist()

    def parts(self) -> Iterator[tuple[slice, Counts]]:
        """Yield classes and their counts, int64 [classes, buckets]."""
        for number, (start, end) in enumerate(pairwise(self._ends)):
            first = number * _CLASSES_AT_ONCE
            part = slice(first, min(first + _CLASSES_AT_ONCE, self._num_classes))
            rows = self._histogram.slice(start, end - start)
            cells = (rows["class_id"].to_numpy() - first) * NUM_BUCKETS
            size = (part.stop - first) * NUM_BUCKETS
            weights = rows["num_labels"].to_numpy()
            sums = np.bincount(cells + rows["bucket"].to_numpy(), weights, minlength=size)
            counts = sums.astype(np.int64).reshape(-1, NUM_BUCKETS)
            counts[:, : self._first] = 0
            if self._partial is not None:
                counts[:, self._first] = self._partial[part]
            yield part, counts

    def by_class(self) -> Counts:
        """Return the sums, int64 [classes]."""
        sums = np.zeros(self._num_classes, np.int64)
        for part, counts in self.parts():
            sums[part] = counts.sum(axis=1)
        return sums

    def above_floor(self, engine: Engine, min_confidence: float) -> "HistogramByClass":
        """Return the same above a floor, counted exactly where it falls into a bucket."""
        first = floor_bucket(min_confidence)
        if first is not None:
            return HistogramByClass(self._histogram, self._num_classes, first)
        edges = edge(np.arange(NUM_BUCKETS + 1))
        inside = int(np.searchsorted(edges, np.float32(min_confidence))) - 1
        parameters = {"min_confidence": min_confidence, "edge": float(edges[inside + 1])}
        partial = np.zeros(self._num_classes, np.int64)
        for batch in engine.rows(step("above_floor"), parameters, {}):
            partial[batch["class_id"].to_numpy()] += batch["num_labels"].to_numpy()
        return HistogramByClass(self._histogram, self._num_classes, inside, partial)

    def cuts(self, quotas: Counts, *, width: int) -> dict[str, Counts]:
        """Return where each class is cut: the highest bin that fills its quota with all above.

        Args:
            quotas: By class.
            width: Of a bin, in buckets.

        Returns:
            By class, int64 [classes]: `bucket`, the first of the cut bin, -1 where all
            candidates do not fill the quota; `above`, candidates above that bin; `inside`,
            those in it.
        """
        result = {n: np.zeros(len(quotas), np.int64) for n in ("bucket", "above", "inside")}
        last = NUM_BUCKETS // width - 1
        for part, counts in self.parts():
            sums = counts.reshape(len(counts), -1, width).sum(axis=2)[:, ::-1]  # highest first
            running = sums.cumsum(axis=1)
            enough = running >= quotas[part, None]
            at = enough.argmax(axis=1)[:, None]
            found = (last - at[:, 0]) * width
            result["bucket"][part] = np.where(enough.any(axis=1), found, -1)
            result["inside"][part] = np.take_along_axis(sums, at, axis=1)[:, 0]
            result["above"][part] = np.take_along_axis(running - sums, at, axis=1)[:, 0]
        return result
