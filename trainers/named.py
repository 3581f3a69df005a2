"""Models of a store, by name."""

from plstore.errors import InputError
from plstore.labels import TeacherRecord, find_teacher, list_teachers
from plstore.store import Store


def teacher_named(store: Store, teacher_id: str) -> TeacherRecord:
    """Return the teacher of a name.

    Raises:
        InputError: If there is none; the message names those with a model.
    """
    teacher = find_teacher(store, teacher_id)
    if teacher is None:
        known = ", ".join(t.teacher_id for t in list_teachers(store) if t.checkpoint)
        raise InputError(
            f"{store.root} has no teacher {teacher_id!r}; those with a model are "
            f"{known or 'none'}"
        )
    return teacher
