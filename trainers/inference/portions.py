"""Images of a store in portions that fit into memory, as a model looks at them."""

from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore.fingerprint import content_hash
from plstore.images import IMAGE_COLUMNS, image_bytes
from plstore.loaders.imageset import ROW_SCHEMA, ImageSet
from plstore.schema import ACCEPTED, LABEL_TYPE
from plstore.store import Shard, Store, Table

_BATCH = 1024
_BATCH_BYTES = 64 << 20
_NO_END = 1 << 62


def read_images(
    store: Store, ids: npt.NDArray[np.int64], version: int
) -> Iterator[tuple[npt.NDArray[np.int64], ImageSet]]:
    """Yield images in portions, with their ids: without those that were deleted meanwhile.

    The ids are those of the `ImageSet` too; it knows no labels.

    Args:
        store: The store.
        ids: int64, ascending: which images.
        version: Of the table `images`.
    """
    table = store.table("images")
    shards = _touching(table.shards(version), ids)
    for wanted in _portions(table, shards, ids):
        rows = table.dataset_of(_touching(shards, wanted)).to_table(
            columns=["width", "height", *IMAGE_COLUMNS],
            filter=pc.field("sample_id").isin(pa.array(wanted)),
        )
        rows = rows.sort_by("sample_id").combine_chunks()
        batches = [_rows_of_images(batch) for batch in rows.to_batches()]
        images = pa.Table.from_batches(batches, ROW_SCHEMA)
        yield rows["sample_id"].to_numpy(), ImageSet(images, len(store.class_names))


def ids_of_split(
    store: Store, split: str, version: int, first: int = 0, end: int = _NO_END
) -> npt.NDArray[np.int64]:
    """Return the accepted images of a split with ids from `first` to below `end`, ascending."""
    table = store.table("images")
    shards = [s for s in table.shards(version) if s.first_id < end and s.last_id >= first]
    where = (pc.field("sample_id") >= first) & (pc.field("sample_id") < end)
    where &= (pc.field("split") == split) & (pc.field("verdict") == ACCEPTED)
    rows = table.dataset_of(shards).to_table(columns=["sample_id"], filter=where)
    return np.sort(rows["sample_id"].to_numpy())


def _touching(shards: Sequence[Shard], ids: npt.NDArray[np.int64]) -> list[Shard]:
    if not len(ids):
        return []
    return [s for s in shards if s.first_id <= ids[-1] and s.last_id >= ids[0]]


def _portions(
    table: Table, shards: Sequence[Shard], ids: npt.NDArray[np.int64]
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield ids of up to 1,024 images and 64 MiB."""
    rows = table.dataset_of(shards).to_table(
        columns=["sample_id", "num_bytes"],
        filter=pc.field("sample_id").isin(pa.array(ids)),
    )
    rows = rows.sort_by("sample_id")
    start, num_bytes = 0, 0
    for end, size in enumerate(rows["num_bytes"].fill_null(0).to_pylist()):
        if end > start and (end - start == _BATCH or num_bytes + size > _BATCH_BYTES):
            yield ids[start:end]
            start, num_bytes = end, 0
        num_bytes += size
    yield ids[start:]


def _rows_of_images(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows of `images` as `ImageSet` takes them, each with the hash of its bytes."""
    count, data, hashes = batch.num_rows, image_bytes(batch), batch["content_hash"]
    as_it_came = pc.is_null(batch["conversion"])
    if not pc.all(as_it_came).as_py():  # else the hash is of the file before its conversion
        own = pa.array([content_hash(image) for image in data.to_pylist()])
        hashes = pc.if_else(as_it_came, hashes, own)
    return pa.record_batch(
        [
            batch["sample_id"],
            pa.repeat(pa.scalar("labeled"), count),
            pa.nulls(count, pa.int32()),
            pa.repeat(pa.scalar(1, pa.int32()), count),
            pa.repeat(pa.scalar(1, pa.float32()), count),
            pa.nulls(count, LABEL_TYPE),
            batch["width"],
            batch["height"],
            hashes,
            data,
        ],
        schema=ROW_SCHEMA,
    )


class Portions:
    """Portions of images that are read once, for readers that each go at their own pace.

    A portion is held until all readers are done with it, so one that stops in its middle can
    begin again there. Readers may be of several threads.
    """

    def __init__(self, coming: Iterator[ImageSet], *, readers: int = 1) -> None:
        """Read nothing yet.

        Args:
            coming: The portions; each is drawn when a reader asks for it first.
            readers: How many; they are numbered from 0.
        """
        self._coming, self._lock = coming, Lock()
        self._held: dict[int, ImageSet] = {}
        self._num_read = 0
        self._places = [(0, 0)] * readers  # portion and row that come next
        self._error: Exception | None = None

    def left(self, reader: int = 0) -> Iterator[tuple[ImageSet, npt.NDArray[np.int64]]]:
        """Yield each portion with the rows that a reader is not done with, as int64."""
        number, row = self._places[reader]
        while (images := self._portion(number)) is not None:
            yield images, np.arange(row, len(images))
            number, row = number + 1, 0

    def done(self, count: int, reader: int = 0) -> None:
        """Note that a reader is done with the next images, so many of them."""
        with self._lock:
            number, row = self._places[reader]
            row += count
            while number in self._held and row >= len(self._held[number]):
                row -= len(self._held[number])
                number += 1
            self._places[reader] = number, row
            for old in [n for n in self._held if n < min(place[0] for place in self._places)]:
                del self._held[old]

    def _portion(self, number: int) -> ImageSet | None:
        with self._lock:
            while number >= self._num_read:
                if self._error is not None:
                    raise self._error  # what comes after it was never read
                try:
                    images = next(self._coming, None)
                except Exception as error:
                    self._error = error
                    raise
                if images is None:
                    return None
                self._held[self._num_read] = images
                self._num_read += 1
            return self._held[number]
