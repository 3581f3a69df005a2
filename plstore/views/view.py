"""Views: materialised selections that a student trains on, pinned to what they were made of."""

import html
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from plstore.errors import InputError
from plstore.fingerprint import canonical_json
from plstore.views.attaching import ViewMode
from plstore.views.references import ReferencedImages

if TYPE_CHECKING:
    from plstore.store import PartitionValues, Shard, Store

_NAME = re.compile(r"[a-z0-9_-]+")
_READ_BYTES = 64 << 20
_READ_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class ViewRecord:
    """One row of `views`: what was selected, from what, and what came of it.

    Attributes:
        view: Name, [a-z0-9_-]+.
        version: 1 for the first selection of that name.
        identity: Of the selection: one that is done twice adds nothing.
        query: Name of the saved query.
        sql: Its text, as it was run.
        parameters: Its parameters.
        pins: Version of every table that was read.
        counts: Images by what became of them, with a reason for every drop.
        mode: Whether its files hold the image bytes (packed), or name their place.
        num_images: Rows of the view.
        num_draws: Sum of copies: draws of one pass over the view.
        rows_version: Version of `view_rows` that holds the rows.
    """

    view: str
    version: int
    identity: str
    query: str
    sql: str
    parameters: Mapping[str, Any]
    pins: Mapping[str, int]
    counts: Mapping[str, Any]
    mode: ViewMode = "packed"
    num_images: int = 0
    num_draws: int = 0
    rows_version: int = 0
    recipe_hash: str = ""
    code_version: str = ""
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def num_labeled(self) -> int:
        """Rows of labeled images: all that are not pseudo-labeled."""
        return self.num_images - int(self.counts.get("kept", 0))

    def as_row(self) -> dict[str, Any]:
        """Return the row as the table stores it: mappings as JSON text."""
        row = dict(vars(self))
        for name in ("parameters", "pins", "counts"):
            row[name] = canonical_json(dict(row[name]))
        return row


@dataclass(frozen=True)
class View:
    """A view of a store, ready to read."""

    store: "Store"
    record: ViewRecord

    def _repr_html_(self) -> str:
        """Show a notebook what was selected, and what became of the rest."""
        found = {"images": self.record.num_images, "draws": self.record.num_draws}
        what = {**found, **self.record.counts, "query": self.record.query}
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>"
            for name, value in what.items()
        )
        return f"<p>View {html.escape(self.key)}</p><table>{rows}</table>"

    @property
    def key(self) -> str:
        """Name and version: what a student's lineage names."""
        return f"{self.record.view}@{self.record.version}"

    @property
    def partition(self) -> "PartitionValues":
        """Where its rows are in `view_rows`."""
        return {"view": self.record.view, "version": self.record.version}

    def shards(self) -> "list[Shard]":
        """Return the files of its rows, in order.

        They never change but by an erasure, so they are read from the newest snapshot.
        """
        found = self.store.table("view_rows").shards(partition=self.partition)
        return sorted(found, key=lambda shard: shard.path)

    @property
    def num_deleted(self) -> int:
        """Images that were in the view when it was made and were deleted since."""
        return self.record.num_images - sum(shard.num_rows for shard in self.shards())

    def batches(self, *, tolerant: bool = False) -> Iterable[pa.RecordBatch]:
        """Yield the rows, images included, in their stored order: the same every time.

        A few at a time where the view only names the places of its images, because their bytes
        are far larger than its rows.

        Args:
            tolerant: Whether an image that stays in place and cannot be read is null.
        """
        dataset = self.store.table("view_rows").dataset_of(self.shards())
        rows = map(with_weights, dataset.scanner(use_threads=False).to_batches())
        yield from self.with_images(rows, tolerant=tolerant)

    def with_images(
        self, batches: Iterable[pa.RecordBatch], *, tolerant: bool = False
    ) -> Iterable[pa.RecordBatch]:
        """Yield rows of this view with `image` filled in."""
        if self.record.mode == "packed":
            yield from batches
            return
        images = ReferencedImages(self.store, self.record.pins["images"], tolerant=tolerant)
        for rows in batches:
            starts = split_by_size(rows["width"].to_numpy(), rows["height"].to_numpy())
            for start, end in itertools.pairwise([*starts, rows.num_rows]):
                yield images.fill(rows.slice(start, end - start))


def with_weights(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows of `view_rows` with a weight in each: 1 where an older file has none."""
    if "weight" not in rows.schema.names:
        ones = pa.repeat(pa.scalar(1, pa.float32()), rows.num_rows)
        return rows.append_column("weight", ones)
    index = rows.schema.get_field_index("weight")
    return rows.set_column(index, rows.schema.field(index), rows["weight"].fill_null(1))


def split_by_size(widths: npt.NDArray[np.int32], heights: npt.NDArray[np.int32]) -> list[int]:
    """Return where to cut rows so that the files of a part take about 64 MiB at most.

    A file is taken for a byte a pixel: JPEGs take a third to a tenth of it.
    """
    starts, held = [0], 0
    for row, pixels in enumerate((widths.astype(np.int64) * heights).tolist()):
        if row > starts[-1] and (held + pixels > _READ_BYTES or row - starts[-1] == _READ_ROWS):
            starts.append(row)
            held = 0
        held += pixels
    return starts


def check_view_name(name: str) -> str:
    """Return the name, or raise InputError: it names folders, so it is [a-z0-9_-]+ only."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"view name {name!r} may hold only lower-case letters, digits, '_' and '-'"
        )
    return name


def open_view(store: "Store", name: str, version: int | None = None) -> View:
    """Return a view: the newest version of the name, or the one asked for.

    Raises:
        InputError: If there is none.
    """
    rows = store.table("views").read(where=pc.field("view") == name).to_pylist()
    found = {row["version"]: row for row in rows}
    wanted = max(found, default=0) if version is None else version
    if wanted not in found:
        names = sorted(set(store.table("views").read(columns=["view"])["view"].to_pylist()))
        raise InputError(
            f"no view {name!r}{'' if version is None else f' of version {version}'} in "
            f"{store.root}; it has {', '.join(names) or 'none: plstore select makes one'}"
        )
    return _view(store, found[wanted])


def find_view(store: "Store", identity: str) -> View | None:
    """Return the view that a selection of this identity made, if it has."""
    rows = store.table("views").read(where=pc.field("identity") == identity).to_pylist()
    return _view(store, rows[0]) if rows else None


def _view(store: "Store", row: dict[str, Any]) -> View:
    for name in ("parameters", "pins", "counts"):
        row[name] = json.loads(row[name])
    row["mode"] = row["mode"] or "packed"  # views of before there was a choice
    return View(store, ViewRecord(**row))
