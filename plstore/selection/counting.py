"""Labels counted by class and bucket of confidence in SQL: many files, in flat memory.

The counts are those of `plstore.labels.count_labels`, which counts the few files of a commit.
"""

from collections.abc import Sequence
from contextlib import closing

import duckdb
import numpy as np
import pyarrow as pa

from plstore import storage
from plstore.errors import StoreError
from plstore.labels import HISTOGRAM, NUM_BUCKETS
from plstore.query import BUCKET_SQL
from plstore.store import Shard, Store

_COUNT = f"""
select
    class_id,
    {BUCKET_SQL.format("confidence")} as bucket,
    count(*) as num_labels
from labels
group by all
"""  # noqa: S608  no text of a user in it
_CELLS = f"""
select (class_id * {NUM_BUCKETS} + {BUCKET_SQL.format("confidence")})::integer as cell
from labels
"""  # noqa: S608
_MOST_CELLS = 1 << 22
_COUNTED_ROWS = 500_000
_FILES_AT_ONCE = 512


def count_by_sql(store: Store, shards: Sequence[Shard]) -> pa.Table:
    """Return the counts of shards from their rows, as `HISTOGRAM`, by class and bucket."""
    num_classes = len(store.class_names)
    with closing(duckdb.connect(":memory:")) as connection:
        if num_classes * NUM_BUCKETS > _MOST_CELLS:
            register_labels(connection, store, shards, name="labels")
            rows = connection.sql(_COUNT).to_arrow_table().cast(HISTOGRAM)
            return rows.sort_by([("class_id", "ascending"), ("bucket", "ascending")])
        # Few cells are counted in half the time and a quarter of the memory of a hash table.
        cells = np.zeros(num_classes * NUM_BUCKETS, np.int64)
        for start in range(0, len(shards), _FILES_AT_ONCE):
            part = shards[start : start + _FILES_AT_ONCE]
            register_labels(connection, store, part, name="labels")
            for batch in connection.sql(_CELLS).to_arrow_reader(_COUNTED_ROWS):
                cells += np.bincount(batch["cell"].to_numpy(), minlength=len(cells))
    found = np.flatnonzero(cells)
    columns = [found // NUM_BUCKETS, found % NUM_BUCKETS, cells[found]]
    arrays = [pa.array(c).cast(f.type) for c, f in zip(columns, HISTOGRAM, strict=True)]
    return pa.Table.from_arrays(arrays, schema=HISTOGRAM)


def register_labels(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    shards: Sequence[Shard],
    *,
    name: str,
) -> None:
    """Make the rows of label shards a view of a connection that is not locked yet.

    DuckDB reads the files of a folder itself, which takes half the time that Arrow takes; those
    of an object store come through Arrow.
    """
    table = store.table("soft_labels")
    if storage.is_remote(store.root) or not shards:
        connection.register(name, table.dataset_of(shards))
        return
    files = [str(table.root / shard.path) for shard in shards]
    try:
        connection.read_parquet(files, hive_partitioning=False).create_view(name, replace=True)
    except duckdb.IOException as error:
        raise StoreError(
            f"a file of labels is gone: it was collected, because neither the newest snapshot "
            f"nor a tag or view needs it, or it was lost; 'plstore verify' tells ({error})"
        ) from error
