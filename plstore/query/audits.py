"""All saved audits at once: what is wrong in a store, apart from what someone decided."""

from dataclasses import dataclass
from typing import Final

import pyarrow.compute as pc

from plstore.query.library import list_queries
from plstore.query.running import run_query
from plstore.store import AsOf, Store, resolve

_FOLDER: Final = "audit/"
_FINDING: Final = "finding"
_NOTE: Final = "note"


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What one audit found.

    Attributes:
        name: Of its saved query, which lists the rows.
        faults: Rows that are wrong and can be put right.
        notes: Rows that someone decided on and the store keeps a record of, or that only an
            older version of a view has: nothing to put right.
        summary: What it looks for.
    """

    name: str
    faults: int
    notes: int
    summary: str


def audit(store: Store, *, as_of: AsOf = None) -> list[Audit]:
    """Run every saved audit over one snapshot.

    Rows of an audit are faults, but for those whose column ``finding`` says ``note``.

    Args:
        store: The store.
        as_of: Snapshot to read; see `plstore.store.AsOf`. The newest unless given.
    """
    pins = resolve(store, as_of)
    found = []
    for query in list_queries():
        if not query.name.startswith(_FOLDER):
            continue
        rows = run_query(store, query.name, as_of=pins)
        notes = 0
        if _FINDING in rows.column_names:
            notes = pc.sum(pc.equal(rows[_FINDING], _NOTE)).as_py() or 0
        found.append(
            Audit(
                name=query.name,
                faults=rows.num_rows - notes,
                notes=notes,
                summary=query.summary,
            )
        )
    return found
