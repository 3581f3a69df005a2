"""Images and labels by row number: an Arrow file, mapped into memory.

A single random row of a Parquet file costs up to 45 ms, of a mapped Arrow file microseconds.
So rows are copied once, in a stream, from the store's Parquet to an Arrow file in the store's
cache; the system keeps in memory what is used. The file is a cache: deleting it costs
the copy.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore.codec import decode
from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.schema import ACCEPTED, LABEL_TYPE
from plstore.store import IMAGE_COLUMNS, Store, View, corrected_labels, image_bytes

_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.int64()),
        pa.field("kind", pa.string()),
        pa.field("class_id", pa.int32()),
        pa.field("copies", pa.int32()),
        pa.field("label", LABEL_TYPE),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("image", pa.binary()),
    ]
)

_BATCH_ROWS = 128  # images that stay in place are read a batch at a time


class ImageSet:
    """Rows of images with labels, addressed by row number.

    Attributes:
        sample_ids: int64 [rows].
        is_pseudo: bool [rows]: pseudo-labeled, not labeled.
        class_ids: int32 [rows], -1 where there is none.
        copies: int32 [rows]: draws in one pass.
        widths: int32 [rows], pixels.
        heights: int32 [rows], pixels.
    """

    def __init__(self, path: Path, num_classes: int) -> None:
        """Map the Arrow file."""
        self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.num_classes = num_classes
        self.sample_ids = self._table["sample_id"].to_numpy()
        self.is_pseudo = pc.equal(self._table["kind"], "pseudo").to_numpy()
        self.class_ids = self._table["class_id"].fill_null(-1).to_numpy()
        self.copies = self._table["copies"].to_numpy()
        self.widths = self._table["width"].to_numpy()
        self.heights = self._table["height"].to_numpy()
        chunks = self._table["image"].chunks
        self._starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        self._offsets = [_offsets(chunk) for chunk in chunks]
        self._bytes = [np.frombuffer(chunk.buffers()[2], np.uint8) for chunk in chunks]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.sample_ids)

    def image_bytes(self, row: int) -> npt.NDArray[np.uint8]:
        """Return the encoded image of a row, a view into the mapped file."""
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        start, end = self._offsets[chunk][row - self._starts[chunk] :][:2]
        return self._bytes[chunk][start:end]

    def targets(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return float32 [len(rows), classes]: one-hot if labeled, soft if pseudo-labeled."""
        targets = np.zeros((len(rows), self.num_classes), np.float32)
        pseudo = self.is_pseudo[rows]
        hard = np.flatnonzero(~pseudo & (self.class_ids[rows] >= 0))
        targets[hard, self.class_ids[rows[hard]]] = 1
        if pseudo.any():
            labels = self._table["label"].take(pa.array(rows[pseudo])).combine_chunks()
            targets[pseudo] = decode(labels, self.num_classes)
        return targets


def open_view_images(view: View) -> ImageSet:
    """Return the images of a view, in the view's order."""
    record = view.record
    files = value_hash({"files": [shard.path for shard in view.shards()]})
    name = f"{record.view}-{record.version}-{files}"
    path = view.store.cache_folder(f"view-{name}.arrow")
    if not path.is_file():
        _write(path, (_from_view(batch) for batch in view.batches()))
    return ImageSet(path, len(view.store.class_names))


def open_split(store: Store, split: str, *, version: int | None = None) -> ImageSet:
    """Return the accepted images of a split, by ascending sample id.

    Raises:
        InputError: If the split has none.
    """
    table = store.table("images")
    version = table.version() if version is None else version
    corrected = corrected_labels(store)
    content = {
        "files": [shard.path for shard in table.shards(version)],
        "corrected": sorted(corrected.items()),
    }
    path = store.cache_folder(f"split-{split}-{version}-{value_hash(content)}.arrow")
    if not path.is_file():
        where = (pc.field("split") == split) & (pc.field("verdict") == ACCEPTED)
        columns = ["label", "width", "height", *IMAGE_COLUMNS]
        scanner = table.dataset(version).scanner(
            columns=columns, filter=where, use_threads=False, batch_size=_BATCH_ROWS
        )
        _write(path, (_from_images(batch, corrected) for batch in scanner.to_batches()))
    images = ImageSet(path, len(store.class_names))
    if not len(images):
        raise InputError(f"{store.root} has no accepted images of split {split!r}")
    return images


def write_images(path: Path, images: Iterable[tuple[bytes, int, int]]) -> None:
    """Write images that are in no store, as (bytes, width, height), for `ImageSet`."""
    rows = [
        {
            "sample_id": index,
            "kind": "labeled",
            "copies": 1,
            "width": w,
            "height": h,
            "image": b,
        }
        for index, (b, w, h) in enumerate(images)
    ]
    _write(path, pa.Table.from_pylist(rows, schema=_SCHEMA).to_batches())


def _offsets(chunk: pa.BinaryArray) -> npt.NDArray[np.int32]:
    raw = np.frombuffer(chunk.buffers()[1], np.int32)
    return raw[chunk.offset : chunk.offset + len(chunk) + 1]


def _from_view(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.select(_SCHEMA.names).cast(_SCHEMA)


def _from_images(batch: pa.RecordBatch, corrected: Mapping[int, int]) -> pa.RecordBatch:
    count = batch.num_rows
    labels = zip(batch["sample_id"].to_pylist(), batch["label"].to_pylist(), strict=True)
    return pa.record_batch(
        [
            batch["sample_id"],
            pa.repeat(pa.scalar("labeled"), count),
            pa.array([corrected.get(n, label) for n, label in labels], pa.int32()),
            pa.repeat(pa.scalar(1, pa.int32()), count),
            pa.nulls(count, LABEL_TYPE),
            batch["width"],
            batch["height"],
            image_bytes(batch),
        ],
        schema=_SCHEMA,
    )


def _write(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with pa.ipc.new_file(str(temporary), _SCHEMA) as writer:
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(batch)
    temporary.replace(path)
