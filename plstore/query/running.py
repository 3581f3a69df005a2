"""Saved queries, run: with their defaults, and with a word on what an empty answer means."""

from collections.abc import Callable

import pyarrow as pa

from plstore.query.library import saved_query
from plstore.query.missing import Need, what_is_missing
from plstore.query.newest import with_labels
from plstore.query.parameters import LabelsDefault
from plstore.query.session import Limits, run_sql
from plstore.query.tables import snapshot_of, tables_in
from plstore.store import AsOf, Store

_ROWS_WANTED = "num_images"


def run_query(
    store: Store,
    name: str,
    *,
    as_of: AsOf = None,
    limits: Limits | None = None,
    on_note: Callable[[str], None] = lambda _: None,
    **parameters: object,
) -> pa.Table:
    """Run a saved query over a snapshot and return its rows.

    A teacher and an iteration that are not given are those of the newest labels: of the last
    iteration, by the teacher that labeled last in it. Where two are compared, the other is the
    one before.

    Args:
        store: The store.
        name: Such as "coverage/labels_per_class"; `plstore query list` shows all.
        as_of: Snapshot to read; see `plstore.store.AsOf`. The newest unless given.
        limits: Of memory and time; see `Limits`.
        on_note: Called with a line for people: which labels were chosen, what the store has
            none of, where rows were cut.
        **parameters: The query's own.

    Raises:
        InputError: If there is no such query.
        QueryError: If parameters are missing, unknown or of the wrong type, name labels that
            are not there, or a limit is met.
    """
    query = saved_query(name)
    given = query.check_parameters(parameters)
    pins = snapshot_of(store, as_of, tables_in(query.sql))
    values = with_labels(store, query, given, version=pins.get("soft_labels"), on_note=on_note)
    rows = run_sql(store, query.sql, values, as_of=pins, limits=limits)
    of = {
        d.splits(values) for p in query.parameters if isinstance(d := p.default, LabelsDefault)
    }
    if of or not rows.num_rows:
        needs = [*query.needs, *(Need(splits=splits) for splits in sorted(of) if splits)]
        for line in what_is_missing(store, query.sql, as_of=as_of, needs=needs):
            on_note(line)
    wanted = None if _ROWS_WANTED in parameters else values.get(_ROWS_WANTED)
    if wanted and rows.num_rows == wanted:
        on_note(f"the first {rows.num_rows} rows; --num-images for more, 0 for all")
    return rows
