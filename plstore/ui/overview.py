"""What a store holds: models with their accuracy, rows, tags, and what led to what."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from plstore.labels import TeacherRecord, list_teachers
from plstore.store import numbered, tags
from plstore.ui.snapshot import Snapshot

_MEASURED: Final = """
select run, name, arg_max(value, step) as value from runs
where name in ('test_accuracy', 'validation_accuracy')
group by run, name order by run, name
"""
_RIGHT: Final = """
select teacher_id, iteration, avg((class_id = true_id)::int) as accuracy, count(*) as n
from evaluated('validation', '') group by all order by all
"""
_SPLITS: Final = """
select split, verdict, count(*) as n from images group by all order by all
"""
_CORRECTED: Final = "select count(distinct sample_id) as n from corrections"
_EXCLUDED: Final = "select count(distinct sample_id) as n from exclusions"


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
    """Return the counts of a snapshot."""
    images: dict[str, int] = {}
    refused = 0
    for row in snapshot.rows(_SPLITS):
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


def models(snapshot: Snapshot) -> list[Model]:
    """Return the teachers of a store, by iteration; whoever only has labels is among them."""
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


@dataclass(frozen=True, kw_only=True)
class Node:
    """One thing that came of others.

    Attributes:
        key: Unique, its kind first: ``teacher:``, ``labels:`` or ``view:``.
        title: Its name.
        detail: More in a few words.
        made_of: Keys of what it came of.
        column: How many steps from the beginning.
        row: Its place in the column.
    """

    key: str
    title: str
    detail: str
    made_of: tuple[str, ...]
    column: int = 0
    row: int = 0

    @property
    def kind(self) -> str:
        """What it is."""
        return self.key.partition(":")[0]


def lineage(snapshot: Snapshot, known: Sequence[Model]) -> list[Node]:
    """Return teachers, their labels and the views that were chosen from them, laid out."""
    sizes = label_sizes(snapshot)
    nodes = [*_teacher_nodes(snapshot, known), *_label_nodes(sizes), *_view_nodes(snapshot)]
    return laid_out(nodes)


def _teacher_nodes(snapshot: Snapshot, known: Sequence[Model]) -> list[Node]:
    members = {r.teacher_id: _members(r) for r in list_teachers(snapshot.store)}
    return [
        Node(
            key=f"teacher:{m.teacher_id}",
            title=m.teacher_id,
            detail=m.role if m.test is None else f"{m.role} · {100 * m.test:.1f} %",
            made_of=(
                *(() if m.view is None else (f"view:{m.view}",)),
                *(f"labels:{name}" for name in members.get(m.teacher_id, ())),
            ),
        )
        for m in known
    ]


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


def laid_out(nodes: Iterable[Node]) -> list[Node]:
    """Return nodes with a place: a column after all that they came of, a row each within it."""
    by_key = {node.key: node for node in nodes}
    columns: dict[str, int] = {}

    def column(key: str, on_the_way: frozenset[str]) -> int:
        if key not in columns:
            before = [k for k in by_key[key].made_of if k in by_key and k not in on_the_way]
            columns[key] = max((column(k, on_the_way | {k}) + 1 for k in before), default=0)
        return columns[key]

    found = []
    taken: dict[int, int] = {}
    for key, node in by_key.items():
        place = column(key, frozenset({key}))
        row = taken.get(place, 0)
        taken[place] = row + 1
        made_of = tuple(k for k in node.made_of if k in by_key)
        found.append(
            Node(
                key=key,
                title=node.title,
                detail=node.detail,
                made_of=made_of,
                column=place,
                row=row,
            )
        )
    return found
