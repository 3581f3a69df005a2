"""Selection: a saved query decides; decision and inputs are recorded; a view is kept."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

import plstore
from plstore.errors import InputError, QueryError
from plstore.query.library import SavedQuery, saved_query
from plstore.query.session import connect, fetch
from plstore.store import (
    AsOf,
    Store,
    View,
    ViewRecord,
    attach_images,
    check_view_name,
    erase,
    find_view,
    next_version,
    resolve,
    write_view,
)

DEFAULT_QUERY = "selection/class_balanced"

_LABELED_ROWS = """
select
    images.sample_id,
    'labeled' as kind,
    coalesce(corrected.label, images.label)::integer as class_id,
    1::float as confidence,
    1::integer as copies,
    null::struct(class_ids integer[], probs float[], residual float, tail blob) as label
from images
left join (
    select sample_id, arg_max(label, decided_at) as label from corrections group by sample_id
) as corrected on images.sample_id = corrected.sample_id
where
    (images.split = 'labeled' or (images.split = 'unlabeled' and corrected.label is not null))
    and images.verdict = 'accepted'
    and images.sample_id not in (select sample_id from exclusions)
order by images.sample_id asc
"""

_PSEUDO_ROWS = """
select
    images.sample_id,
    'pseudo' as kind,
    decided.class_id,
    decided.confidence,
    decided.copies::integer as copies,
    labels.label
from decided
inner join images on decided.sample_id = images.sample_id
inner join soft_labels as labels on decided.sample_id = labels.sample_id
where
    decided.outcome = 'kept'
    and images.verdict = 'accepted'
    and labels.teacher_id = decided.teacher_id
    and labels.iteration = decided.iteration
    and labels.split = 'unlabeled'
order by images.sample_id asc
"""

_OUTCOMES = "select outcome, count(*) as n from decided group by outcome order by outcome asc"

_REFUSED = """
select verdict, count(*) as n from images
where split = 'unlabeled' and verdict != 'accepted'
group by verdict order by verdict asc
"""

_UNLABELED = """
select count(*) as n from images
where
    split = 'unlabeled' and verdict = 'accepted'
    and sample_id not in (select sample_id from decided)
"""

_CLASSES = """
select
    classes.class_id,
    count(decided.sample_id) as num_predicted,
    count(decided.sample_id) filter (decided.outcome = 'kept') as num_kept,
    coalesce(sum(decided.copies), 0)::bigint as num_draws
from classes left join decided on classes.class_id = decided.class_id
group by classes.class_id order by classes.class_id asc
"""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What to select: a saved query with its parameters, and who asks.

    The query must have the columns sample_id, class_id, confidence, outcome and copies, and
    the parameters teacher_id and iteration; the rest of its parameters are free.
    """

    view: str
    teacher_id: str
    iteration: int
    parameters: Mapping[str, Any]
    query: str = DEFAULT_QUERY
    recipe_hash: str = ""

    @property
    def all_parameters(self) -> dict[str, Any]:
        """The query's parameters, teacher and iteration included."""
        return {
            **self.parameters,
            "teacher_id": self.teacher_id,
            "iteration": self.iteration,
        }


def select(
    store: Store,
    selection: Selection,
    *,
    identity: str | None = None,
    as_of: AsOf = None,
) -> View:
    """Run a selection and keep its result as a new version of a view.

    The view holds all accepted labeled images and the pseudo-labeled images that the query
    kept, and pins the version of every table that was read. What was not kept is counted by
    reason in the view's record.

    Args:
        store: The store.
        selection: What to select.
        identity: Of this selection: done twice, it adds nothing. By default each call is a
            selection of its own.
        as_of: Snapshot to read; see `plstore.store.AsOf`. The newest unless given.

    Raises:
        InputError: If the teacher has no labels of that iteration, or nothing is left.
    """
    query = saved_query(selection.query)
    parameters = query.check_parameters(selection.all_parameters)

    def decide(connection: duckdb.DuckDBPyConnection) -> tuple[dict[str, Any], list[str]]:
        return _decide(connection, store, selection, query), [_LABELED_ROWS, _PSEUDO_ROWS]

    record = _Draft(selection.view, query.name, query.sql, parameters, selection.recipe_hash)
    return _write(store, record, identity, decide, as_of)


def select_labeled(
    store: Store,
    name: str,
    *,
    recipe_hash: str = "",
    identity: str | None = None,
    as_of: AsOf = None,
) -> View:
    """Keep all accepted labeled images, and no others, as a view: a teacher trains on it."""

    def decide(_: duckdb.DuckDBPyConnection) -> tuple[dict[str, Any], list[str]]:
        return {}, [_LABELED_ROWS]

    record = _Draft(name, "labeled", _LABELED_ROWS, {}, recipe_hash)
    return _write(store, record, identity, decide, as_of)


