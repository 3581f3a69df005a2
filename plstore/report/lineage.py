"""The models of a store, and what led to what: teachers, their labels, views, students."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from plstore.labels import TeacherRecord, list_teachers
from plstore.report.layout import Layout, Node, laid_out
from plstore.report.snapshot import Snapshot

_MEASURED: Final = """
select run, name, arg_max(value, step) as value from runs
where name in ('test_accuracy', 'validation_accuracy')
group by run, name order by run, name
"""
_RIGHT: Final = """
select teacher_id, iteration, avg((class_id = true_id)::int) as accuracy, count(*) as n
from evaluated('validation', '') group by all order by all
"""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A teacher of the store, with what is known of it.

    Attributes:
        teacher_id: Its name.
        iteration: Of its training.
        role: As the store has it.
        architecture: Of its network.
        view: That it was trained on, ``NAME@VERSION``.
        test: Accuracy on test images, a share; None where it was not measured.
        validation: On validation images.
        num_labels: Labels by ``TEACHER@ITERATION``.
        created_at: When.
    """

    teacher_id: str
    iteration: int
    role: str
    architecture: str
    view: str | None
    test: float | None
    validation: float | None
    num_labels: Mapping[str, int]
    created_at: datetime


def compared_with(models: Sequence[Model]) -> dict[str, float]:
    """Return the test accuracy that each model's is compared with, a share, by its name.

    A student's is that of the iteration before; of a control, and any other model beside the
    loop, that of the student of its own iteration.
    """
    in_loop = {"teacher", "student"}
    known = {m.iteration: m.test for m in models if m.test is not None and m.role in in_loop}
    found = {m.teacher_id: known.get(m.iteration - (m.role in in_loop)) for m in models}
    return {name: test for name, test in found.items() if test is not None}


def models(snapshot: Snapshot) -> list[Model]:
    """Return the teachers of a store, by iteration; whoever only has labels is among them."""
    return snapshot.once("models", lambda: _models(snapshot))


def _models(snapshot: Snapshot) -> list[Model]:
    measured = {
        (row["run"], row["name"]): row["value"] / 100 for row in snapshot.rows(_MEASURED)
    }
    right: dict[str, float] = {
        row["teacher_id"]: row["accuracy"] for row in snapshot.rows(_RIGHT)
    }
    sizes = label_sizes(snapshot)
    found = []
    for record in list_teachers(snapshot.store):
        name = record.teacher_id
        validation = measured.get((name, "validation_accuracy"))
        found.append(
            Model(
                teacher_id=name,
                iteration=record.iteration,
                role=record.role,
                architecture=record.architecture,
                view=None if record.view is None else f"{record.view}@{record.view_version}",
                test=measured.get((name, "test_accuracy")),
                validation=right.get(name) if validation is None else validation,
                num_labels={k: n for k, n in sizes.items() if k.partition("@")[0] == name},
                created_at=record.created_at,
            )
        )
    return sorted(found, key=lambda m: (m.iteration, m.role == "control", m.created_at))


def label_sizes(snapshot: Snapshot) -> dict[str, int]:
    """Return the number of labels by ``TEACHER@ITERATION``, all splits together."""
    shards = snapshot.store.table("soft_labels").shards(snapshot.pins["soft_labels"])
    sizes: dict[str, int] = {}
    for shard in shards:
        name = f"{shard.partition['teacher_id']}@{shard.partition['iteration']}"
        sizes[name] = sizes.get(name, 0) + shard.num_rows
    return sizes


def lineage(snapshot: Snapshot, known: Sequence[Model]) -> Layout:
    """Return teachers, their labels and the views that were chosen from them, laid out."""
    sizes = label_sizes(snapshot)
    nodes = [*_teacher_nodes(snapshot, known), *_label_nodes(sizes), *_view_nodes(snapshot)]
    return laid_out(nodes)


def _teacher_nodes(snapshot: Snapshot, known: Sequence[Model]) -> list[Node]:
    records = {r.teacher_id: r for r in list_teachers(snapshot.store)}
    return [
        Node(
            key=f"teacher:{m.teacher_id}",
            title=m.teacher_id,
            detail=m.role if m.test is None else f"{m.role} · {100 * m.test:.1f} %",
            made_of=(
                *(() if m.view is None else (f"view:{m.view}",)),
                *(f"labels:{name}" for name in _members(records[m.teacher_id])),
                *(f"teacher:{name}" for name in _before(records[m.teacher_id])),
            ),
        )
        for m in known
    ]


def _before(record: TeacherRecord) -> list[str]:
    """Return the model that one began with, if any."""
    found = (record.metrics or {}).get("started_from")
    return [] if found is None else [str(found)]


def _members(record: TeacherRecord) -> list[str]:
    found = (record.members or {}).get("members", [])
    return [
        f"{member['teacher_id']}@{member['iteration']}"
        for member in found
        if isinstance(member, Mapping) and {"teacher_id", "iteration"} <= member.keys()
    ]


def _label_nodes(sizes: Mapping[str, int]) -> list[Node]:
    return [
        Node(
            key=f"labels:{name}",
            title=f"labels of iteration {name.rpartition('@')[2]}",
            detail=f"{size:,}",
            made_of=(f"teacher:{name.rpartition('@')[0]}",),
        )
        for name, size in sizes.items()
    ]


def _view_nodes(snapshot: Snapshot) -> list[Node]:
    rows = snapshot.rows(
        "select view, version, num_images, parameters from views order by created_at, view"
    )
    return [
        Node(
            key=f"view:{row['view']}@{row['version']}",
            title=f"{row['view']}@{row['version']}",
            detail=f"{row['num_images']:,} images",
            made_of=tuple(f"labels:{name}" for name in label_names(row["parameters"])),
        )
        for row in rows
    ]


def label_names(parameters: str | Mapping[str, Any]) -> list[str]:
    """Return whose labels a view was chosen from, by its recorded parameters."""
    given = json.loads(parameters) if isinstance(parameters, str) else parameters
    named = [str(text).rpartition("=")[2] for text in given.get("teachers", [])]
    if not named and given.get("teacher_id") is not None:
        named = [f"{given['teacher_id']}@{given.get('iteration')}"]
    return named
