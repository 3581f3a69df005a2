"""Soft labels into the store: coded, in shards with the same boundaries for every teacher."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from plstore.codec import Codec, encode
from plstore.errors import InputError, StoreError
from plstore.labels.histograms import write_histograms
from plstore.labels.label_sets import SHARD_IDS, LabelBatch, LabelSet, check_teacher_id
from plstore.schema import TABLES
from plstore.store import Shard

if TYPE_CHECKING:
    from plstore.store import Store

COUNTED_AT_ONCE: Final = 256
"""Shards of one commit, at most, that are counted with it: a file takes 0.3 ms to open."""


class LabelWriter:
    """Writes a teacher's distributions as they come, as shards that `commit_labels` shows.

    A shard holds the images of one fixed range of `SHARD_IDS` sample ids, so that shards of any
    two teachers or iterations line up. Memory holds the coded rows of one range.
    """

    def __init__(
        self, store: "Store", label_set: LabelSet, *, codec: Codec, identity: str
    ) -> None:
        """Begin; nothing is written yet.

        Args:
            store: Where to.
            label_set: Partition that these labels fill.
            codec: How they are kept.
            identity: Start of the files' names, [a-z0-9_-]+.

        Raises:
            InputError: If the teacher's id cannot be one.
        """
        check_teacher_id(label_set.teacher_id)
        self._table, self._partition = store.table("soft_labels"), label_set.partition
        self._num_classes, self._codec = len(store.class_names), codec
        self._identity, self._last_id = identity, -1
        self._number, self._parts = -1, list[pa.Table]()
        self._shards: list[Shard] = []

    def add(self, batch: LabelBatch) -> None:
        """Add distributions, in ascending order of sample id.

        Raises:
            InputError: If ids do not ascend, or the number of classes is not the store's.
        """
        _check_batch(batch, self._last_id, self._num_classes)
        rows, self._last_id = coded_rows(batch, self._codec), int(batch.sample_ids[-1])
        ranges = batch.sample_ids // SHARD_IDS
        starts = np.flatnonzero(np.diff(ranges, prepend=-1)).tolist()
        for start, end in zip(starts, [*starts[1:], len(ranges)], strict=True):
            if ranges[start] != self._number:
                self._end_range()
            self._number = int(ranges[start])
            self._parts.append(rows.slice(start, end - start))

    def finish(self) -> list[Shard]:
        """Write what is left; return all shards."""
        self._end_range()
        return self._shards

    def _end_range(self) -> None:
        if not self._parts:
            return
        # In one piece: the file does not depend on how many distributions came at once.
        rows = pa.concat_tables(self._parts).combine_chunks()
        name = f"labels-{self._identity}-{self._number:06d}"
        self._shards.append(self._table.write_shard(name, rows, self._partition))
        self._parts = []


def write_labels(
    store: "Store",
    label_set: LabelSet,
    batches: Iterable[LabelBatch],
    *,
    codec: Codec,
    identity: str,
) -> list[Shard]:
    """Write a teacher's distributions as shards that `commit_labels` makes visible.

    See `LabelWriter`.

    Args:
        store: Where to.
        label_set: Partition that these labels fill.
        batches: Distributions in ascending order of sample id.
        codec: How they are kept.
        identity: Start of the files' names, [a-z0-9_-]+.

    Raises:
        InputError: If ids do not ascend, or the number of classes is not the store's.
    """
    writer = LabelWriter(store, label_set, codec=codec, identity=identity)
    for batch in batches:
        writer.add(batch)
    return writer.finish()


def commit_labels(
    store: "Store",
    shards: list[Shard],
    *,
    lineage: Mapping[str, Any],
    transaction: str,
    beside: Collection[Shard] | None = None,
    instead_of: Collection[Shard] | None = None,
) -> int:
    """Make written labels visible in one commit; return the version of `soft_labels`.

    Labels that the same teacher gave to the same split and iteration before leave the newest
    snapshot; older versions, and the views that pin them, keep them. With `beside`, the shards
    that there were when these labels were made, they are added to those: labels of images that
    had none. With `instead_of`, they take the place of just those shards. Counts by class and
    confidence are written beside them, unless there are more than `COUNTED_AT_ONCE` shards: the
    first selection counts those, at the same cost.

    Raises:
        CommitConflictError: If other labels of these images were committed since; with
            `instead_of`, also if those shards are no longer there.
    """
    version = store.table("soft_labels").commit(
        shards,
        lineage=lineage,
        transaction=transaction,
        replace=beside is None and instead_of is None,
        remove=instead_of or (),
        beside=None
        if beside is None and instead_of is None
        else [*(beside or ()), *(instead_of or ())],
    )
    if len(shards) <= COUNTED_AT_ONCE:
        with suppress(OSError, StoreError):  # the labels are there; a selection counts them too
            write_histograms(store, shards)
    return version


def coded_rows(batch: LabelBatch, codec: Codec) -> pa.Table:
    """Return distributions as the rows of a `soft_labels` file."""
    coded = encode(batch.probabilities, codec)
    columns = {
        "sample_id": pa.array(batch.sample_ids),
        "class_id": pa.array(coded.class_ids),
        "confidence": pa.array(coded.confidence),
        "entropy": pa.array(coded.entropy),
        "label": coded.labels,
    }
    return pa.table(columns, schema=TABLES["soft_labels"].file_schema)


def _check_batch(batch: LabelBatch, last_id: int, num_classes: int) -> None:
    ids = batch.sample_ids
    if len(ids) != len(batch.probabilities) or not len(ids):
        raise InputError(f"{len(ids)} sample ids for {len(batch.probabilities)} distributions")
    if ids[0] <= last_id or (np.diff(ids) <= 0).any():
        raise InputError("sample ids of labels must ascend without repeats")
    if batch.probabilities.shape[1] != num_classes:
        raise InputError(
            f"distributions have {batch.probabilities.shape[1]} classes; the store has "
            f"{num_classes}. A teacher of another label space cannot label this store"
        )
