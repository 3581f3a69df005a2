"""Images and labels by row number: an Arrow table, in memory or mapped from a file.

A single random row of a Parquet file costs up to 45 ms, of a mapped Arrow file microseconds.
So rows are copied once, in a stream, from the store's Parquet to an Arrow file in the store's
cache, its twin; the system keeps in memory what is used. Deleting it costs the copy.
"""

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore.codec import decode
from plstore.errors import InputError
from plstore.fingerprint import content_hash, value_hash
from plstore.images import IMAGE_COLUMNS, image_bytes, judge, large_images_are_verdicts
from plstore.schema import ACCEPTED, LABEL_TYPE
from plstore.scratch import put_in_place
from plstore.store import Store
from plstore.upkeep import corrected_labels
from plstore.views import View, with_weights

ROW_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.int64()),
        pa.field("kind", pa.string()),
        pa.field("class_id", pa.int32()),
        pa.field("copies", pa.int32()),
        pa.field("weight", pa.float32()),
        pa.field("label", LABEL_TYPE),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("image_hash", pa.string()),
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
        weights: float32 [rows], above 0, up to 1: what a row counts for in a loss.
        widths: int32 [rows], pixels.
        heights: int32 [rows], pixels.
    """

    def __init__(self, table: pa.Table, num_classes: int) -> None:
        """Address the rows of a table of `ROW_SCHEMA`."""
        table = pa.Table.from_batches(table.to_batches(), table.schema)  # chunks of all columns
        self.num_classes = num_classes
        self.sample_ids = table["sample_id"].to_numpy()
        self.is_pseudo = pc.equal(table["kind"], "pseudo").to_numpy()
        self.class_ids = table["class_id"].fill_null(-1).to_numpy()
        self.copies = table["copies"].to_numpy()
        self.weights = table["weight"].to_numpy()
        self.widths = table["width"].to_numpy()
        self.heights = table["height"].to_numpy()
        self._labels = table["label"].chunks
        self._judged: dict[int, bool] = {}
        self._hashes = table["image_hash"].chunks
        chunks = table["image"].chunks
        self._starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        self._offsets = [_offsets(chunk) for chunk in chunks]
        self._bytes = [np.frombuffer(chunk.buffers()[2] or b"", np.uint8) for chunk in chunks]

    @classmethod
    def map(cls, path: Path, num_classes: int) -> "ImageSet":
        """Map an Arrow file."""
        return cls(pa.ipc.open_file(pa.memory_map(str(path))).read_all(), num_classes)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.sample_ids)

    def read(
        self, rows: npt.NDArray[np.int64]
    ) -> tuple[list[npt.NDArray[np.uint8]], npt.NDArray[np.bool_]]:
        """Return encoded images, views into the table, and whether each is what the store says.

        It is, if it has the hash that the store names. An image that the store has no hash of
        (one that was converted at import, in a view by reference) is decoded in full once.
        """
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        places = rows - self._starts[chunks]
        encoded: list[npt.NDArray[np.uint8]] = []
        intact = np.zeros(len(rows), np.bool_)
        where = zip(rows.tolist(), chunks.tolist(), places.tolist(), strict=True)
        for slot, (row, chunk, place) in enumerate(where):
            start, end = self._offsets[chunk][place : place + 2].tolist()
            data = self._bytes[chunk][start:end]
            encoded.append(data)
            expected = self._hashes[chunk][place].as_py()
            if expected is None:
                intact[slot] = self._is_an_image(row, data)
            else:
                intact[slot] = content_hash(data.data) == expected
        return encoded, intact

    def _is_an_image(self, row: int, data: npt.NDArray[np.uint8]) -> bool:
        if row not in self._judged:
            with large_images_are_verdicts():
                verdict = judge(data.tobytes(), max_pixels=1 << 62, max_seconds=None)
            self._judged[row] = verdict.data is not None
        return self._judged[row]

    def targets(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return float32 [len(rows), classes]: one-hot if labeled, soft if pseudo-labeled."""
        targets = np.zeros((len(rows), self.num_classes), np.float32)
        pseudo = self.is_pseudo[rows]
        hard = np.flatnonzero(~pseudo & (self.class_ids[rows] >= 0))
        targets[hard, self.class_ids[rows[hard]]] = 1
        soft = np.flatnonzero(pseudo)
        chunks = np.searchsorted(self._starts, rows[soft], side="right") - 1
        for chunk in np.unique(chunks).tolist():
            here = soft[chunks == chunk]
            places = pa.array(rows[here] - self._starts[chunk])
            targets[here] = decode(self._labels[chunk].take(places), self.num_classes)
        return targets


def view_hash(view: View) -> str:
    """Return the identity of what a view holds now: deletions change it."""
    return value_hash({"view": view.key, "files": [shard.path for shard in view.shards()]})


