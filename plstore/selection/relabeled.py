"""The images, copies and weights of another view, with labels of now."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.query import fetch, stream
from plstore.selection.choice import Choice, outcome_counts
from plstore.selection.counting import register_labels
from plstore.selection.engine import scratch_connection, scratch_folder
from plstore.selection.rules import find_teachers
from plstore.selection.standing import find_standing
from plstore.store import Store
from plstore.views import View, open_view

if TYPE_CHECKING:
    from plstore.selection.selection import Selection

_RELABELED = """
select
    labels.sample_id,
    labels.class_id,
    labels.confidence,
    previous.copies,
    coalesce(previous.weight, 1)::float as weight,
    labels.label
from labels inner join previous on labels.sample_id = previous.sample_id
where
    previous.kind = 'pseudo'
    and labels.sample_id not in (select sample_id from standing)
order by labels.sample_id asc
"""

_PREVIOUS = """
select coalesce(standing.why, 'kept') as why, count(*) as n
from previous left join standing on previous.sample_id = standing.sample_id
where previous.kind = 'pseudo' group by all
"""


def choose_relabeled(
    store: Store, selection: "Selection", pins: Mapping[str, int], stack: ExitStack
) -> Choice:
    """Keep the images, copies and weights of another view; take labels alone from the teacher.

    The official code's reassign mode (`predict.py --reassign_label`).
    """
    previous = _view_of(store, str(selection.relabel), pins)
    (teacher,) = find_teachers(store, selection.teachers, version=pins["soft_labels"])
    standing = find_standing(store, pins, held_out=selection.held_out)
    shards = store.table("soft_labels").shards(pins["soft_labels"], teacher.label_set.partition)
    connection = stack.enter_context(scratch_connection(scratch_folder(store)))
    connection.register("standing", standing.barred)
    rows = store.table("view_rows").dataset_of(previous.shards())
    connection.register("previous", rows)
    register_labels(connection, store, shards, name="labels")
    dropped = {row["why"]: row["n"] for row in fetch(connection, _PREVIOUS).to_pylist()}
    whole = dropped.pop("kept", 0)
    sums = (
        "select class_id, 'kept' as outcome, count(*) as n, sum(copies)::bigint as draws, "  # noqa: S608
        "sum((copies * weight)::decimal(38, 9)) as weight "
        f"from ({_RELABELED}) as kept group by class_id order by class_id"
    )
    outcomes = fetch(connection, sums).to_pylist()
    dropped["not_labeled"] = whole - sum(row["n"] for row in outcomes)
    return Choice(
        query="relabel",
        sql=_RELABELED,
        parameters={
            "relabel": previous.key,
            "teachers": [f"{teacher.label_set.teacher_id}@{teacher.label_set.iteration}"],
        },
        counts=outcome_counts(store, outcomes, dropped),
        rows=lambda: stream(connection, _RELABELED, {}),
    )


def _view_of(store: Store, text: str, pins: Mapping[str, int]) -> View:
    """Return the view that ``VIEW[@VERSION]`` names: the last version of the snapshot."""
    name, _, number = text.partition("@")
    if number and not number.isdigit():
        raise InputError(f"relabel is {text!r}; wanted VIEW or VIEW@VERSION")
    if number:
        return open_view(store, name, int(number))
    where = pc.field("view") == name
    rows = store.table("views").read(version=pins["views"], columns=["version"], where=where)
    return open_view(store, name, pc.max(rows["version"]).as_py())
