"""The order of a view: a seeded shuffle that reads and writes in sequence.

Rows come by ascending sample id, meet their images there, and leave in the order of seeded
keys. What does not fit into memory goes through files: rows are dealt into buckets by their
keys, and each bucket is sorted alone, so the order is the same for any number of buckets.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.errors import StoreError
from plstore.seeds import Purpose, shuffle_keys

Ints = npt.NDArray[np.int64]

_BUCKET_BYTES = 64 << 20
_MOST_BUCKETS = 256


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
    order = order_of(rows["group"].to_numpy(), rows["sample_id"].to_numpy(), seed)
    return rows.drop_columns(["group"]).take(pa.array(order))


def order_of(groups: Ints, ids: Ints, seed: int) -> Ints:
    """Return in which order rows are in a view.

    Args:
        groups: int64 [rows].
        ids: int64 [rows].
        seed: Of the order.
    """
    return np.lexsort(
        (
            ids,
            shuffle_keys(ids, seed, Purpose.VIEW_ROWS),
            groups,
            shuffle_keys(groups, seed, Purpose.VIEW_GROUPS),
        )
    )
