"""Images of a view by reference: read where they are, a row group at a time."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plstore import storage
from plstore.errors import StoreError
from plstore.images import IMAGE_COLUMNS, image_bytes

if TYPE_CHECKING:
    from plstore.store import Store

_BATCH_ROWS = 128


class ReferencedImages:
    """Reads the images that rows of a view name, in the order of those rows.

    Such rows stand together by row group, so each is read once. A place is checked by the
    sample id that stands there; images whose file was written anew since, because others in it
    were deleted, are found by their ids.
    """

    def __init__(self, store: "Store", version: int, *, tolerant: bool = False) -> None:
        """Name the snapshot of `images`; nothing is read until it is needed.

        Args:
            store: The store.
            version: Of `images`.
            tolerant: Whether an image that stays in place and cannot be read is null.
        """
        self._tolerant = tolerant
        self._table = store.table("images")
        self._version = version
        self._place: tuple[str, int] | None = None
        self._rows: pa.Table | None = None

    def fill(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return rows of `view_rows` with `image` filled in.

        Raises:
            StoreError: If an image is not there any more.
        """
        if not rows.num_rows:
            return rows
        places = list(
            zip(
                rows["image_file"].to_pylist(), rows["image_row_group"].to_pylist(), strict=True
            )
        )
        starts = [n for n, place in enumerate(places) if not n or place != places[n - 1]]
        parts: list[pa.Array] = []
        for start, end in zip(starts, [*starts[1:], len(places)], strict=True):
            for first in range(start, end, _BATCH_ROWS):
                part = rows.slice(first, min(_BATCH_ROWS, end - first))
                parts.append(self._read(places[first], part))
        images = pa.chunked_array(parts, pa.binary()).combine_chunks()
        index = rows.schema.get_field_index("image")
        return rows.set_column(index, rows.schema.field("image"), images)

    def _read(self, place: tuple[str, int], rows: pa.RecordBatch) -> pa.BinaryArray:
        ids = rows["sample_id"].to_numpy()
        images = self._row_group(place)
        if images is not None:
            there = images["sample_id"].to_numpy()
            taken = rows["image_row"].to_numpy()
            if taken.max() >= len(there) or (there[taken] != ids).any():
                raise StoreError(
                    f"{place[0]} of images in {self._table.root} does not hold image {ids[0]} "
                    "where the view says; 'plstore verify' tells what is wrong"
                )
        else:
            images, taken = self._by_id(ids)
        (found,) = images.take(pa.array(taken)).combine_chunks().to_batches()
        return image_bytes(found, tolerant=self._tolerant)

    def _row_group(self, place: tuple[str, int]) -> pa.Table | None:
        """Return a row group, or None where its file was written anew."""
        if place != self._place:
            self._place, self._rows = place, None
            if place[0] not in self._table.erasures.by_path():
                path = storage.arrow_path(str(self._table.root / place[0]))
                filesystem = storage.arrow_filesystem(self._table.root)
                with pq.ParquetFile(path, filesystem=filesystem) as file:
                    self._rows = file.read_row_group(place[1], columns=list(IMAGE_COLUMNS))
        return self._rows

    def _by_id(self, ids: npt.NDArray[np.int64]) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        where = pc.field("sample_id").isin(pa.array(ids))
        found = self._table.read(
            version=self._version, columns=list(IMAGE_COLUMNS), where=where
        ).sort_by("sample_id")
        there = found["sample_id"].to_numpy()
        places = np.searchsorted(there, ids)
        if len(there) != len(ids):
            missing = np.setdiff1d(ids, there)
            raise StoreError(
                f"image {missing[0]} of a view is gone from images in {self._table.root}; was "
                "a deletion stopped? Run the same deletion again"
            )
        return found, places
