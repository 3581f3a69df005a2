"""The candidates of a selection: labels of one teacher, or of several by a rule."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import StoreError
from plstore.labels import (
    HISTOGRAM,
    SHARD_IDS,
    LabelSet,
    find_counts,
    merge_counts,
    write_histograms,
)
from plstore.query import BUCKET_SQL, fetch
from plstore.selection.counting import count_by_sql, register_labels
from plstore.selection.standing import Standing
from plstore.store import Shard, Store

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLUMNS: Final = ("sample_id", "class_id", "confidence")

_CANDIDATES = """
create or replace view candidates as
select {columns} from labels
where not exists (from standing where standing.sample_id = labels.sample_id)
"""

_HITS = f"""
select
    standing.why,
    labels.class_id,
    {BUCKET_SQL.format("labels.confidence")} as bucket,
    count(*) as num_labels
from labels inner join standing on labels.sample_id = standing.sample_id
group by all
"""  # noqa: S608  no text of a user in it


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Candidates, in files of one shape: those of a label set, or made for one selection.

    Attributes:
        store: The store.
        shards: Files of one label set; or none, and `files` are there instead.
        files: Local Parquet files with sample_id, class_id, confidence and label.
        standing: Images that are not candidates.
        counts: Returns the `HISTOGRAM` of the candidates; None where it has to be counted.
        num_labels: Labels of images of the pool, those of excluded images included.
        dropped: Labels that are no candidates, by reason.
    """

    store: Store
    shards: Sequence[Shard] = ()
    files: Sequence[Path] = ()
    standing: Standing
    counts: Callable[[], pa.Table] | None = None
    num_labels: int
    dropped: "Mapping[str, int]" = field(default_factory=dict)

    @property
    def mean_bytes(self) -> int:
        """What a row takes in a file."""
        num_bytes = sum(shard.size_bytes for shard in self.shards)
        return (num_bytes + sum(f.stat().st_size for f in self.files)) // max(
            self.num_labels, 1
        )

    def parts(self, files_at_once: int) -> "Iterator[Pool]":
        """Yield pools of some of the files each, one range of sample ids after the other.

        Files of one range of `SHARD_IDS` stay together, in whatever order they were written.
        """
        for start in range(0, len(self.files), files_at_once):
            yield replace(self, files=self.files[start : start + files_at_once])
        ranges = groupby(
            sorted(self.shards, key=lambda shard: (shard.first_id, shard.path)),
            key=lambda shard: shard.first_id // SHARD_IDS,
        )
        part: list[Shard] = []
        for _, members in ranges:
            if len(part) >= files_at_once:
                yield replace(self, shards=part)
                part = []
            part += members
        if part:
            yield replace(self, shards=part)

    def register(
        self, connection: duckdb.DuckDBPyConnection, *, with_label: bool = False
    ) -> None:
        """Make `candidates` a view of a connection."""
        connection.register("standing", self.standing.barred)
        if self.files:
            names = [str(path) for path in self.files]
            connection.read_parquet(names).create_view("labels", replace=True)
        else:
            register_labels(connection, self.store, self.shards, name="labels")
        columns = ", ".join([*_COLUMNS, "label"] if with_label else _COLUMNS)
        connection.execute(_CANDIDATES.format(columns=columns))


def pool_of_labels(
    store: Store, label_set: LabelSet, shards: Sequence[Shard], standing: Standing
) -> Pool:
    """Return the labels of one teacher as candidates.

    Their histogram comes from the counts that are kept beside the labels; where there are none,
    or not of all files, they are made now and kept.
    """
    kept = find_counts(store, label_set, shards)
    if kept.uncovered:
        with suppress(OSError, StoreError):  # who may only read counts each time
            write_histograms(store, kept.uncovered, count=count_by_sql)
            kept = find_counts(store, label_set, shards)
    with suppress(OSError, StoreError):
        kept = merge_counts(store, label_set, kept)
    hits = _hits(store, shards, standing)

    def counts() -> pa.Table:
        tables = [kept.read()]
        if kept.uncovered:
            tables.append(count_by_sql(store, kept.uncovered))
        if hits.num_rows:
            minus = pa.array(-hits["num_labels"].to_numpy())
            tables.append(hits.drop_columns(["why"]).set_column(2, "num_labels", minus))
        return pa.concat_tables(tables)

    outside = hits.filter(pc.equal(hits["why"], "not_in_pool"))
    num_labels = sum(shard.num_rows for shard in shards)
    return Pool(
        store=store,
        shards=shards,
        standing=standing,
        counts=counts,
        num_labels=num_labels - int(outside["num_labels"].to_numpy().sum()),
        dropped=count_reasons(hits),
    )


def count_reasons(hits: pa.Table) -> dict[str, int]:
    """Return labels of unlabeled images by why they are no candidates."""
    summed = hits.group_by("why").aggregate([("num_labels", "sum")]).sort_by("why").to_pylist()
    return {row["why"]: row["num_labels_sum"] for row in summed if row["why"] != "not_in_pool"}


def _hits(store: Store, shards: Sequence[Shard], standing: Standing) -> pa.Table:
    """Return the labels of barred images, counted by why, class and bucket."""
    ids = standing.barred["sample_id"].to_numpy()
    near = [
        s
        for s in shards
        if np.searchsorted(ids, s.first_id) < np.searchsorted(ids, s.last_id, "right")
    ]
    schema = HISTOGRAM.insert(0, pa.field("why", pa.string()))
    if not near:
        return schema.empty_table()
    with closing(duckdb.connect(":memory:")) as connection:
        connection.register("standing", standing.barred)
        register_labels(connection, store, near, name="labels")
        return fetch(connection, _HITS).cast(schema)
