"""Labels of views: what a teacher says of an image with the very noise that a student sees.

The noise of a pseudo-labeled draw follows from its number alone, once view, plan and seed are
known. So a label is kept by the number of its draw, and is that of the same pixels for any
number of ranks and after any resume. (Distributions kept beside the seed of an augmentation:
TinyViT, Wu et al., arXiv 2207.10666, section 3.1; reinforced datasets, Faghri et al., arXiv
2303.08983.)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.codec import Codec, decode, encode
from plstore.errors import InputError, StoreError
from plstore.fingerprint import value_hash
from plstore.schema import TABLES
from plstore.store import Shard

if TYPE_CHECKING:
    from plstore.store import PartitionValues, Store

DRAWS_OF_A_FILE: Final = 65_536
"""Files are cut at multiples of it: 4 MB on disk, 13 MB in memory, of 20 classes each."""

_TABLE: Final = "view_labels"
_NAME: Final = re.compile(r"draws-(\d{12,})-(\d{12,})-[0-9a-f]+\.parquet")
_CACHED_FILES: Final = 2

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ViewLabelSet:
    """Whose labels, of which draws: a partition of `view_labels`.

    Attributes:
        view: Name of the view.
        version: Of the view.
        files: Hash of the view's files: the deletion of an image changes all draws.
        plan: Hash of the loader's plan.
        seed: Of the draws.
        backend: Of the loader, that made the pixels.
        teacher_id: Who labeled.
        checkpoint_hash: Of its weights.
        temperature: Its logits were divided by it.
        codec: How labels are kept, and of how many classes.
    """

    view: str
    version: int
    files: str
    plan: str
    seed: int
    backend: str
    teacher_id: str
    checkpoint_hash: str
    temperature: float
    codec: Codec

    @property
    def identity(self) -> str:
        """Hash of all of it."""
        return value_hash(self.as_json())

    @property
    def partition(self) -> "PartitionValues":
        """Values of the partition columns."""
        return {"view": self.view, "version": self.version, "identity": self.identity}

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON-like values: for lineage, and for `from_json`."""
        return {**vars(self), "codec": self.codec.as_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ViewLabelSet":
        """Return what `as_json` gave."""
        return cls(**{**values, "codec": Codec(**values["codec"])})


class Span(NamedTuple):
    """Draws from `start` up to `end`."""

    start: int
    end: int


def view_label_rows(
    first: int, sample_ids: Ids, probabilities: npt.NDArray[np.floating], codec: Codec
) -> pa.Table:
    """Return the labels of successive draws as rows of a file of `view_labels`.

    Args:
        first: Number of the first draw.
        sample_ids: int64 [rows]: which image each draw showed.
        probabilities: float [rows, classes]: what the teacher says of it.
        codec: How they are kept.

    Raises:
        InputError: If a row is not a distribution.
    """
    columns = {
        "draw": pa.array(np.arange(first, first + len(sample_ids))),
        "sample_id": pa.array(sample_ids),
        "label": encode(probabilities, codec).labels,
    }
    return pa.table(columns, schema=TABLES[_TABLE].file_schema)


def commit_view_labels(
    store: "Store",
    label_set: ViewLabelSet,
    rows: pa.Table,
    span: Span,
    *,
    notes: Mapping[str, Any],
) -> int:
    """Write the labels of a span of draws, and make them visible; return the table's version.

    Done twice they are there once.

    Args:
        store: Where to.
        label_set: Whose they are.
        rows: Of `view_label_rows`, by ascending draw.
        span: The draws.
        notes: More for the lineage: the recipe, the version of the code.

    Raises:
        CommitConflictError: If one of their images was deleted meanwhile.
    """
    table = store.table(_TABLE)
    name = f"draws-{span.start:012d}-{span.end:012d}"
    shard = table.write_shard(name, rows, label_set.partition)
    return table.commit(
        [shard],
        lineage={"step": "label-views", **label_set.as_json(), **span._asdict(), **notes},
        transaction=f"view-labels-{label_set.identity}-{span.start}-{span.end}",
    )


def missing_spans(store: "Store", label_set: ViewLabelSet, num_draws: int) -> list[Span]:
    """Return which of the first draws have no labels yet, cut where files are, in order."""
    missing: list[Span] = []
    done = [span for span, _ in _files(store, label_set)]
    starts = [0, *(span.end for span in done)]
    ends = [*(span.start for span in done), num_draws]
    for start, end in zip(starts, ends, strict=True):
        until = min(end, num_draws)
        cuts = range((start // DRAWS_OF_A_FILE + 1) * DRAWS_OF_A_FILE, until, DRAWS_OF_A_FILE)
        bounds = [start, *cuts, until] if start < until else []
        missing += [Span(*pair) for pair in pairwise(bounds)]
    return missing


def _files(store: "Store", label_set: ViewLabelSet) -> list[tuple[Span, Shard]]:
    """Return the files of a label set with the draws that their names tell, in order."""
    shards = store.table(_TABLE).shards(partition=label_set.partition)
    return sorted(((span_of(s), s) for s in shards), key=lambda entry: entry[0])


def span_of(shard: Shard) -> Span:
    """Return the draws of a file, from its name.

    Raises:
        StoreError: If its name tells none.
    """
    match = _NAME.fullmatch(shard.path.rpartition("/")[2])
    if match is None:
        raise StoreError(
            f"{_TABLE}/{shard.path} is not named by its draws: it is of another program"
        )
    return Span(int(match[1]), int(match[2]))


class ViewLabels:
    """The labels of the first draws of a student's training, to be replayed by a loader.

    They are read file by file as steps go on: memory holds two files, of 13 MB each where 20
    classes are kept.

    Attributes:
        store: Where they are.
        label_set: Whose they are.
        num_draws: Draws 0 to this have one.
    """

    def __init__(self, store: "Store", label_set: ViewLabelSet, num_draws: int) -> None:
        """See `open_view_labels`."""
        self.store, self.label_set, self.num_draws = store, label_set, num_draws
        self._spans = _files(store, label_set)
        self._ends = np.array([span.end for span, _ in self._spans], np.int64)
        self._num_classes = len(store.class_names)
        self._file = lru_cache(_CACHED_FILES)(self._read)

    def __repr__(self) -> str:
        """Name whose they are."""
        named = self.label_set
        of = f"{named.view}@{named.version} by {named.teacher_id}"
        return f"ViewLabels({of}, {self.num_draws} draws)"

    @property
    def identity(self) -> str:
        """Of the targets that a loader gives with them."""
        return f"{self.label_set.identity}-{self.num_draws}"

    def fill(self, first: int, sample_ids: Ids, targets: Floats) -> int:
        """Put the labels of successive draws in the place of others.

        Args:
            first: Number of the first draw.
            sample_ids: int64 [draws]: which image each draw shows.
            targets: float32 [draws, classes]; rows of draws that have a label are changed.

        Returns:
            How many draws below `num_draws` have none of their image, and keep their target:
            another image took the place of a damaged one, or the image was deleted.
        """
        count = min(len(sample_ids), max(self.num_draws - first, 0))
        lacks = np.ones(count, np.bool_)
        for place in range(int(np.searchsorted(self._ends, first, "right")), len(self._spans)):
            if self._spans[place][0].start >= first + count:
                break
            draws, ids, labels = self._file(place)
            start, end = np.searchsorted(draws, [first, first + count]).tolist()
            slots = draws[start:end] - first
            same = ids[start:end] == sample_ids[slots]
            rows = pa.array(np.flatnonzero(same) + start)
            targets[slots[same]] = decode(labels.take(rows), self._num_classes)
            lacks[slots[same]] = False
        return int(lacks.sum())

    def _read(self, place: int) -> tuple[Ids, Ids, pa.StructArray]:
        table = self.store.table(_TABLE)
        dataset = table.dataset_of([self._spans[place][1]])
        rows = dataset.to_table(columns=["draw", "sample_id", "label"]).combine_chunks()
        labels = rows["label"].combine_chunks()
        return rows["draw"].to_numpy(), rows["sample_id"].to_numpy(), labels


def open_view_labels(store: "Store", label_set: ViewLabelSet, num_draws: int) -> ViewLabels:
    """Return the labels of the first draws, to be given to `plstore.load`.

    Args:
        store: Where they are.
        label_set: Whose.
        num_draws: How many; there may be more.

    Raises:
        InputError: If some of them were not made.
    """
    missing = missing_spans(store, label_set, num_draws)
    if missing:
        raise InputError(
            f"{store.root} has no labels by {label_set.teacher_id!r} of draws "
            f"{missing[0].start} to {missing[0].end} of {label_set.view}@{label_set.version}; "
            "plstore.label_views goes on with them"
        )
    return ViewLabels(store, label_set, num_draws)
