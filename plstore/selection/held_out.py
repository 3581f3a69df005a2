"""Images to train on whose very bytes are also in validation, test or evaluation.

A model that has seen them is not tested by them. Found by content hash, once for the files of a
snapshot of `images`: what comes of it is kept in the store's cache, so that the next selection
does not look again.
"""

from contextlib import closing
from typing import TYPE_CHECKING, Final

import duckdb
import pyarrow as pa

from plstore.query import fetch
from plstore.schema import ACCEPTED
from plstore.schema import HELD_OUT as HELD_OUT_SPLITS
from plstore.selection.image_files import KeptFinding, some_at_a_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plstore.store import Shard, Store

HELD_OUT: Final = pa.schema([pa.field("sample_id", pa.int64()), pa.field("split", pa.string())])
"""An accepted image of the split labeled or unlabeled that is held out as well."""

_HASHES = f"""
insert into hashes
select content_hash from images
where split in {HELD_OUT_SPLITS!r} and verdict = '{ACCEPTED}'
"""  # noqa: S608  no text of a user in it
_COPIES = f"""
select sample_id, split from images
where
    split in ('labeled', 'unlabeled') and verdict = '{ACCEPTED}'
    and content_hash in (select content_hash from hashes)
"""  # noqa: S608


def held_out_copies(store: "Store", version: int) -> pa.Table:
    """Return the copies in a snapshot of `images`, as `HELD_OUT`, by sample id."""
    shards = store.table("images").shards(version)
    kept = KeptFinding.of(store, "held-out", shards)
    if (before := kept.read(HELD_OUT)) is not None:
        return before[0]
    found = _find(store, shards)
    kept.write(found)
    return found


def _find(store: "Store", shards: "Sequence[Shard]") -> pa.Table:
    tables = [HELD_OUT.empty_table()]
    with closing(duckdb.connect(":memory:")) as connection:
        connection.execute("create temp table hashes (content_hash varchar)")
        for _ in some_at_a_time(connection, store, shards):
            fetch(connection, _HASHES)
        (count,) = connection.execute("select count(*) from hashes").fetchall()[0]
        if count:
            parts = some_at_a_time(connection, store, shards)
            tables += [fetch(connection, _COPIES).cast(HELD_OUT) for _ in parts]
    return pa.concat_tables(tables).sort_by("sample_id").combine_chunks()
