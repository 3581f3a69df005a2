"""Whose labels a query is about where nobody says: the newest there are, and those before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plstore.errors import QueryError
from plstore.labels import labels_in_order
from plstore.query.library import SavedQuery
from plstore.query.parameters import LabelsDefault, Parameter
from plstore.store import Store

_Labels = tuple[str, int]
"""A teacher and an iteration that it labeled."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Labels that some parameters of a query are about.

    Attributes:
        default: What they are unless given.
        parameters: Those of the teacher and the iteration.
        given: Values of those that are given, by type.
    """

    default: LabelsDefault
    parameters: tuple[Parameter, ...]
    given: Mapping[str, Any]

    @property
    def is_given(self) -> bool:
        return len(self.given) == len(self.parameters)

    @property
    def options(self) -> str:
        return ", ".join(p.option for p in self.parameters if p.type not in self.given)

    def fits(self, labels: _Labels) -> bool:
        teacher_id, iteration = labels
        there = {"varchar": teacher_id, "integer": iteration}
        return all(there[kind] == value for kind, value in self.given.items())

    def values(self, labels: _Labels | None) -> dict[str, Any]:
        """Return the values of the parameters that are not given."""
        teacher_id, iteration = labels or (None, None)
        there = {"varchar": teacher_id, "integer": iteration}
        return {p.name: there[p.type] for p in self.parameters if p.type not in self.given}


def with_labels(
    store: Store,
    query: SavedQuery,
    values: Mapping[str, Any],
    *,
    version: int | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return the parameters of a query with those that a store has the defaults of.

    A teacher that is given without an iteration is taken at the last that it labeled, an
    iteration without a teacher by the one that labeled it last. Two teachers that are to be
    compared are never the same labels, unless all four parameters say so.

    Args:
        store: Whose labels.
        query: The query.
        values: What `SavedQuery.check_parameters` returned.
        version: Of `soft_labels`; the newest unless given.
        on_note: Called with a line that says what was chosen.

    Returns:
        All parameters; None where the store has no labels to choose from.

    Raises:
        QueryError: If there are labels, and none that fit; the message names all of them.
    """
    filled = dict(values)
    taken: dict[str, _Labels] = {}
    for asked in _in_turn(_asked(query, values)):
        splits = asked.default.splits(values)
        known = labels_in_order(store, version, splits)
        if not known:
            filled |= asked.values(None)
            continue
        labels = _choose(asked, known, taken)
        if labels is None:
            raise QueryError(_no_such(store, asked, known, splits, is_second=bool(taken)))
        taken[asked.default.place] = labels
        filled |= asked.values(labels)
        if not asked.is_given:
            on_note(_note(asked, labels))
    return filled


def _asked(query: SavedQuery, values: Mapping[str, Any]) -> list[_Asked]:
    groups: dict[LabelsDefault, list[Parameter]] = {}
    for parameter in query.parameters:
        if isinstance(parameter.default, LabelsDefault):
            groups.setdefault(parameter.default, []).append(parameter)
    return [
        _Asked(
            default=default,
            parameters=tuple(group),
            given={p.type: values[p.name] for p in group if p.name in values},
        )
        for default, group in groups.items()
    ]


def _in_turn(groups: Sequence[_Asked]) -> list[_Asked]:
    """Return what is given in full first, then in part, then the newest, then those before."""
    return sorted(groups, key=lambda a: (-len(a.given), a.default.place == "previous"))


def _choose(
    asked: _Asked, known: Sequence[_Labels], taken: Mapping[str, _Labels]
) -> _Labels | None:
    """Return the newest labels that fit, beside those that are taken; None if none do."""
    fitting = [labels for labels in known if asked.fits(labels)]
    if asked.is_given:
        return fitting[-1] if fitting else None
    newest = taken.get("newest")
    if asked.default.place == "previous" and not asked.given and newest in fitting:
        fitting = fitting[: fitting.index(newest)]
    fitting = [labels for labels in fitting if labels not in taken.values()]
    return fitting[-1] if fitting else None


def _note(asked: _Asked, labels: _Labels) -> str:
    teacher_id, iteration = labels
    newest = asked.default.place == "newest" or asked.given
    which = "the newest labels" if newest else "the labels before those"
    which += " of that teacher" if "varchar" in asked.given else ""
    which += " of that iteration" if "integer" in asked.given else ""
    return f"teacher {teacher_id}, iteration {iteration}: {which}; {asked.options} for others"


def _no_such(
    store: Store,
    asked: _Asked,
    known: Sequence[_Labels],
    splits: Sequence[str],
    *,
    is_second: bool,
) -> str:
    of = f" of {' or '.join(splits)} images" if splits else ""
    there = ", ".join(f"{teacher_id} (iteration {n})" for teacher_id, n in known)
    given = [
        f"{p.option} {asked.given[p.type]}" for p in asked.parameters if p.type in asked.given
    ]
    if not given:
        return (
            f"{store.root} has labels{of} by {there}: none before the others to compare them "
            f"with. Name {asked.options}, or make more labels with plstore label"
        )
    other = "other " if is_second and not asked.is_given else ""
    return (
        f"{store.root} has no {other}labels{of} by {' '.join(given)}; it has those by {there}"
    )
