"""Stores of up to a billion images whose logs are real and whose files are mostly one file.

Every file that a log names is there, under its own name: a hard link to one real Parquet file
of 8,192 images or 65,536 labels, so that what lists, opens and skips files has as many to
list, open and skip. Files of the ranges that a labeling is to read hold their own sample ids.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

import plstore
from plstore.codec import Codec
from plstore.labels import (
    HISTOGRAM,
    NUM_BUCKETS,
    SHARD_IDS,
    LabelBatch,
    LabelSet,
    coded_rows,
    write_histograms,
)
from plstore.schema import TABLES
from plstore.store import SAMPLE_IDS, Claim, Shard, Store, Table

NUM_CLASSES: Final = 1000
IMAGES_A_FILE: Final = 8192
READ_RANGES: Final = 8
_MOST_COMMITS: Final = 250
_MOST_LINKS: Final = 50_000  # of one inode; ext4 has 65,000
_IMAGE_BYTES: Final = 110_000
_CODED: Final = 4096  # distinct distributions in the file of labels


@dataclass(frozen=True)
class Plan:
    """What a store of a size holds.

    Attributes:
        num_ranges: Ranges of 65,536 sample ids: files of one label set.
    """

    num_ranges: int

    @classmethod
    def of(cls, num_rows: int) -> "Plan":
        """Return the plan of about so many images: whole ranges."""
        return cls(max(round(num_rows / SHARD_IDS), 1))

    @property
    def num_images(self) -> int:
        """Images, all of them unlabeled and accepted."""
        return self.num_ranges * SHARD_IDS

    @property
    def parts(self) -> int:
        """How many workers share a labeling, so that one of them reads `READ_RANGES`."""
        return -(-self.num_ranges // READ_RANGES)

    @property
    def read_ranges(self) -> range:
        """The ranges of the first worker: their files hold their own ids."""
        return range(0, self.num_ranges, self.parts)


def label_set(number: int) -> LabelSet:
    """Return the label set of an iteration."""
    return LabelSet(iteration=number, teacher_id=f"t{number}", split="unlabeled")


def build(folder: Path, plan: Plan) -> Store:
    """Make the store: images, the labels of two iterations, counts beside the second."""
    store = plstore.create(folder / "store")
    store.ensure_classes([f"class-{n}" for n in range(NUM_CLASSES)])
    images = store.table("images")
    for number, shards in enumerate(_commits(list(image_files(store, plan)))):
        ids = shards[0].first_id, shards[-1].last_id + 1
        claim = Claim(name=SAMPLE_IDS, start=ids[0], end=ids[1])
        images.commit(shards, lineage={"step": "import"}, transaction=f"i{number}", claim=claim)
    counts = synthetic_counts()
    for iteration in (1, 2):
        for number, shards in enumerate(_commits(label_files(store, plan, iteration))):
            lineage = {"step": "label", "iteration": iteration}
            name = f"l{iteration}-{number}"
            store.table("soft_labels").commit(
                shards, lineage=lineage, transaction=name, beside=()
            )
            if iteration > 1:
                for shard in shards:  # as `plstore label` leaves them: one a range
                    write_histograms(store, [shard], count=lambda _, __: counts)
    return store


def _commits(shards: Sequence[Shard]) -> Iterator[Sequence[Shard]]:
    """Yield what goes into one commit each: a shard, or more so that there are 250 at most."""
    size = -(-len(shards) // _MOST_COMMITS)
    for start in range(0, len(shards), size):
        yield shards[start : start + size]


def image_files(store: Store, plan: Plan) -> Iterator[Shard]:
    """Yield the files of all images."""
    table, links = store.table("images"), _Links(store.table("images"))
    template = table.write_shard("template", _images(0), None)
    for number in range(plan.num_images // IMAGES_A_FILE):
        first = number * IMAGES_A_FILE
        if first // SHARD_IDS in plan.read_ranges:
            shard = table.write_shard(f"part-images-{first:012d}", _images(first), None)
            yield replace(shard, size_bytes=IMAGES_A_FILE * _IMAGE_BYTES)
        else:
            shard = links.to(template, f"part-images-{first:012d}", first, IMAGES_A_FILE)
            yield replace(shard, size_bytes=IMAGES_A_FILE * _IMAGE_BYTES)
    (table.root / template.path).unlink(missing_ok=True)


def label_files(store: Store, plan: Plan, iteration: int) -> list[Shard]:
    """Return the files of one label set, not yet committed."""
    table, links = store.table("soft_labels"), _Links(store.table("soft_labels"))
    partition = label_set(iteration).partition
    template = table.write_shard("template", _labels(), partition)
    shards = [
        links.to(template, f"labels-{number:06d}", number * SHARD_IDS, SHARD_IDS)
        for number in range(plan.num_ranges)
    ]
    (table.root / template.path).unlink()
    return shards


class _Links:
    """Names for one file, and for copies of it where an inode has no more links to give."""

    def __init__(self, table: Table) -> None:
        self._root, self._count = table.root, 0

    def to(self, template: Shard, name: str, first: int, count: int) -> Shard:
        source = self._root / template.path
        if self._count % _MOST_LINKS == _MOST_LINKS - 1:
            data = source.read_bytes()
            source.unlink()
            source.write_bytes(data)
        self._count += 1
        path = source.with_name(f"{name}-{source.stem.rpartition('-')[2]}.parquet")
        os.link(source, path)
        bounds = {
            "minValues": {"sample_id": first},
            "maxValues": {"sample_id": first + count - 1},
        }
        stats = {"numRecords": count, **bounds}
        return replace(template, path=path.relative_to(self._root).as_posix(), stats=stats)


def _images(first: int) -> pa.Table:
    """Return the rows of a file of images that stay where they are."""
    ids = np.arange(first, first + IMAGES_A_FILE)
    keys = pa.array([f"pool/{number:012d}.jpg" for number in ids.tolist()])
    count = len(ids)
    data = pa.nulls(count, pa.binary())
    columns: dict[str, pa.Array] = {
        "sample_id": pa.array(ids),
        "dataset": pa.repeat(pa.scalar("pool"), count),
        "key": keys,
        "split": pa.repeat(pa.scalar("unlabeled"), count),
        "label": pa.nulls(count, pa.int32()),
        "image": pa.StructArray.from_arrays([data, keys], names=["bytes", "path"]),
        "width": pa.repeat(pa.scalar(500, pa.int32()), count),
        "height": pa.repeat(pa.scalar(375, pa.int32()), count),
        "num_bytes": pa.repeat(pa.scalar(_IMAGE_BYTES, pa.int64()), count),
        "content_hash": pa.array([f"{number:032x}" for number in ids.tolist()]),
        "verdict": pa.repeat(pa.scalar("accepted"), count),
        "conversion": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=TABLES["images"].columns)


def _labels() -> pa.Table:
    """Return the rows of a file of labels: some distributions, over and over."""
    random = np.random.default_rng(0)
    probs = random.dirichlet([0.02] * NUM_CLASSES, _CODED).astype(np.float32)
    rows = coded_rows(LabelBatch(sample_ids=np.arange(_CODED), probabilities=probs), Codec())
    rows = pa.concat_tables([rows] * (SHARD_IDS // _CODED))
    return rows.set_column(0, "sample_id", pa.array(np.arange(SHARD_IDS)))


def synthetic_counts() -> pa.Table:
    """Return counts of one file's labels: as many cells as a real file has."""
    random = np.random.default_rng(1)
    frequency = 1 / np.arange(1, NUM_CLASSES + 1)
    classes = random.choice(NUM_CLASSES, SHARD_IDS, p=frequency / frequency.sum())
    buckets = (random.beta(1.6, 0.92, SHARD_IDS) * NUM_BUCKETS).astype(np.int64)
    cells, counts = np.unique(classes * NUM_BUCKETS + buckets, return_counts=True)
    columns = [cells // NUM_BUCKETS, cells % NUM_BUCKETS, counts]
    arrays = [pa.array(c).cast(f.type) for c, f in zip(columns, HISTOGRAM, strict=True)]
    return pa.Table.from_arrays(arrays, schema=HISTOGRAM)
