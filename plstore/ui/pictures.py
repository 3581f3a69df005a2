"""Images as a browser shows them: many at a time, drawn small, none decoded over a limit."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from plstore import storage
from plstore.errors import StoreError
from plstore.images import IMAGE_COLUMNS, image_bytes
from plstore.report.pictures import MOST_PIXELS, Picture, draw
from plstore.schema import ACCEPTED
from plstore.store import Shard, Table
from plstore.ui.snapshot import Snapshot

THUMBNAIL: Final = 176
LARGE: Final = 1024
_CACHE_BYTES: Final = 48 << 20
_COLUMNS: Final = (*IMAGE_COLUMNS, "width", "height")


class Pictures:
    """Small images of one snapshot, the last ones kept in memory."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Take the snapshot whose images are read."""
        self._snapshot = snapshot
        self._lock = Lock()
        self._kept: OrderedDict[tuple[int, int], Picture] = OrderedDict()
        self._num_bytes = 0

    def of(self, sample_ids: Sequence[int], side: int = THUMBNAIL) -> dict[int, Picture]:
        """Return images by id, drawn within a square of some pixels; each file is read once."""
        with self._lock:
            found = {i: self._kept[i, side] for i in sample_ids if (i, side) in self._kept}
        missing = sorted(set(sample_ids) - found.keys())
        for rows in read_images(self._snapshot, missing):
            for row in rows:
                picture = draw(row, side)
                found[row["sample_id"]] = picture
                self._keep((row["sample_id"], side), picture)
        gone = Picture(why="not in the store")
        return {i: found.get(i, gone) for i in sample_ids}

    def _keep(self, key: tuple[int, int], picture: Picture) -> None:
        with self._lock:
            self._kept[key] = picture
            self._num_bytes += len(picture.data)
            while self._num_bytes > _CACHE_BYTES and len(self._kept) > 1:
                _, old = self._kept.popitem(last=False)
                self._num_bytes -= len(old.data)


def pictures(snapshot: Snapshot) -> Pictures:
    """Return the images of a snapshot."""
    return snapshot.once("pictures", lambda: Pictures(snapshot))


def read_images(
    snapshot: Snapshot, sample_ids: Sequence[int]
) -> Iterator[list[dict[str, Any]]]:
    """Yield rows of `images` with ``bytes``, and ``why`` where these cannot be had.

    A row group that holds some of the ids is read once, and only its columns of images.

    Args:
        snapshot: Of the store.
        sample_ids: Ascending.
    """
    wanted = np.array(sample_ids, np.int64)
    if not len(wanted):
        return
    table = snapshot.store.table("images")
    for shard in table.shards(snapshot.pins["images"]):
        here = wanted[(wanted >= shard.first_id) & (wanted <= shard.last_id)]
        if len(here):
            for batch in _batches_of(table, shard, here):
                yield _with_bytes(batch)


def _batches_of(
    table: Table, shard: Shard, ids: npt.NDArray[np.int64]
) -> Iterator[pa.RecordBatch]:
    path = storage.arrow_path(str(table.root / shard.path))
    filesystem = storage.arrow_filesystem(table.root)
    with pq.ParquetFile(path, filesystem=filesystem) as file:
        for index in range(file.num_row_groups):
            low, high = _bounds(file, index)
            here = ids[(ids >= low) & (ids <= high)]
            if not len(here):
                continue
            there = file.read_row_group(index, columns=["sample_id"])["sample_id"].to_numpy()
            rows = np.flatnonzero(np.isin(there, here))
            if len(rows):
                group = file.read_row_group(index, columns=list(_COLUMNS))
                yield from group.take(pa.array(rows)).combine_chunks().to_batches()


def _bounds(file: pq.ParquetFile, index: int) -> tuple[int, int]:
    """Return the lowest and highest id of a row group, as far as its statistics tell."""
    for leaf in range(file.metadata.num_columns):
        column = file.metadata.row_group(index).column(leaf)
        if column.path_in_schema == "sample_id" and column.statistics is not None:
            return column.statistics.min, column.statistics.max
    return 0, np.iinfo(np.int64).max


def _with_bytes(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows with their bytes; those left in place are read one by one if one is lost."""
    why: dict[int, str] = {}
    shown = _within_limit(batch)
    try:
        data = image_bytes(shown, tolerant=True).to_pylist()
    except (StoreError, OSError):
        data = [_alone(shown.slice(n, 1), n, why) for n in range(shown.num_rows)]
    rows = batch.select(["sample_id", "verdict", "width", "height"]).to_pylist()
    ids = dict(zip(shown["sample_id"].to_pylist(), data, strict=True))
    reasons = {shown["sample_id"][n].as_py(): text for n, text in why.items()}
    return [
        {
            **row,
            "bytes": ids.get(row["sample_id"]),
            "why": reasons.get(row["sample_id"], "")
            or ("" if ids.get(row["sample_id"], b"") is not None else "its file is gone"),
        }
        for row in rows
    ]


def _within_limit(batch: pa.RecordBatch) -> pa.RecordBatch:
    sizes = batch["width"].to_numpy(zero_copy_only=False).astype(np.float64)
    pixels = np.nan_to_num(sizes) * np.nan_to_num(
        batch["height"].to_numpy(zero_copy_only=False).astype(np.float64)
    )
    accepted = np.array([verdict == ACCEPTED for verdict in batch["verdict"].to_pylist()], bool)
    return batch.filter(pa.array(accepted & (pixels <= MOST_PIXELS)))


def _alone(row: pa.RecordBatch, place: int, why: dict[int, str]) -> bytes | None:
    try:
        found: bytes | None = image_bytes(row, tolerant=True)[0].as_py()
    except (StoreError, OSError) as error:
        why[place] = str(error)
        return None
    return found
