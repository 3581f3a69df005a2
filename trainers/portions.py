"""Images of a store in portions that fit into memory, as a model looks at them."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore.fingerprint import content_hash
from plstore.images import IMAGE_COLUMNS, image_bytes
from plstore.loaders.imageset import ImageSet, image_table
from plstore.schema import ACCEPTED
from plstore.store import Shard, Store, Table

_BATCH = 1024
_BATCH_BYTES = 64 << 20
_NO_END = 1 << 62


def read_images(
    store: Store, ids: npt.NDArray[np.int64], version: int
) -> Iterator[tuple[npt.NDArray[np.int64], ImageSet]]:
    """Yield images in portions, with their ids: without those that were deleted meanwhile.

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
        images = ImageSet(image_table(_encoded_images(rows)), len(store.class_names))
        yield rows["sample_id"].to_numpy(), images


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


def _encoded_images(rows: pa.Table) -> Iterator[tuple[bytes, int, int, str]]:
    """Yield bytes, width, height and hash of each row of `images`."""
    columns = ("width", "height", "content_hash", "conversion")
    for batch in rows.to_batches():
        values = [batch[name].to_pylist() for name in columns]
        for data, width, height, digest, conversion in zip(
            image_bytes(batch).to_pylist(), *values, strict=True
        ):
            as_it_came = conversion is None  # the hash is of the file as it came
            yield data, width, height, digest if as_it_came else content_hash(data)
