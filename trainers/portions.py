"""Images of a store in portions that fit into memory, as a model looks at them."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from plstore.fingerprint import content_hash
from plstore.images import image_bytes
from plstore.store import Shard, Table

_BATCH = 1024
_BATCH_BYTES = 64 << 20


def encoded_images(rows: pa.Table) -> Iterator[tuple[bytes, int, int, str]]:
    """Yield bytes, width, height and hash of each row of `images`."""
    columns = ("width", "height", "content_hash", "conversion")
    for batch in rows.to_batches():
        values = [batch[name].to_pylist() for name in columns]
        for data, width, height, digest, conversion in zip(
            image_bytes(batch).to_pylist(), *values, strict=True
        ):
            as_it_came = conversion is None  # the hash is of the file as it came
            yield data, width, height, digest if as_it_came else content_hash(data)


def portions(
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
