"""A view is written: its rows in files, then the row that makes it exist."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.fingerprint import canonical_json
from plstore.store import Claim
from plstore.views.shrinking import Shrinking
from plstore.views.view import View, ViewRecord, check_view_name

if TYPE_CHECKING:
    from plstore.store import PartitionValues, Store

_SHARD_ROWS = 131_072
_SHARD_BYTES = 256 << 20
_PIECE_ROWS = 1024


def next_version(store: "Store", name: str, identity: str) -> int:
    """Return the version that a selection gets: a new one, or its own if it was cut short."""
    table = store.table("view_rows")
    own = table.transaction(identity)
    return table.sequence(f"view-{name}") + 1 if own is None else own


def write_view(
    store: "Store",
    record: ViewRecord,
    tables: Iterable[pa.Table],
    shrinking: Shrinking | None = None,
) -> View:
    """Write a view's rows, commit them, then the row of `views` that makes it exist.

    Args:
        store: Where to.
        record: What is known before the rows are written; its sums are filled in here.
        tables: Rows with the columns of `view_rows`, without view and version, in their order:
            labeled images first. A file holds one kind.
        shrinking: What the rows come through, if their images are shrunk: once all have come,
            the record and the lineage of the rows say how many were.

    Raises:
        InputError: If there are no rows.
        CommitConflictError: If another selection took the same version; select again.
    """
    check_view_name(record.view)
    table = store.table("view_rows")
    partition: PartitionValues = {"view": record.view, "version": record.version}
    shards, num_images, num_draws = [], 0, 0
    for index, rows in enumerate(_shards(tables)):
        name = f"{record.identity}-{index:06d}"
        shards.append(table.write_shard(name, rows, partition))
        num_images += rows.num_rows
        num_draws += int(pc.sum(rows["copies"]).as_py() or 0)
    if not shards:
        raise InputError(
            f"the selection for view {record.view!r} is empty: no labeled image and no "
            f"pseudo-label was kept ({canonical_json(dict(record.counts))})"
        )
    lineage = {"step": "select", "view": record.view, "version": record.version}
    counts = dict(record.counts)
    if shrinking is not None:
        counts["shrunk"] = shrinking.num_shrunk
        lineage |= {**vars(shrinking.shrink), "shrunk": shrinking.num_shrunk}
    claim = Claim(name=f"view-{record.view}", start=record.version - 1, end=record.version)
    rows_version = table.commit(
        shards, lineage=lineage, transaction=record.identity, claim=claim
    )
    sums = {"num_images": num_images, "num_draws": num_draws, "rows_version": rows_version}
    complete = ViewRecord(**{**vars(record), **sums, "counts": counts})
    schema = store.table("views").spec.columns
    store.table("views").append(
        pa.Table.from_pylist([complete.as_row()], schema=schema),
        lineage=lineage,
        transaction=record.identity,
    )
    return View(store, complete)


def _shards(tables: Iterable[pa.Table]) -> Iterable[pa.Table]:
    """Yield the rows in pieces of the size of a file, none with rows of two kinds."""
    parts: list[pa.RecordBatch] = []
    num_rows, num_bytes = 0, 0
    for table in tables:
        for batch in table.to_batches(max_chunksize=_PIECE_ROWS):
            changes = parts and parts[0]["kind"][0] != batch["kind"][0]
            full = num_rows + batch.num_rows > _SHARD_ROWS or num_bytes >= _SHARD_BYTES
            if parts and (changes or full):
                yield pa.Table.from_batches(parts)
                parts, num_rows, num_bytes = [], 0, 0
            parts.append(batch)
            num_rows += batch.num_rows
            num_bytes += batch.nbytes
    if parts:
        yield pa.Table.from_batches(parts)
