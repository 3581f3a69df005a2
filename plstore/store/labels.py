"""Soft labels into the store: coded, in shards with the same boundaries for every teacher."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.codec import encode, statistics
from plstore.errors import InputError
from plstore.schema import TABLES
from plstore.store.table import PartitionValues, Shard

if TYPE_CHECKING:
    from plstore.store.store import Store

_SHARD_IDS = 65_536
_TEACHER_ID = re.compile(r"[a-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """Whose labels, and of what: the partition of `soft_labels` that they fill."""

    teacher_id: str
    iteration: int
    split: str


@dataclass(frozen=True, kw_only=True)
class LabelBatch:
    """Distributions of some images.

    Attributes:
        sample_ids: int64 [rows], ascending through all batches of a label set.
        probabilities: float32 [rows, classes].
    """

    sample_ids: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]


def check_teacher_id(teacher_id: str) -> str:
    """Return the id, or raise InputError: it names folders, so it is [a-z0-9_-]+ only."""
    if not _TEACHER_ID.fullmatch(teacher_id):
        raise InputError(
            f"teacher id {teacher_id!r} may hold only lower-case letters, digits, '_' and '-'"
        )
    return teacher_id


def write_labels(
    store: "Store",
    label_set: LabelSet,
    batches: Iterable[LabelBatch],
    *,
    k: int,
    identity: str,
) -> list[Shard]:
    """Write a teacher's distributions as shards that `commit_labels` makes visible.

    A shard holds the images of one fixed range of sample ids, so that shards of any two
    teachers or iterations line up.

    Args:
        store: Where to.
        label_set: Partition that these labels fill.
        batches: Distributions in ascending order of sample id.
        k: Classes that the top-k codec keeps.
        identity: Of this labeling, [a-z0-9_-]+: the same labels must get the same.

    Raises:
        InputError: If ids do not ascend, or the number of classes is not the store's.
    """
    check_teacher_id(label_set.teacher_id)
    shards: list[Shard] = []
    parts: list[pa.Table] = []
    block, last_id = -1, -1
    for batch in batches:
        _check_batch(batch, last_id, len(store.class_names))
        for piece_block, piece in _blocks(_coded(batch, k)):
            if piece_block != block and parts:
                shards.append(_write(store, label_set, f"{identity}-{block:06d}", parts))
                parts = []
            block = piece_block
            parts.append(piece)
        last_id = int(batch.sample_ids[-1])
    if parts:
        shards.append(_write(store, label_set, f"{identity}-{block:06d}", parts))
    return shards


def commit_labels(
    store: "Store", shards: list[Shard], *, lineage: Mapping[str, Any], transaction: str
) -> int:
    """Make written labels visible in one commit; return the version of `soft_labels`.

    Labels that the same teacher gave to the same split and iteration before leave the newest
    snapshot; older versions, and the views that pin them, keep them.
    """
    return store.table("soft_labels").commit(
        shards, lineage=lineage, transaction=transaction, replace=True
    )


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


def _coded(batch: LabelBatch, k: int) -> pa.Table:
    class_id, confidence, entropy = statistics(batch.probabilities)
    columns = {
        "sample_id": pa.array(batch.sample_ids),
        "class_id": pa.array(class_id),
        "confidence": pa.array(confidence),
        "entropy": pa.array(entropy),
        "label": encode(batch.probabilities, k=k),
    }
    return pa.table(columns, schema=TABLES["soft_labels"].file_schema)


def _blocks(rows: pa.Table) -> Iterable[tuple[int, pa.Table]]:
    blocks = rows["sample_id"].to_numpy() // _SHARD_IDS
    starts = np.flatnonzero(np.diff(blocks, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(blocks)], strict=True):
        yield int(blocks[start]), rows.slice(start, end - start)


def _write(store: "Store", label_set: LabelSet, name: str, parts: list[pa.Table]) -> Shard:
    partition: PartitionValues = {
        "iteration": label_set.iteration,
        "teacher_id": label_set.teacher_id,
        "split": label_set.split,
    }
    rows = pa.concat_tables(parts)
    return store.table("soft_labels").write_shard(f"labels-{name}", rows, partition)
