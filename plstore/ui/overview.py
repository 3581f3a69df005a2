"""What a store holds: models with their accuracy, rows, tags, and what led to what."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from plstore.report.held import images_source
from plstore.report.snapshot import Snapshot
from plstore.store import numbered, tags

_SPLITS: Final = "select split, verdict, count(*) as n from {} group by all order by all"
_CORRECTED: Final = "select count(distinct sample_id) as n from corrections"
_EXCLUDED: Final = "select count(distinct sample_id) as n from exclusions"


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts of a snapshot.

    Attributes:
        images: Accepted ones by split.
        refused: Those that import refused.
        labels: Soft labels.
        excluded: Images that people excluded.
        corrected: Images whose class people gave.
        tables: Rows by table.
    """

    images: Mapping[str, int]
    refused: int
    labels: int
    excluded: int
    corrected: int
    tables: Mapping[str, int]


def totals(snapshot: Snapshot) -> Totals:
    """Return the counts of a snapshot; they are made once."""
    return snapshot.once("totals", lambda: _totals(snapshot))


def _totals(snapshot: Snapshot) -> Totals:
    images: dict[str, int] = {}
    refused = 0
    for row in snapshot.rows(_SPLITS.format(images_source(snapshot).sql)):
        if row["verdict"] == "accepted":
            images[row["split"]] = row["n"]
        else:
            refused += row["n"]
    tables = {
        name: sum(shard.num_rows for shard in table.shards(snapshot.pins[name]))
        for name, table in snapshot.store.tables.items()
    }
    return Totals(
        images=images,
        refused=refused,
        labels=tables["soft_labels"],
        excluded=snapshot.rows(_EXCLUDED)[0]["n"],
        corrected=snapshot.rows(_CORRECTED)[0]["n"],
        tables=tables,
    )


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """A tag: its name, message, time, and the commit that it names."""

    name: str
    message: str
    created_at: datetime
    number: int


def tagged(snapshot: Snapshot) -> list[Tagged]:
    """Return the tags of a store, newest first."""
    found = [
        Tagged(
            name=tag.name,
            message=tag.message,
            created_at=tag.created_at,
            number=sum(tag.versions.values()),
        )
        for tag in tags(snapshot.store)
    ]
    return found[::-1]


@dataclass(frozen=True, kw_only=True)
class Committed:
    """One commit: its number in `plstore log`, when, to which table and by which step."""

    number: int
    time: datetime
    table: str
    step: str


def last_commits(snapshot: Snapshot, most: int = 8) -> list[Committed]:
    """Return the last commits, newest first."""
    return [
        Committed(
            number=number,
            time=commit.time,
            table=commit.table,
            step=str(commit.lineage.get("step", commit.operation)),
        )
        for number, commit in numbered(snapshot.store)[-most:][::-1]
    ]
