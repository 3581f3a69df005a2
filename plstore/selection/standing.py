"""Which images a selection may not choose, and why: held out, by import, or by a decision."""

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import duckdb
import pyarrow as pa

from plstore.query import fetch
from plstore.schema import ACCEPTED
from plstore.selection.held_out import HELD_OUT, held_out_copies
from plstore.selection.image_files import KeptFinding, some_at_a_time

if TYPE_CHECKING:
    from plstore.store import Store

_DECISIONS = ("exclusions", "corrections")

STANDING: Final = pa.schema([pa.field("sample_id", pa.int64()), pa.field("why", pa.string())])

_BARRED = """
with reasons as (
    select sample_id, 1 as place, 'excluded' as why from exclusions
    union all
    select sample_id, 2 as place, 'held_out' as why from held_out where split = 'unlabeled'
    union all
    select sample_id, 3 as place, 'corrected' as why from corrections
    union all
    select sample_id, 4 as place, 'not_in_pool' as why from outside
)

select sample_id, min_by(why, place) as why
from reasons
group by sample_id
order by sample_id asc
"""

# Row groups of nothing but accepted unlabeled images are skipped by their statistics.
_OUTSIDE = f"""
select sample_id from images
where split <> 'unlabeled' or verdict <> '{ACCEPTED}'
"""  # noqa: S608  no text of a user in it

_OUTSIDE_IDS: Final = pa.schema([pa.field("sample_id", pa.int64())])

_VERDICTS = """
select verdict, count(*) as n from images
where split = 'unlabeled'
group by verdict order by verdict asc
"""


@dataclass(frozen=True)
class Standing:
    """What there is to choose from.

    Attributes:
        barred: `STANDING`: images that must not be chosen.
        verdicts: Unlabeled images by verdict.
    """

    barred: pa.Table
    verdicts: Mapping[str, int]

    @property
    def num_images(self) -> int:
        """Unlabeled images, refused ones included."""
        return sum(self.verdicts.values())

    @property
    def num_accepted(self) -> int:
        """Unlabeled images that training may read."""
        return self.verdicts.get(ACCEPTED, 0)

    @property
    def refused(self) -> dict[str, int]:
        """Unlabeled images that were refused at import, by the reason."""
        return {why: n for why, n in self.verdicts.items() if why != ACCEPTED}


def find_standing(
    store: "Store", pins: Mapping[str, int], *, held_out: bool = False
) -> Standing:
    """Return the standing of a snapshot's images.

    Args:
        store: The store.
        pins: Version by table.
        held_out: Whether images whose very bytes are in validation or test may be chosen.
    """
    copies = HELD_OUT.empty_table() if held_out else held_out_copies(store, pins["images"])
    outside, verdicts = _look_at_images(store, pins["images"])
    with closing(duckdb.connect(":memory:")) as connection:
        connection.register("held_out", copies)
        connection.register("outside", outside)
        for name in _DECISIONS:
            connection.register(name, store.table(name).dataset(pins[name]))
        barred = fetch(connection, _BARRED).cast(STANDING)
    return Standing(barred, verdicts)


def _look_at_images(store: "Store", version: int) -> tuple[pa.Table, dict[str, int]]:
    """Return which images are not in the pool, and unlabeled ones by verdict.

    Files never change, so what is found in those of a snapshot is kept in the store's cache.
    """
    shards = store.table("images").shards(version)
    kept = KeptFinding.of(store, "standing", shards)
    if (before := kept.read(_OUTSIDE_IDS)) is not None:
        return before[0], dict(before[1])
    tables, verdicts = [_OUTSIDE_IDS.empty_table()], Counter[str]()
    with closing(duckdb.connect(":memory:")) as connection:
        for _ in some_at_a_time(connection, store, shards):
            tables.append(fetch(connection, _OUTSIDE).cast(_OUTSIDE_IDS))
            for row in fetch(connection, _VERDICTS).to_pylist():
                verdicts[row["verdict"]] += row["n"]
    found = pa.concat_tables(tables)
    counts = dict(sorted(verdicts.items()))
    kept.write(found, counts)
    return found, counts
