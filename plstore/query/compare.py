"""What `plstore diff` names: two teachers' labels, two iterations, or two views."""

from collections.abc import Iterable

import pyarrow as pa

from plstore.errors import InputError
from plstore.labels import LabelSet, label_sets
from plstore.query.differences import diff_labels, diff_views
from plstore.store import AsOf, Store, resolve
from plstore.views import View, open_view


def diff(store: Store, before: str, after: str, *, as_of: AsOf = None) -> pa.Table:
    """Return what changed, as `plstore.query.differences.CHANGES`.

    Args:
        store: The store.
        before: ``TEACHER`` or ``TEACHER@ITERATION`` for its labels, a number for the labels of
            that iteration (of its one teacher), or ``VIEW`` or ``VIEW@VERSION``.
        after: The same, of the same kind.
        as_of: Snapshot whose labels are compared, see `plstore.store.AsOf`; else the newest.

    Raises:
        InputError: If one is nothing of the kind, or they are not of one kind.
    """
    version = None if as_of is None else resolve(store, as_of)["soft_labels"]
    sides = [_named(store, text, version) for text in (before, after)]
    old, new = sides
    if isinstance(old, View) and isinstance(new, View):
        return diff_views(old, new)
    if isinstance(old, list) and isinstance(new, list):
        return diff_labels(store, old, new, version_before=version, version_after=version)
    raise InputError(f"{before!r} and {after!r} are labels and a view; wanted two of one kind")


def _named(store: Store, text: str, version: int | None) -> View | list[LabelSet]:
    known = label_sets(store, version)
    name, at, number = text.partition("@")
    if text.isdigit():
        found = [s for s in known if s.iteration == int(text)]
        teachers = sorted({s.teacher_id for s in found})
        if len(teachers) > 1:
            raise InputError(
                f"iteration {text} has labels by {', '.join(teachers)}; name one as "
                f"{teachers[0]}@{text}"
            )
        if found:
            return found
    elif not at or number.isdigit():
        of_teacher = [s for s in known if s.teacher_id == name]
        last = max((s.iteration for s in of_teacher), default=0)
        found = [s for s in of_teacher if s.iteration == (int(number) if at else last)]
        if found:
            return found
        views = set(store.table("views").read(columns=["view"])["view"].to_pylist())
        if name in views:
            return open_view(store, name, int(number) if at else None)
    raise _unknown(store, text, known)


def _unknown(store: Store, text: str, known: Iterable[LabelSet]) -> InputError:
    there = dict.fromkeys(f"{s.teacher_id}@{s.iteration}" for s in known)
    return InputError(
        f"{text!r} is no teacher, iteration or view of {store.root}; it has labels by "
        f"{', '.join(there) or 'no one'}"
    )
