"""How the rows of a view are put in order: a seeded shuffle that reads and writes in sequence.

Rows come by ascending sample id, meet their images there, and leave in the order of seeded
keys. What does not fit into memory goes through files: rows are dealt into buckets by their
keys, and each bucket is sorted alone, so the order is the same for any number of buckets.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plstore import storage
from plstore.errors import CommitConflictError, StoreError
from plstore.fingerprint import content_hash
from plstore.schema import ACCEPTED
from plstore.seeds import Purpose, shuffle_keys
from plstore.store.pixels import IMAGE_COLUMNS, image_bytes

if TYPE_CHECKING:
    from plstore.store.store import Store
    from plstore.store.table import Table

ViewMode = Literal["packed", "reference"]
"""Where a view's image bytes are: in its own files, or in those of `images`."""

_PLACE_COLUMNS = ("width", "height", "content_hash")
_PACKED_ROWS = 128
_BUCKET_BYTES = 64 << 20
_MOST_BUCKETS = 256
_REFERENCE_ROW_BYTES = 200


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
    store: "Store", rows: Iterable[pa.RecordBatch], *, version: int, mode: ViewMode
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

    Raises:
        StoreError: If an image is not there or was refused.
    """
    groups = _row_groups(store.table("images"), version)
    columns = [*_PLACE_COLUMNS, *IMAGE_COLUMNS] if mode == "packed" else list(_REFERENCED)
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
            yield from _attached(batch.slice(start, end - start), group, images, places, mode)
            start = end


_REFERENCED = ("sample_id", "verdict", "conversion", *_PLACE_COLUMNS)


def _attached(
    rows: pa.RecordBatch,
    group: _RowGroup,
    images: pa.Table,
    places: npt.NDArray[np.int64],
    mode: ViewMode,
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
        columns = {name: found[name] for name in _PLACE_COLUMNS} | {
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


def _row_groups(table: "Table", version: int) -> Iterator[_RowGroup]:
    """Yield the row groups of a snapshot of `images`, by ascending sample id."""
    filesystem = storage.arrow_filesystem(table.root)
    number = 0
    for shard in sorted(table.shards(version), key=lambda shard: shard.first_id):
        path = storage.arrow_path(str(table.root / shard.path))
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


def shuffled(
    rows: Iterable[pa.RecordBatch], *, seed: int, num_bytes: int, folder: Path
) -> Iterator[pa.Table]:
    """Yield rows in the order of seeded keys of their `group`, then of their sample id.

    Args:
        rows: With `group` and `sample_id`; `group` does not come out.
        seed: Of the order.
        num_bytes: About how much they take; more than 64 MiB go through files.
        folder: Local, for those files; they are gone afterwards.
    """
    count = min(-(-num_bytes // _BUCKET_BYTES), _MOST_BUCKETS)
    if count <= 1:
        parts = list(rows)
        if parts:
            yield _sorted(pa.Table.from_batches(parts), seed)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".shuffle-", dir=folder) as name:
        paths = [Path(name) / f"{bucket:03d}.arrow" for bucket in range(count)]
        for bucket in sorted(_deal(rows, paths, seed)):
            try:
                with pa.memory_map(str(paths[bucket])) as file:
                    yield _sorted(pa.ipc.open_stream(file).read_all(), seed)
            except FileNotFoundError as error:
                raise StoreError(
                    f"{paths[bucket]} was deleted while it was needed, by 'plstore gc' with "
                    "too short a grace? Nothing was written; run the same command again"
                ) from error
            paths[bucket].unlink()


def _deal(rows: Iterable[pa.RecordBatch], paths: Sequence[Path], seed: int) -> set[int]:
    """Write rows to the files of their buckets; return which there are."""
    writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
    with ExitStack() as stack:
        for batch in rows:
            keys = shuffle_keys(batch["group"].to_numpy(), seed, Purpose.VIEW_GROUPS)
            buckets = ((keys >> np.uint64(32)) * np.uint64(len(paths))) >> np.uint64(32)
            order = np.argsort(buckets, kind="stable")
            ranked = batch.take(pa.array(order))
            found, starts = np.unique(buckets[order], return_index=True)
            ends = [*starts[1:].tolist(), len(order)]
            for bucket, start, end in zip(found.tolist(), starts.tolist(), ends, strict=True):
                if bucket not in writers:
                    writer = pa.ipc.new_stream(str(paths[bucket]), batch.schema)
                    writers[bucket] = stack.enter_context(writer)
                writers[bucket].write_batch(ranked.slice(start, end - start))
    return set(writers)


def _sorted(rows: pa.Table, seed: int) -> pa.Table:
    groups, ids = rows["group"].to_numpy(), rows["sample_id"].to_numpy()
    order = np.lexsort(
        (
            ids,
            shuffle_keys(ids, seed, Purpose.VIEW_ROWS),
            groups,
            shuffle_keys(groups, seed, Purpose.VIEW_GROUPS),
        )
    )
    return rows.drop_columns(["group"]).take(pa.array(order))
