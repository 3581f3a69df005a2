"""Saved queries: one SELECT a file, documented by its own header comment.

The path is the name: ``queries/coverage/labels_per_class.sql`` is
``coverage/labels_per_class``. The header's first paragraph is the summary; lines of
``grain:``, ``param NAME TYPE:`` and ``column NAME TYPE:`` are the promise. A parameter that
may be left out says what it is then: ``param NAME TYPE = VALUE:``, text in single quotes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from plstore.errors import InputError, QueryError

_PARAM = re.compile(r"param (\w+) (\w+)(?: = (\S+))?: (.+)")
_COLUMN = re.compile(r"column (\w+) ([\w\[\]]+): (.+)")
_GRAIN = re.compile(r"grain: (.+)")
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "float": (float, int),
    "integer": (int,),
    "bigint": (int,),
    "varchar": (str,),
}


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
    default: float | int | str | None = None

    def __str__(self) -> str:
        """Return it as an error names it."""
        unless = "" if self.default is None else f", {self.default!r} unless given"
        return f"{self.name} ({self.type}{unless}): {self.meaning}"


@dataclass(frozen=True, kw_only=True)
class SavedQuery:
    """A query file, read."""

    name: str
    summary: str
    grain: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Parameter, ...]
    sql: str

    def read_value(self, name: str, text: str) -> Any:  # noqa: ANN401  of the parameter's type
        """Return the value of a parameter from text; that of an unknown one stays text.

        Raises:
            QueryError: If it is no value of the parameter's type.
        """
        kinds = {parameter.name: parameter.type for parameter in self.parameters}
        kind = _PYTHON_TYPES[kinds.get(name, "varchar")][0]
        try:
            return kind(text)
        except ValueError as error:
            raise QueryError(
                f"--{name.replace('_', '-')} is {text!r}; wanted {kinds[name]}"
            ) from error

    def check_parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values if they are those that the query asks for, with their types.

        What is left out and need not be given has its default.

        Raises:
            QueryError: If one is missing, unknown or of the wrong type.
        """
        wanted = {p.name: p for p in self.parameters}
        defaults = {p.name: p.default for p in self.parameters if p.default is not None}
        values = {**defaults, **values}
        problems = [f"--{name.replace('_', '-')} is missing" for name in wanted.keys() - values]
        problems += [f"{name!r} is unknown" for name in values.keys() - wanted.keys()]
        for name, value in values.items():
            kind = wanted[name].type if name in wanted else None
            if kind and (isinstance(value, bool) or not isinstance(value, _PYTHON_TYPES[kind])):
                problems.append(f"{name} is {value!r}; wanted {kind}: {wanted[name].meaning}")
        if problems:
            asked = "; ".join(str(parameter) for parameter in self.parameters)
            raise QueryError(
                f"parameters of query {self.name!r}: {'; '.join(sorted(problems))}. "
                f"It takes {asked or 'none'}"
            )
        return dict(values)


def queries_folder() -> Path:
    """Return the folder of saved queries: the checkout's first, else the installed copy."""
    package = Path(__file__).parents[1]
    checkout = package.parent / "queries"
    if checkout.is_dir() and (package.parent / "pyproject.toml").is_file():
        return checkout
    return package / "_queries"


def list_queries() -> list[SavedQuery]:
    """Return all saved queries, by name."""
    folder = queries_folder()
    names = sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.sql")
    )
    return [saved_query(name) for name in names]


def saved_query(name: str) -> SavedQuery:
    """Read one saved query, or a .sql file of one's own.

    Raises:
        InputError: If there is none of that name.
        QueryError: If its header or SQL is not as it must be.
    """
    if name.endswith(".sql") and Path(name).is_file():
        return parse_query(name, Path(name).read_text())
    folder = queries_folder()
    path = (folder / f"{name}.sql").resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        names = sorted(
            p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.sql")
        )
        raise InputError(f"no saved query {name!r}; there are {', '.join(names)}")
    return parse_query(name, path.read_text())


def parse_query(name: str, text: str) -> SavedQuery:
    """Read a query from its text; see the module for the header."""
    summary: list[str] = []
    parameters: list[Parameter] = []
    columns: list[Parameter] = []
    grain = ""
    in_summary = True
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        content = line.removeprefix("--").strip()
        in_summary = in_summary and bool(content)
        if in_summary:
            summary.append(content)
        elif found := _PARAM.fullmatch(content):
            parameters.append(_parameter(found))
        elif found := _COLUMN.fullmatch(content):
            columns.append(Parameter(name=found[1], type=found[2], meaning=found[3]))
        elif found := _GRAIN.fullmatch(content):
            grain = found[1]
    query = SavedQuery(
        name=name,
        summary=" ".join(summary),
        grain=grain,
        parameters=tuple(parameters),
        columns=tuple(columns),
        sql=text,
    )
    _check_header(query)
    return query


def _parameter(found: re.Match[str]) -> Parameter:
    default = _default(found[2], found[3]) if found[3] else None
    return Parameter(name=found[1], type=found[2], meaning=found[4], default=default)


def _default(kind: str, text: str) -> float | int | str:
    """Return the value of a default, text without its quotes."""
    quoted = len(text) > 1 and text[0] == text[-1] == "'"
    number = _PYTHON_TYPES.get(kind, (str,))[0]
    try:
        if quoted == (number is str):
            value: float | int | str = number(text[1:-1] if quoted else text)
            return value
    except ValueError:
        pass
    raise QueryError(
        f"a header has the default {text} for a {kind}; wanted such as = 0.5, = 8 or = 'mean'"
    )


def _check_header(query: SavedQuery) -> None:
    if not (query.summary and query.grain and query.columns):
        raise QueryError(
            f"query {query.name!r} needs a header with a summary, 'grain:' and 'column' lines"
        )
    statements = duckdb.extract_statements(query.sql)
    used = set().union(*(statement.named_parameters for statement in statements))
    declared = {parameter.name for parameter in query.parameters}
    if used != declared:
        raise QueryError(
            f"query {query.name!r} uses the parameters {sorted(used)} and declares "
            f"{sorted(declared)}; its 'param' lines must name exactly those it uses"
        )
