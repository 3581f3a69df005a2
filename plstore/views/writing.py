"""A view is written: its rows in files, then the row that makes it exist."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.fingerprint import canonical_json
from plstore.store import Claim, Shard
from plstore.views.shrinking import Shrink
from plstore.views.view import View, ViewRecord, check_view_name

if TYPE_CHECKING:
    from plstore.store import PartitionValues, Store

FILE_BYTES = 256 << 20
PIECE_ROWS = 1024
_FILE_ROWS = 131_072


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file of a view, that nothing names yet.

    Attributes:
        shard: The file.
        num_draws: Copies of its images, together.
    """

    shard: Shard
    num_draws: int


def next_version(store: "Store", name: str, identity: str) -> int:
    """Return the version that a selection gets: a new one, or its own if it was cut short."""
    table = store.table("view_rows")
    own = table.transaction(identity)
    return table.sequence(f"view-{name}") + 1 if own is None else own


def write_rows(
    store: "Store", record: ViewRecord, tables: Iterable[pa.Table]
) -> Iterator[Written]:
    """Write the rows of a view by reference.

    Args:
        store: Where to.
        record: What is known before the rows are written.
        tables: Rows with the columns of `view_rows`, without view and version, in their order:
            labeled images first. A file holds one kind.
    """
    batches = (b for table in tables for b in table.to_batches(max_chunksize=PIECE_ROWS))
    for number, rows in enumerate(in_files((batch, batch.nbytes) for batch in batches)):
        name = f"{record.identity}-{number:06d}"
        yield write_file(store, record.view, record.version, name, rows)


def write_file(store: "Store", view: str, version: int, name: str, rows: pa.Table) -> Written:
    """Write a file of a view under the name that it keeps."""
    partition: PartitionValues = {"view": view, "version": version}
    shard = store.table("view_rows").write_shard(name, rows, partition)
    return Written(shard=shard, num_draws=int(pc.sum(rows["copies"]).as_py() or 0))


def commit_view(
    store: "Store",
    record: ViewRecord,
    written: Iterable[Written],
    shrink: Shrink | None = None,
    num_shrunk: int = 0,
) -> View:
    """Commit a view's files, then the row of `views` that makes it exist.

    Args:
        store: Where to.
        record: What is known before the rows are written; its sums are filled in here.
        written: The files, in any order.
        shrink: To what images were shrunk, if they were; the record and the lineage say so.
        num_shrunk: How many were.

    Raises:
        InputError: If there are no rows.
        CommitConflictError: If another selection took the same version; select again.
    """
    check_view_name(record.view)
    files = sorted(written, key=lambda each: each.shard.path)
    if not files:
        raise InputError(
            f"the selection for view {record.view!r} is empty: no labeled image and no "
            f"pseudo-label was kept ({canonical_json(dict(record.counts))})"
        )
    lineage = {"step": "select", "view": record.view, "version": record.version}
    counts = dict(record.counts)
    if shrink is not None:
        counts["shrunk"] = num_shrunk
        lineage |= {**vars(shrink), "shrunk": num_shrunk}
    claim = Claim(name=f"view-{record.view}", start=record.version - 1, end=record.version)
    shards = [each.shard for each in files]
    complete = replace(
        record,
        counts=counts,
        num_images=sum(shard.num_rows for shard in shards),
        num_draws=sum(each.num_draws for each in files),
        rows_version=store.table("view_rows").commit(
            shards, lineage=lineage, transaction=record.identity, claim=claim
        ),
    )
    schema = store.table("views").spec.columns
    store.table("views").append(
        pa.Table.from_pylist([complete.as_row()], schema=schema),
        lineage=lineage,
        transaction=record.identity,
    )
    return View(store, complete)


def in_files(batches: Iterable[tuple[pa.RecordBatch, int]]) -> Iterator[pa.Table]:
    """Yield rows in pieces of the size of a file, none with rows of two kinds.

    Args:
        batches: Small pieces with the bytes that they have in memory.
    """
    parts: list[pa.RecordBatch] = []
    num_rows = sum_bytes = 0
    for batch, num_bytes in batches:
        changes = parts and parts[0]["kind"][0] != batch["kind"][0]
        full = num_rows + batch.num_rows > _FILE_ROWS or sum_bytes >= FILE_BYTES
        if parts and (changes or full):
            yield pa.Table.from_batches(parts)
            parts, num_rows, sum_bytes = [], 0, 0
        parts.append(batch)
        num_rows += batch.num_rows
        sum_bytes += num_bytes
    if parts:
        yield pa.Table.from_batches(parts)
