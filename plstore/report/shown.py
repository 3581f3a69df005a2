"""Images as a browser shows them: many at a time, drawn small, none decoded over a limit."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from plstore.report.snapshot import Snapshot
from plstore.schema import ACCEPTED
from plstore.store import Shard, Table

THUMBNAIL: Final = 176
LARGE: Final = 1024
_CACHE_BYTES: Final = 48 << 20
_FACT_BYTES: Final = 300
_SHOWN: Final = ("sample_id", "key", "split", "label", "verdict", "width", "height")
_COLUMNS: Final = (*_SHOWN, "image")
_IN_PLACE: Final = (*dict.fromkeys((*IMAGE_COLUMNS, *_COLUMNS)),)  # where bytes are elsewhere
_AT_ONCE: Final = 4  # files that are read at a time


@dataclass(frozen=True, kw_only=True)
class Fact:
    """What an image is filed as: its name, its split, and its class, if it has one."""

    key: str
    split: str
    label: int | None


class Pictures:
    """Small images of one snapshot with what they are filed as, the last ones in memory."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Take the snapshot whose images are read."""
        self._snapshot = snapshot
        self._lock = Lock()
        self._kept: OrderedDict[tuple[int, int], tuple[Picture, Fact]] = OrderedDict()
        self._num_bytes = 0

    def of(self, sample_ids: Sequence[int], side: int = THUMBNAIL) -> dict[int, Picture]:
        """Return images by id, drawn within a square of some pixels; each file is read once."""
        found = self._read(sample_ids, side)
        gone = Picture(why="not in the store")
        return {i: found[i][0] if i in found else gone for i in sample_ids}

    def facts(self, sample_ids: Sequence[int]) -> dict[int, Fact]:
        """Return what images are filed as; without those that are not in the store."""
        return {i: fact for i, (_, fact) in self._read(sample_ids, THUMBNAIL).items()}

    def _read(self, sample_ids: Sequence[int], side: int) -> dict[int, tuple[Picture, Fact]]:
        with self._lock:
            found = {i: self._kept[i, side] for i in sample_ids if (i, side) in self._kept}
        missing = sorted(set(sample_ids) - found.keys())
        for rows in read_images(self._snapshot, missing):
            for row in rows:
                fact = Fact(key=row["key"], split=row["split"], label=row["label"])
                found[row["sample_id"]] = draw(row, side), fact
                self._keep((row["sample_id"], side), found[row["sample_id"]])
        return found

    def _keep(self, key: tuple[int, int], shown: tuple[Picture, Fact]) -> None:
        with self._lock:
            self._kept[key] = shown
            self._num_bytes += len(shown[0].data) + _FACT_BYTES
            while self._num_bytes > _CACHE_BYTES and len(self._kept) > 1:
                _, (old, _) = self._kept.popitem(last=False)
                self._num_bytes -= len(old.data) + _FACT_BYTES


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
    shards = [
        (shard, here)
        for shard in table.shards(snapshot.pins["images"])
        if len(here := wanted[(wanted >= shard.first_id) & (wanted <= shard.last_id)])
    ]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for batches in pool.map(lambda one: _batches_of(table, *one), shards):
            yield from map(_with_bytes, batches)


def _batches_of(table: Table, shard: Shard, ids: npt.NDArray[np.int64]) -> list[pa.RecordBatch]:
    path = storage.arrow_path(str(table.root / shard.path))
    filesystem = storage.arrow_filesystem(table.root)
    found: list[pa.RecordBatch] = []
    is_local = not storage.is_remote(table.root)
    with pq.ParquetFile(path, filesystem=filesystem, memory_map=is_local) as file:
        for index in range(file.num_row_groups):
            low, high = _bounds(file, index)
            here = ids[(ids >= low) & (ids <= high)]
            if not len(here):
                continue
            if batch := _rows_of(file, index, here):
                found.append(batch)
    return found


def _rows_of(
    file: pq.ParquetFile, index: int, ids: npt.NDArray[np.int64]
) -> pa.RecordBatch | None:
    """Return images of a row group; with what tells their files only where one needs it."""

    def read(columns: Sequence[str]) -> list[pa.RecordBatch]:
        group = file.read_row_group(index, columns=list(columns), use_threads=False)
        rows = np.flatnonzero(np.isin(group["sample_id"].to_numpy(), ids))
        found: list[pa.RecordBatch] = group.take(pa.array(rows)).combine_chunks().to_batches()
        return found

    found = read(_COLUMNS)
    if found and found[0]["image"].field("bytes").null_count:
        found = read(_IN_PLACE)
    return found[0] if found else None


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
    rows = batch.select(list(_SHOWN)).to_pylist()
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
