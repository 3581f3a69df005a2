"""Teachers of a store: one record each, added, found and listed here and nowhere else."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import pyarrow.compute as pc

from plstore.fingerprint import canonical_json
from plstore.labels.label_sets import check_teacher_id
from plstore.version import __version__

if TYPE_CHECKING:
    from plstore.store import Store

Role = Literal[
    "teacher", "student", "control", "pretrained", "imported", "ensemble", "predictions"
]
"""Trained by a run: teacher (the first), student, control; pretrained, a network without a
classifier, that these start from. Brought: imported (a model), predictions (labels alone). Made
of others: ensemble."""

_TEXTS = ("preprocessing", "metrics", "members", "recipe")


@dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """One row of `teachers`: whose labels may be in the store, and how it came to be.

    Attributes:
        teacher_id: Name, `[a-z0-9_-]+`.
        iteration: Of its training; of its labels where there was none.
        role: See `Role`.
        architecture: Such as timm's name of it.
        checkpoint: Folder of its model below the store; None where it has none.
        checkpoint_hash: Of the model's weights, or of what a fusion was made of.
        preprocessing: How images reach it.
        metrics: What was measured when it was made.
        members: Of an ensemble: its members, and how they were fused.
        view: That it was trained on.
        view_version: Of that view.
        recipe: The whole of it.
        recipe_hash: Its hash.
        seed: Of its run.
        code_version: Of plstore.
        created_at: When the record was made.
    """

    teacher_id: str
    iteration: int
    role: Role
    architecture: str = ""
    checkpoint: str | None = None
    checkpoint_hash: str | None = None
    preprocessing: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = field(default_factory=dict)
    members: Mapping[str, Any] | None = None
    view: str | None = None
    view_version: int | None = None
    recipe: Mapping[str, Any] | None = None
    recipe_hash: str | None = None
    seed: int | None = None
    code_version: str = __version__
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def is_trained(self) -> bool:
        """Whether a run made it, and it labels."""
        return self.role in {"teacher", "student", "control"}

    def as_row(self) -> dict[str, Any]:
        """Return the row as the table stores it: mappings as JSON text."""
        row = dict(vars(self))
        for name in _TEXTS:
            row[name] = None if row[name] is None else canonical_json(dict(row[name]))
        return row


def add_teacher(store: "Store", record: TeacherRecord, *, identity: str, step: str) -> None:
    """Add a teacher; one that is added twice, by its identity, is there once.

    Args:
        store: Where to.
        record: The teacher.
        identity: Of what made it.
        step: Which kind of work that was; kept in the commit's lineage.

    Raises:
        InputError: If the name cannot be one.
    """
    check_teacher_id(record.teacher_id)
    store.append("teachers", [record.as_row()], identity=identity, step=step)


def find_teacher(store: "Store", teacher_id: str) -> TeacherRecord | None:
    """Return the teacher of a name, None if there is none."""
    found = _records(store, pc.field("teacher_id") == teacher_id)
    return found[-1] if found else None


def list_teachers(store: "Store") -> list[TeacherRecord]:
    """Return all teachers, oldest first."""
    return _records(store, None)


def _records(store: "Store", where: pc.Expression | None) -> list[TeacherRecord]:
    rows = store.table("teachers").read(where=where).sort_by("created_at").to_pylist()
    for row in rows:
        row["architecture"] = row["architecture"] or ""
        for name in _TEXTS:
            row[name] = json.loads(row[name]) if row[name] else None
    return [TeacherRecord(**row) for row in rows]