@dataclass(frozen=True)
class _Draft:
    view: str
    query: str
    sql: str
    parameters: Mapping[str, Any]
    recipe_hash: str


_Decide = Callable[[duckdb.DuckDBPyConnection], tuple[dict[str, Any], list[str]]]


def _write(
    store: Store,
    draft: _Draft,
    identity: str | None,
    decide: _Decide,
    as_of: AsOf,
) -> View:
    check_view_name(draft.view)
    if identity is not None and (existing := find_view(store, identity)) is not None:
        return existing
    identity = identity or f"view-{uuid4().hex}"
    version = next_version(store, draft.view, identity)
    pins = resolve(store, as_of)
    with closing(connect(store, as_of=pins)) as connection:
        counts, queries = decide(connection)
        record = ViewRecord(
            **vars(draft),
            version=version,
            identity=identity,
            pins=pins,
            counts=counts,
            code_version=plstore.__version__,
        )
        rows = chain.from_iterable(
            attach_images(store, fetch(connection, sql), version=pins["images"])
            for sql in queries
        )
        view = write_view(store, record, rows)
    _drop_deleted(store, view)
    return view


def _drop_deleted(store: Store, view: View) -> None:
    """Delete from a view the images that were deleted from the store while it was written."""
    table, pinned = store.table("deletions"), view.record.pins["deletions"]
    if table.version() == pinned:
        return
    before = set(table.read(version=pinned, columns=["sample_id"])["sample_id"].to_pylist())
    now = table.read(columns=["sample_id"])["sample_id"].to_pylist()
    erase(
        store, [sample_id for sample_id in now if sample_id not in before], reason="as before"
    )


def _decide(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    selection: Selection,
    query: SavedQuery,
) -> dict[str, Any]:
    decided = fetch(connection, query.sql, selection.all_parameters)
    if not decided.num_rows:
        raise InputError(
            f"selection query {query.name!r} returned no rows for teacher "
            f"{selection.teacher_id!r} and iteration {selection.iteration} in {store.root}: it "
            "drops them all, or there are no such labels"
        )
    _check_decided(decided, query.name)
    connection.register("planned", decided)
    connection.execute(
        "create temp table decided as "
        "select *, $teacher_id as teacher_id, $iteration::integer as iteration from planned",
        {"teacher_id": selection.teacher_id, "iteration": selection.iteration},
    )
    return _counts(connection, store)


def _check_decided(decided: pa.Table, name: str) -> None:
    wanted = ("sample_id", "class_id", "confidence", "outcome", "copies")
    missing = [column for column in wanted if column not in decided.column_names]
    if missing:
        raise QueryError(f"selection query {name!r} lacks {', '.join(missing)}")
    num_images = pc.count_distinct(decided["sample_id"]).as_py()
    if num_images != decided.num_rows:
        raise QueryError(
            f"selection query {name!r} gives {decided.num_rows} rows for {num_images} images; "
            "wanted one row an image"
        )
    kept = decided.filter(pc.equal(decided["outcome"], "kept"))
    if kept.num_rows and not pc.min(kept["copies"]).as_py() >= 1:
        raise QueryError(f"selection query {name!r} keeps images with fewer than 1 copy")


def _counts(connection: duckdb.DuckDBPyConnection, store: Store) -> dict[str, Any]:
    outcomes = {row["outcome"]: row["n"] for row in _dicts(connection, _OUTCOMES)}
    kept = outcomes.pop("kept", 0)
    dropped = outcomes | {row["verdict"]: row["n"] for row in _dicts(connection, _REFUSED)}
    unlabeled = _dicts(connection, _UNLABELED)[0]["n"]
    if unlabeled:
        dropped["not_in_query"] = unlabeled
    classes = _dicts(connection, _CLASSES)
    return {
        "in": kept + sum(dropped.values()),
        "kept": kept,
        "dropped": dropped,
        "draws": sum(row["num_draws"] for row in classes),
        "predicted_by_class": [row["num_predicted"] for row in classes],
        "kept_by_class": [row["num_kept"] for row in classes],
        "draws_by_class": [row["num_draws"] for row in classes],
        "classes_without_candidate": [
            store.class_names[row["class_id"]] for row in classes if not row["num_kept"]
        ],
    }


def _dicts(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = fetch(connection, sql).to_pylist()
    return rows
