"""Parameters of saved queries: their types, and what they are when they are left out.

A default is a value, or labels that the store has: ``newest`` are those of the last iteration,
by the teacher that labeled last in it, ``previous`` those before. See `plstore.query.newest`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from plstore.errors import QueryError
from plstore.schema import SPLITS

PYTHON_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "float": (float, int),
    "integer": (int,),
    "bigint": (int,),
    "varchar": (str,),
}

Place = Literal["newest", "previous"]

_LABELS = re.compile(rf"({'|'.join(get_args(Place))})(?:\((\$\w+|[a-z,]+)\))?")


@dataclass(frozen=True, kw_only=True)
class LabelsDefault:
    """A default that is taken from the labels of a store.

    All parameters of a query with the same place are of the same labels: text is their teacher,
    a whole number their iteration.

    Attributes:
        place: Which labels.
        of: Splits that they must be of, one of them at least; or ``$NAME``, the parameter that
            names the split. Any unless given.
    """

    place: Place
    of: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as a header has it."""
        return f"{self.place}({','.join(self.of)})" if self.of else self.place

    def splits(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the splits that are meant, where the other parameters are these.

        Raises:
            QueryError: If a parameter names no split.
        """
        names = [part.removeprefix("$") for part in self.of if part.startswith("$")]
        for name in names:
            if values[name] not in SPLITS:
                raise QueryError(f"{name} is {values[name]!r}; wanted {', '.join(SPLITS)}")
        return tuple(values[name] for name in names) or self.of


Default = float | int | str | LabelsDefault | None


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One ``$name`` of a query, or one column of its result.

    Attributes:
        name: As it is written.
        type: Of DuckDB, in lower case.
        meaning: What it is.
        default: Of a parameter that may be left out; None for one that must be given.
    """

    name: str
    type: str
    meaning: str
    default: Default = None

    @property
    def option(self) -> str:
        """How the command line names it."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def short(self) -> str:
        """The name with what it is when it is left out, in a word."""
        if self.default is None:
            return self.name
        if isinstance(self.default, LabelsDefault):
            return f"{self.name}={self.default.place}"
        return f"{self.name}={self.default!r}"

    @property
    def explained(self) -> str:
        """What it is, and what it is when it is left out, as a help says it."""
        return f"{self.meaning} ({self.type}{self._unless})"

    @property
    def _unless(self) -> str:
        if isinstance(self.default, LabelsDefault):
            return f", of the {self.default.place} labels unless given"
        return "" if self.default is None else f", {self.default!r} unless given"

    def __str__(self) -> str:
        """Return it as an error names it."""
        return f"{self.name} ({self.type}{self._unless}): {self.meaning}"


def read_default(kind: str, text: str) -> Default:
    """Return the default that a header writes, text without its quotes.

    Raises:
        QueryError: If it is none of a parameter of this type.
    """
    if (found := _LABELS.fullmatch(text)) and kind in {"varchar", "integer"}:
        of = tuple(found[2].split(",")) if found[2] else ()
        if all(part.startswith("$") or part in SPLITS for part in of):
            place: Place = "newest" if found[1] == "newest" else "previous"
            return LabelsDefault(place=place, of=of)
    quoted = len(text) > 1 and text[0] == text[-1] == "'"
    number = PYTHON_TYPES.get(kind, (str,))[0]
    try:
        if quoted == (number is str):
            value: float | int | str = number(text[1:-1] if quoted else text)
            return value
    except ValueError:
        pass
    raise QueryError(
        f"a header has the default {text} for a {kind}; wanted such as = 0.5, = 8 or = 'mean', "
        "or for a teacher and an iteration = newest(unlabeled)"
    )


def check_labels_defaults(query: str, parameters: Sequence[Parameter]) -> None:
    """Refuse defaults of labels that do not say which teacher and iteration belong together.

    Raises:
        QueryError: If two parameters are the same teacher, those of one place are of different
            splits, or the split is that of no parameter.
    """
    names = {parameter.name for parameter in parameters}
    found: dict[str, tuple[LabelsDefault, str]] = {}
    for parameter in parameters:
        default = parameter.default
        if not isinstance(default, LabelsDefault):
            continue
        before = [d for d, kind in found.values() if d.place == default.place]
        if any(d != default for d in before) or (default, parameter.type) in found.values():
            there = ", ".join(f"{name} = {d}" for name, (d, _) in found.items())
            raise QueryError(
                f"query {query!r}: {parameter.name} = {default} beside {there}; wanted one "
                "varchar and one integer of the same labels"
            )
        if lost := [p for p in default.of if p.startswith("$") and p[1:] not in names]:
            raise QueryError(
                f"query {query!r}: {parameter.name} = {default}, and no parameter {lost[0]}"
            )
        found[parameter.name] = (default, parameter.type)
