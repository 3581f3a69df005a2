"""Selections that a query of one's own decides."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import InputError, QueryError
from plstore.query import (
    Limits,
    SavedQuery,
    check_read_only,
    connect,
    fetch,
    run_sql,
    saved_query,
    stream,
    with_labels,
)
from plstore.selection.balance import Balance
from plstore.selection.choice import Choice, as_many, outcome_counts
from plstore.selection.rules import find_teachers
from plstore.selection.standing import Standing, find_standing
from plstore.store import Store

if TYPE_CHECKING:
    from plstore.selection.selection import Selection

_DECIDED = """
create temp table decided as
select
    chosen.sample_id,
    chosen.class_id,
    chosen.confidence,
    chosen.copies,
    chosen.weight,
    case
        when chosen.outcome = 'kept' and standing.why is not null then standing.why
        when chosen.outcome = 'kept' and labels.sample_id is null then 'not_labeled'
        else chosen.outcome
    end as outcome
from chosen
left join standing on chosen.sample_id = standing.sample_id
left join (
    select sample_id from soft_labels
    where teacher_id = $teacher_id and iteration = $iteration and split = 'unlabeled'
) as labels on chosen.sample_id = labels.sample_id
"""

_PSEUDO_ROWS = """
select
    decided.sample_id,
    decided.class_id,
    decided.confidence,
    decided.copies::integer as copies,
    decided.weight,
    labels.label
from decided
inner join soft_labels as labels on decided.sample_id = labels.sample_id
where
    decided.outcome = 'kept'
    and labels.teacher_id = $teacher_id
    and labels.iteration = $iteration
    and labels.split = 'unlabeled'
order by decided.sample_id asc
"""

_BY_OUTCOME = """
select
    class_id,
    outcome,
    count(*) as n,
    sum(copies)::bigint as draws,
    sum((copies * weight)::decimal(38, 9)) as weight
from decided group by all order by all
"""

_UNDECIDED = """
select count(*) as n from images
where
    split = 'unlabeled' and verdict = 'accepted'
    and sample_id not in (select sample_id from decided)