def open_view_images(view: View) -> ImageSet:
    """Return the images of a view, in the view's order, from its Arrow twin.

    Images that stay in place and whose files are gone or changed are empty there; the twin is
    made again when one of them is back.
    """
    record = view.record
    name = f"view-{record.view}-{record.version}-{view_hash(view)}.arrow"
    path = view.store.cache_folder(name)
    if not path.is_file() or _is_stale(view, path):
        with _one_writer(path):
            if not path.is_file() or _is_stale(view, path):
                _write(path, (rows_of_view(batch) for batch in view.batches(tolerant=True)))
    return ImageSet.map(path, len(view.store.class_names))


def _is_stale(view: View, path: Path) -> bool:
    """Whether an older plstore made a twin, or an image that it lacks can be read now."""
    twin = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    if twin.schema.names != ROW_SCHEMA.names:
        return True
    if not twin["image"].null_count:
        return False
    lost = twin.filter(pc.is_null(twin["image"]))["sample_id"]
    rows = view.store.table("images").read(
        version=view.record.pins["images"],
        columns=list(IMAGE_COLUMNS),
        where=pc.field("sample_id").isin(lost.combine_chunks()),
    )
    return any(
        image_bytes(batch, tolerant=True).null_count < batch.num_rows
        for batch in rows.to_batches(max_chunksize=_BATCH_ROWS)
    )


def open_split(
    store: Store, split: str, *, version: int | None = None, corrections: int | None = None
) -> ImageSet:
    """Return the accepted images of a split, by ascending sample id.

    Args:
        store: Where they are.
        split: Which.
        version: Of the table `images`; the newest unless given.
        corrections: Version of the table `corrections`, whose labels take the place of the
            imported ones; the newest unless given.

    Raises:
        InputError: If the split has none.
    """
    table = store.table("images")
    version = table.version() if version is None else version
    corrected = corrected_labels(store, corrections)
    content = {
        "files": [shard.path for shard in table.shards(version)],
        "corrected": sorted(corrected.items()),
        "columns": ROW_SCHEMA.names,
    }
    path = store.cache_folder(f"split-{split}-{version}-{value_hash(content)}.arrow")
    if not path.is_file():
        where = (pc.field("split") == split) & (pc.field("verdict") == ACCEPTED)
        columns = ["label", "width", "height", *IMAGE_COLUMNS]
        scanner = table.dataset(version).scanner(
            columns=columns, filter=where, use_threads=False, batch_size=_BATCH_ROWS
        )
        _write(path, (_from_images(batch, corrected) for batch in scanner.to_batches()))
    images = ImageSet.map(path, len(store.class_names))
    if not len(images):
        raise InputError(f"{store.root} has no accepted images of split {split!r}")
    return images


def image_table(images: Iterable[tuple[bytes, int, int, str]]) -> pa.Table:
    """Return images, as (bytes, width, height, expected hash of the bytes), for `ImageSet`."""
    rows = [
        {
            "sample_id": index,
            "kind": "labeled",
            "copies": 1,
            "weight": 1.0,
            "width": width,
            "height": height,
            "image_hash": digest,
            "image": data,
        }
        for index, (data, width, height, digest) in enumerate(images)
    ]
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def rows_of_view(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows of `view_rows` as `ImageSet` takes them; older ones lack some columns."""
    batch = with_weights(batch)
    if "image_hash" not in batch.schema.names:
        batch = batch.append_column("image_hash", pa.nulls(batch.num_rows, pa.string()))
    return batch.select(ROW_SCHEMA.names).cast(ROW_SCHEMA)


def _offsets(chunk: pa.BinaryArray) -> npt.NDArray[np.int32]:
    raw = np.frombuffer(chunk.buffers()[1], np.int32)
    return raw[chunk.offset : chunk.offset + len(chunk) + 1]


def _from_images(batch: pa.RecordBatch, corrected: Mapping[int, int]) -> pa.RecordBatch:
    count = batch.num_rows
    labels = zip(batch["sample_id"].to_pylist(), batch["label"].to_pylist(), strict=True)
    as_it_came = pc.is_null(batch["conversion"])
    return pa.record_batch(
        [
            batch["sample_id"],
            pa.repeat(pa.scalar("labeled"), count),
            pa.array([corrected.get(n, label) for n, label in labels], pa.int32()),
            pa.repeat(pa.scalar(1, pa.int32()), count),
            pa.repeat(pa.scalar(1, pa.float32()), count),
            pa.nulls(count, LABEL_TYPE),
            batch["width"],
            batch["height"],
            pc.if_else(as_it_came, batch["content_hash"], pa.scalar(None, pa.string())),
            image_bytes(batch),
        ],
        schema=ROW_SCHEMA,
    )


def _write(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    with (
        put_in_place(path) as temporary,
        pa.ipc.new_file(str(temporary), ROW_SCHEMA) as writer,
    ):
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(batch)


@contextmanager
def _one_writer(path: Path) -> Iterator[None]:
    """Let one process of a machine copy, while the ranks beside it wait for the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
