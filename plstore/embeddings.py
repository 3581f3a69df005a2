"""Embeddings: what a frozen backbone sees in images, kept once, read by probes and by SQL."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.errors import InputError
from plstore.schema import TABLES

if TYPE_CHECKING:
    from plstore.store import PartitionValues, Shard, Store

EMBEDDING_IDS: Final = 8192
"""Sample ids of one file: few enough that a stopped embedding loses a minute, not an hour."""

_DROPPED_BITS: Final = np.uint32(13)  # float32 keeps 23 mantissa bits, embeddings 10
_MODEL: Final = re.compile(r"[a-z0-9_.-]+")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, order=True)
class EmbeddingSet:
    """Of which model, and of which images: the partition of `embeddings` that they fill.

    Attributes:
        model: Which backbone with which weights sees images of which size, [a-z0-9_.-]+.
        split: Of the images.
    """

    model: str
    split: str

    @property
    def partition(self) -> "PartitionValues":
        """Values of the partition columns."""
        return {"model": self.model, "split": self.split}


@dataclass(frozen=True, kw_only=True)
class EmbeddingBatch:
    """Embeddings of some images.

    Attributes:
        sample_ids: int64 [rows], ascending.
        vectors: float32 [rows, features].
    """

    sample_ids: npt.NDArray[np.int64]
    vectors: Floats


def write_embeddings(
    store: "Store", of: EmbeddingSet, batch: EmbeddingBatch, *, identity: str
) -> "Shard":
    """Write embeddings of one range of ids as a file that `commit_embeddings` makes visible.

    Numbers keep a mantissa of 10 bits: a relative error of at most 2^-11.

    Raises:
        InputError: If the model's name cannot be one of a folder, or a number is not finite.
    """
    if not _MODEL.fullmatch(of.model):
        raise InputError(
            f"embeddings of {of.model!r}; wanted lower-case letters, digits, '.', '_' and '-'"
        )
    if not np.isfinite(batch.vectors).all():
        raise InputError(f"embeddings of {of.model!r} are not finite; wanted numbers")
    columns = {"sample_id": pa.array(batch.sample_ids), "vector": _lists(batch.vectors)}
    table = pa.table(columns, schema=TABLES["embeddings"].file_schema)
    name = f"embeddings-{identity}-{int(batch.sample_ids[0]) // EMBEDDING_IDS:06d}"
    return store.table("embeddings").write_shard(name, table, of.partition)


def commit_embeddings(
    store: "Store", shards: "Sequence[Shard]", *, lineage: Mapping[str, Any], transaction: str
) -> int:
    """Make written embeddings visible in one commit; return the version of `embeddings`.

    Raises:
        CommitConflictError: If others of the same images were committed since.
    """
    table = store.table("embeddings")
    there = {(s.partition["split"], s.partition["model"]) for s in shards}
    beside = [
        shard
        for shard in table.shards()
        if (shard.partition["split"], shard.partition["model"]) in there
    ]
    return table.commit(shards, lineage=lineage, transaction=transaction, beside=beside)


def embedded_ids(
    store: "Store", of: EmbeddingSet, *, within: range | None = None
) -> npt.NDArray[np.int64]:
    """Return which images have embeddings, int64, ascending.

    Args:
        store: The store.
        of: Which embeddings.
        within: Sample ids that are asked for; all unless given.
    """
    table = store.table("embeddings")
    shards = table.shards(partition=of.partition)
    if within is not None:
        shards = [s for s in shards if s.first_id < within.stop and s.last_id >= within.start]
    ids = table.dataset_of(shards).to_table(columns=["sample_id"])["sample_id"].to_numpy()
    return np.sort(ids)


def read_embeddings(
    store: "Store", of: EmbeddingSet, *, only: npt.NDArray[np.int64] | None = None
) -> Iterator[EmbeddingBatch]:
    """Yield embeddings, file by file.

    Args:
        store: The store.
        of: Which ones.
        only: int64, ascending: images whose embeddings are wanted; all unless given.
    """
    table = store.table("embeddings")
    for shard in table.shards(partition=of.partition):
        rows = table.dataset_of([shard]).to_table(columns=["sample_id", "vector"])
        rows = rows.sort_by("sample_id").combine_chunks()
        if only is not None:
            rows = rows.filter(pa.array(np.isin(rows["sample_id"].to_numpy(), only)))
        if rows.num_rows:
            yield EmbeddingBatch(
                sample_ids=rows["sample_id"].to_numpy(), vectors=_vectors(rows["vector"])
            )


def embedding_sets(store: "Store") -> dict[EmbeddingSet, int]:
    """Return which embeddings there are, with their numbers of rows, in order."""
    counts: dict[EmbeddingSet, int] = {}
    for shard in store.table("embeddings").shards():
        of = EmbeddingSet(model=shard.partition["model"], split=shard.partition["split"])
        counts[of] = counts.get(of, 0) + shard.num_rows
    return dict(sorted(counts.items()))


def _vectors(column: pa.ChunkedArray) -> Floats:
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors: Floats = values.reshape(len(column), -1)
    return vectors


def _lists(vectors: Floats) -> pa.ListArray:
    rows, width = vectors.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(offsets, pa.array(_rounded(vectors).reshape(-1)))


def _rounded(vectors: Floats) -> Floats:
    bits = np.ascontiguousarray(vectors, np.float32).view(np.uint32)
    half = np.uint32(1 << (int(_DROPPED_BITS) - 1))
    rounded: Floats = (((bits + half) >> _DROPPED_BITS) << _DROPPED_BITS).view(np.float32)
    return rounded


def of_images(batches: Collection[EmbeddingBatch], sample_ids: npt.NDArray[np.int64]) -> Floats:
    """Return the vectors of images in their order, float32 [images, features].

    Raises:
        InputError: If an image has none.
    """
    there = np.concatenate([np.empty(0, np.int64), *(b.sample_ids for b in batches)])
    order = np.argsort(there, kind="stable")
    places = np.searchsorted(there, sample_ids, sorter=order)
    found = order[np.minimum(places, max(len(there) - 1, 0))] if len(there) else places
    if not len(there) or (there[found] != sample_ids).any():
        lost = len(sample_ids) if not len(there) else int((there[found] != sample_ids).sum())
        raise InputError(
            f"{lost} of {len(sample_ids)} images have no embeddings; 'plstore embed' makes them"
        )
    return np.concatenate([b.vectors for b in batches])[found]