"""


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


_KINDS: Final[dict[str, Callable[[pa.DataType], bool]]] = {
    "sample_id": pa.types.is_integer,
    "class_id": pa.types.is_integer,
    "confidence": _is_number,
    "outcome": lambda kind: pa.types.is_string(getattr(kind, "value_type", kind)),
    "copies": _is_number,
    "weight": _is_number,
}


def choose_by_query(
    store: Store, selection: "Selection", pins: Mapping[str, int], stack: ExitStack
) -> Choice:
    """Let a saved query decide; what people and the import ruled out stays out."""
    query = saved_query(str(selection.query))
    check_read_only(query.sql)
    (teacher,) = find_teachers(store, selection.teachers, version=pins["soft_labels"])
    whose = {
        "teacher_id": teacher.label_set.teacher_id,
        "iteration": teacher.label_set.iteration,
    }
    standing = find_standing(store, pins, held_out=selection.held_out)
    given = _query_parameters(store, selection, query, {**whose}, standing)
    parameters = with_labels(store, query, given, version=pins["soft_labels"])
    chosen = run_sql(store, query.sql, parameters, as_of=pins, limits=selection.limits)
    if not chosen.num_rows:
        raise InputError(
            f"selection query {query.name!r} returned no rows for teacher "
            f"{whose['teacher_id']!r} and iteration {whose['iteration']} in {store.root}: it "
            "drops them all, or there are no such labels"
        )
    _check_decided(chosen, query.name, len(store.class_names))
    chosen = _with_weights(chosen, query.name)
    connection = stack.enter_context(connect(store, as_of=pins, limits=Limits(seconds=None)))
    connection.register("chosen", chosen)
    connection.register("standing", standing.barred)
    connection.execute(_DECIDED, whose)
    undecided = fetch(connection, _UNDECIDED)["n"][0].as_py()
    outcomes = fetch(connection, _BY_OUTCOME).to_pylist()
    dropped = {**standing.refused, "not_in_query": undecided}
    for row in outcomes:
        if row["outcome"] != "kept":
            dropped[row["outcome"]] = dropped.get(row["outcome"], 0) + row["n"]
    counts = outcome_counts(store, outcomes, dropped)
    return Choice(
        query=query.name,
        sql=query.sql,
        parameters=parameters,
        counts=counts,
        rows=lambda: as_many(stream(connection, _PSEUDO_ROWS, whose), counts["kept"], store),
    )


def _query_parameters(
    store: Store,
    selection: "Selection",
    query: SavedQuery,
    whose: dict[str, Any],
    standing: Standing,
) -> dict[str, Any]:
    """Return the parameters of a query, filled in where it takes what a balance has."""
    taken = {parameter.name for parameter in query.parameters}
    names = ("min_confidence", "images_per_class")
    asked = [n for n in names if getattr(selection.balance, n) != getattr(Balance(), n)]
    if unused := [name for name in asked if name not in taken]:
        raise InputError(
            f"{' and '.join(unused)} with the query {query.name!r}, which takes no such "
            f"parameter; leave it out (of a recipe: --set select.{unused[-1]}=)"
        )
    balance = selection.balance.with_even_quota(standing.num_accepted, len(store.class_names))
    known = {
        **whose,
        "seed": balance.seed,
        "min_confidence": balance.min_confidence,
        "images_per_class": balance.images_per_class,
    }
    filled = {name: value for name, value in known.items() if name in taken}
    return query.check_parameters({**filled, **selection.parameters})


def _check_decided(decided: pa.Table, name: str, num_classes: int) -> None:
    _check_columns(decided, name)
    num_images = pc.count_distinct(decided["sample_id"]).as_py()
    if num_images != decided.num_rows:
        raise QueryError(
            f"selection query {name!r} gives {decided.num_rows} rows for {num_images} images; "
            "wanted one row an image"
        )
    classes = pc.min_max(decided["class_id"]).as_py()
    if not 0 <= classes["min"] <= classes["max"] < num_classes:
        raise QueryError(
            f"selection query {name!r} gives classes {classes['min']} to {classes['max']}; "
            f"wanted 0 to {num_classes - 1}"
        )
    kept = decided.filter(pc.equal(decided["outcome"], "kept"))
    if kept.num_rows and not pc.min(kept["copies"]).as_py() >= 1:
        raise QueryError(f"selection query {name!r} keeps images with fewer than 1 copy")


def _check_columns(decided: pa.Table, name: str) -> None:
    """Refuse a table that lacks a column, or has one of the wrong kind or with nulls."""
    there = set(decided.column_names)
    if missing := [c for c in _KINDS if c not in there and c != "weight"]:
        raise QueryError(f"selection query {name!r} lacks {', '.join(missing)}")
    found = [column for column in _KINDS if column in there]
    wrong = [
        f"{column} as {decided.schema.field(column).type}"
        for column in found
        if not _KINDS[column](decided.schema.field(column).type)
    ]
    if wrong:
        raise QueryError(
            f"selection query {name!r} gives {', '.join(wrong)}; wanted whole numbers for "
            "sample_id and class_id, numbers for confidence, copies and weight, text for "
            "outcome"
        )
    if empty := [column for column in found if decided[column].null_count]:
        raise QueryError(f"selection query {name!r} gives nulls in {', '.join(empty)}")


def _with_weights(decided: pa.Table, name: str) -> pa.Table:
    """Return rows with a float32 weight each: 1 where the query says nothing of it.

    Raises:
        QueryError: If a weight of an image that is kept is not above 0, up to 1.
    """
    if "weight" not in decided.column_names:
        ones = pa.repeat(pa.scalar(1, pa.float32()), decided.num_rows)
        return decided.append_column("weight", ones)
    numbers = decided["weight"].cast(pa.float32(), safe=False).to_numpy()
    kept = pc.equal(decided["outcome"], "kept").to_numpy()
    wrong = kept & ~((numbers > 0) & (numbers <= 1))
    if wrong.any():
        place = int(wrong.argmax())
        raise QueryError(
            f"selection query {name!r} gives {wrong.sum()} of the images that it keeps no "
            f"weight that can be used, such as {numbers[place]} to sample_id "
            f"{decided['sample_id'][place]}; wanted above 0, up to 1"
        )
    index = decided.schema.get_field_index("weight")
    return decided.set_column(index, "weight", pa.array(np.where(kept, numbers, np.float32(0))))
