"""Rows of a selection meet their images: each row group is read once, in order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plstore import storage
from plstore.errors import CommitConflictError, StoreError
from plstore.fingerprint import content_hash
from plstore.images import IMAGE_COLUMNS, image_bytes
from plstore.schema import ACCEPTED

if TYPE_CHECKING:
    from plstore.store import Shard, Store, Table

ViewMode = Literal["packed", "reference"]
"""Where a view's image bytes are: in its own files, or in those of `images`."""

_PLACE_COLUMNS = ("width", "height", "content_hash")
_PACKED_ROWS = 128


@dataclass(frozen=True)
class _RowGroup:
    """A row group of a file of `images`; `number` counts them through the snapshot."""

    file: str
    index: int
    number: int
    first_id: int
    last_id: int
    parquet: pq.ParquetFile


def attach_images(
    store: "Store",
    rows: Iterable[pa.RecordBatch],
    *,
    version: int,
    mode: ViewMode,
    also: Sequence[str] = (),
    among: Sequence["Shard"] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield rows with width, height, content hash, place and, if packed, bytes of their images.

    Each row group of `images` is read at most once, in order, and only where it holds such an
    image. `group` is what the rows are shuffled by: the row group in reference mode, so that it
    is read as one, and the image itself in packed mode.

    Args:
        store: The store.
        rows: With `sample_id`, ascending through all batches.
        version: Of `images`.
        mode: Whether bytes are read.
        also: More columns of `images` that rows get.
        among: The files that hold the images, if that is known; all of the version otherwise.

    Raises:
        StoreError: If an image is not there or was refused.
    """
    table = store.table("images")
    groups = _row_groups(table, table.shards(version) if among is None else among)
    own = [*_PLACE_COLUMNS, *IMAGE_COLUMNS] if mode == "packed" else list(_REFERENCED)
    columns = [*own, *also]
    group: _RowGroup | None = next(groups, None)
    images: pa.Table | None = None
    for batch in rows:
        ids = batch["sample_id"].to_numpy()
        start = 0
        while start < len(ids):
            while group is not None and group.last_id < ids[start]:
                group, images = next(groups, None), None
            if group is None or group.first_id > ids[start]:
                raise _missing(store, version, int(ids[start]))
            if images is None:
                images = group.parquet.read_row_group(group.index, columns=columns)
            end = int(np.searchsorted(ids, group.last_id, side="right"))
            here = images["sample_id"].to_numpy()
            places = np.minimum(np.searchsorted(here, ids[start:end]), len(here) - 1)
            wrong = here[places] != ids[start:end]
            if wrong.any():
                raise _missing(store, version, int(ids[start:end][wrong][0]))
            part = batch.slice(start, end - start)
            yield from _attached(part, group, images, places, mode, also)
            start = end


_REFERENCED = ("sample_id", "verdict", "conversion", *_PLACE_COLUMNS)


def _attached(
    rows: pa.RecordBatch,
    group: _RowGroup,
    images: pa.Table,
    places: npt.NDArray[np.int64],
    mode: ViewMode,
    also: Sequence[str],
) -> Iterator[pa.RecordBatch]:
    step = _PACKED_ROWS if mode == "packed" else len(places)
    for start in range(0, len(places), step):
        taken = places[start : start + step]
        (found,) = images.take(pa.array(taken)).combine_chunks().to_batches()
        refused = pc.filter(found["sample_id"], pc.not_equal(found["verdict"], ACCEPTED))
        if len(refused):
            raise StoreError(
                f"image {refused[0].as_py()} of a selection was refused at import and has a "
                "label all the same; 'plstore query run audit/unknown_images' lists such labels"
            )
        part = rows.slice(start, len(taken))
        count = len(taken)
        packed = mode == "packed"
        images_here = image_bytes(found) if packed else None
        columns = {name: found[name] for name in (*_PLACE_COLUMNS, *also)} | {
            "image_hash": _image_hashes(found, images_here),
            "image_file": pa.repeat(pa.scalar(group.file), count),
            "image_row_group": pa.array(np.full(count, group.index, np.int32)),
            "image_row": pa.array(taken.astype(np.int32)),
            "image": pa.nulls(count, pa.binary()) if images_here is None else images_here,
            "group": part["sample_id"]
            if packed
            else pa.array(np.full(count, group.number, np.int64)),
        }
        for name, values in columns.items():
            part = part.append_column(name, values)
        yield part


def _image_hashes(found: pa.RecordBatch, images: pa.BinaryArray | None) -> pa.StringArray:
    """Return the hash of the bytes that training decodes; null if they are not at hand.

    It is that of the file as it came, but where an image was converted.
    """
    hashes = found["content_hash"].to_pylist()
    for row, conversion in enumerate(found["conversion"].to_pylist()):
        if conversion is not None:
            hashes[row] = None if images is None else content_hash(images[row].as_buffer())
    return pa.array(hashes, pa.string())


def _row_groups(table: "Table", shards: Sequence["Shard"]) -> Iterator[_RowGroup]:
    """Yield the row groups of files of `images`, by ascending sample id."""
    shards = sorted(shards, key=lambda shard: shard.first_id)
    sizes = {storage.arrow_path(str(table.root / s.path)): s.size_bytes for s in shards}
    filesystem = storage.arrow_filesystem(table.root, sizes)
    number = 0
    for path, shard in zip(sizes, shards, strict=True):
        with pq.ParquetFile(path, filesystem=filesystem) as parquet:
            leaves = range(parquet.metadata.num_columns)
            column = next(n for n in leaves if parquet.schema.column(n).path == "sample_id")
            for index in range(parquet.num_row_groups):
                bounds = parquet.metadata.row_group(index).column(column).statistics
                yield _RowGroup(
                    file=shard.path,
                    index=index,
                    number=number,
                    first_id=shard.first_id if bounds is None else bounds.min,
                    last_id=shard.last_id if bounds is None else bounds.max,
                    parquet=parquet,
                )
                number += 1


def _missing(store: "Store", version: int, sample_id: int) -> StoreError:
    where = pc.field("sample_id") == sample_id
    if store.table("deletions").dataset().count_rows(filter=where):
        return CommitConflictError(
            f"image {sample_id} was deleted from {store.root} while it was being selected. "
            "Nothing was written; run the same command again"
        )
    return StoreError(
        f"image {sample_id} is selected and is not in version {version} of images in "
        f"{store.root}; 'plstore query run audit/unknown_images' lists labels without an image"
    )
