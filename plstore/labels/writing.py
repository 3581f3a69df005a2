"""Soft labels into the store: coded, in shards with the same boundaries for every teacher."""

from collections.abc import Collection, Iterable, Iterator, Mapping
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


def write_labels(
    store: "Store",
    label_set: LabelSet,
    batches: Iterable[LabelBatch],
    *,
    codec: Codec,
    identity: str,
) -> list[Shard]:
    """Write a teacher's distributions as shards that `commit_labels` makes visible.

    A shard holds the images of one fixed range of `SHARD_IDS` sample ids, so that shards of any
    two teachers or iterations line up.

    Args:
        store: Where to.
        label_set: Partition that these labels fill.
        batches: Distributions in ascending order of sample id.
        codec: How they are kept.
        identity: Start of the files' names, [a-z0-9_-]+.

    Raises:
        InputError: If ids do not ascend, or the number of classes is not the store's.
    """
    check_teacher_id(label_set.teacher_id)
    num_classes = len(store.class_names)
    return [
        store.table("soft_labels").write_shard(
            f"labels-{identity}-{number:06d}", rows, label_set.partition
        )
        for number, rows in _by_range(_coded_batches(batches, codec, num_classes))
    ]


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


def _coded_batches(
    batches: Iterable[LabelBatch], codec: Codec, num_classes: int
) -> Iterator[pa.Table]:
    last_id = -1
    for batch in batches:
        _check_batch(batch, last_id, num_classes)
        yield coded_rows(batch, codec)
        last_id = int(batch.sample_ids[-1])


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


def _by_range(tables: Iterable[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of each range of ids as one table."""
    parts: list[pa.Table] = []
    current = -1
    for table in tables:
        ranges = table["sample_id"].to_numpy() // SHARD_IDS
        starts = np.flatnonzero(np.diff(ranges, prepend=-1)).tolist()
        for start, end in zip(starts, [*starts[1:], len(ranges)], strict=True):
            if parts and ranges[start] != current:
                yield current, pa.concat_tables(parts)
                parts = []
            current = int(ranges[start])
            parts.append(table.slice(start, end - start))
    if parts:
        yield current, pa.concat_tables(parts)
