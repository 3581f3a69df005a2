"""Where a model came from: what it was trained on, who labeled that, and so on to the first."""

from dataclasses import dataclass

from plstore.errors import InputError
from plstore.labels import TeacherRecord, find_teacher
from plstore.store import Store
from plstore.views import View, open_view
from trainers.training.train import STARTED_FROM


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """A model of a lineage.

    Attributes:
        teacher: Its record.
        view: That it was trained on; None where there was none, or it is gone.
        taught_by: Whose labels that has, as TEACHER@ITERATION; of a fusion its members.
    """

    teacher: TeacherRecord
    view: View | None
    taught_by: tuple[str, ...]


def lineage_of(store: Store, teacher: TeacherRecord) -> list[Ancestor]:
    """Return a model and all that it learned from, the model itself first, each once."""
    found: dict[str, Ancestor] = {}
    waiting = [teacher]
    while waiting:
        record = waiting.pop(0)
        if record.teacher_id in found:
            continue
        view = _view_of(store, record)
        taught_by = _taught_by(record, view)
        found[record.teacher_id] = Ancestor(teacher=record, view=view, taught_by=taught_by)
        names = [name.rpartition("@")[0] for name in taught_by]
        names += [n] if (n := (record.metrics or {}).get(STARTED_FROM)) is not None else []
        others = (find_teacher(store, name) for name in names)
        waiting += [other for other in others if other is not None]
    return list(found.values())


def _view_of(store: Store, teacher: TeacherRecord) -> View | None:
    if teacher.view is None:
        return None
    try:
        return open_view(store, teacher.view, teacher.view_version)
    except InputError:
        return None


def _taught_by(teacher: TeacherRecord, view: View | None) -> tuple[str, ...]:
    if teacher.members is not None:
        members = teacher.members.get("members", [])
        return tuple(f"{m['teacher_id']}@{m['iteration']}" for m in members)
    asked = {} if view is None else view.record.parameters
    if "teachers" in asked:  # ALIAS=TEACHER@ITERATION
        return tuple(name.rpartition("=")[2] for name in asked["teachers"])
    if "teacher_id" in asked:  # of a saved query
        return (f"{asked['teacher_id']}@{asked['iteration']}",)
    return ()
