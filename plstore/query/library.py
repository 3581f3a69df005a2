"""Saved queries: one SELECT a file, documented by its own header comment.

The path is the name: ``queries/coverage/labels_per_class.sql`` is
``coverage/labels_per_class``. The header's first paragraph is the summary; lines of
``grain:``, ``param NAME TYPE:`` and ``column NAME TYPE:`` are the promise. A parameter that
may be left out says what it is then: ``param NAME TYPE = VALUE:``, text in single quotes,
``newest`` or ``previous`` for labels that the store has, see `plstore.query.parameters`. A line
``needs: soft_labels of SPLIT`` (``in 2 iterations``) says of which there must be some.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import duckdb

from plstore.errors import InputError, QueryError
from plstore.query.missing import Need
from plstore.query.parameters import (
    PYTHON_TYPES,
    LabelsDefault,
    Parameter,
    check_labels_defaults,
    read_default,
)
from plstore.schema import SPLITS

_PARAM = re.compile(r"param (\w+) (\w+)(?: = (\S+))?: (.+)")
_COLUMN = re.compile(r"column (\w+) ([\w\[\]]+): (.+)")
_GRAIN = re.compile(r"grain: (.+)")
_NEED = re.compile(r"needs: soft_labels of (\w+)(?: in (\d+) iterations)?")


@dataclass(frozen=True, kw_only=True)
class SavedQuery:
    """A query file, read."""

    name: str
    summary: str
    grain: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Parameter, ...]
    sql: str
    needs: tuple[Need, ...] = ()

    def read_value(self, name: str, text: str) -> Any:  # noqa: ANN401  of the parameter's type
        """Return the value of a parameter from text; that of an unknown one stays text.

        Raises:
            QueryError: If it is no value of the parameter's type.
        """
        kinds = {parameter.name: parameter.type for parameter in self.parameters}
        kind = PYTHON_TYPES[kinds.get(name, "varchar")][0]
        try:
            return kind(text)
        except ValueError as error:
            raise QueryError(
                f"--{name.replace('_', '-')} is {text!r}; wanted {kinds[name]}"
            ) from error

    def check_parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values if they are those that the query asks for, with their types.

        What is left out has its default; `plstore.query.newest` gives those that a store has.

        Raises:
            QueryError: If one is missing, unknown or of the wrong type.
        """
        wanted = {p.name: p for p in self.parameters}
        defaults = {
            p.name: p.default
            for p in self.parameters
            if p.default is not None and not isinstance(p.default, LabelsDefault)
        }
        values = {**defaults, **values}
        problems = [
            f"{p.option} is missing"
            for p in self.parameters
            if p.default is None and p.name not in values
        ]
        problems += [f"{name!r} is unknown" for name in values.keys() - wanted.keys()]
        for name, value in values.items():
            kind = wanted[name].type if name in wanted else None
            if kind and (isinstance(value, bool) or not isinstance(value, PYTHON_TYPES[kind])):
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
        near = get_close_matches(name, names, n=3, cutoff=0.5)
        there = f"there are {', '.join(names)}"
        if near:
            there = f"did you mean {' or '.join(near)}? 'plstore query list' names all"
        raise InputError(f"no saved query {name!r}; {there}")
    return parse_query(name, path.read_text())


def find_query(name: str) -> SavedQuery | None:
    """Return the saved query of a name, or of a .sql file; None if there is none."""
    try:
        return saved_query(name)
    except InputError as error:
        if isinstance(error, QueryError):
            raise
        return None


def parse_query(name: str, text: str) -> SavedQuery:
    """Read a query from its text; see the module for the header."""
    summary: list[str] = []
    parameters: list[Parameter] = []
    columns: list[Parameter] = []
    needs: list[Need] = []
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
        elif found := _NEED.fullmatch(content):
            needs.append(Need(splits=(found[1],), iterations=int(found[2] or 1)))
    query = SavedQuery(
        name=name,
        summary=" ".join(summary),
        grain=grain,
        parameters=tuple(parameters),
        columns=tuple(columns),
        sql=text,
        needs=tuple(needs),
    )
    _check_header(query)
    return query


def _parameter(found: re.Match[str]) -> Parameter:
    default = read_default(found[2], found[3]) if found[3] else None
    return Parameter(name=found[1], type=found[2], meaning=found[4], default=default)


def _check_header(query: SavedQuery) -> None:
    if not (query.summary and query.grain and query.columns):
        raise QueryError(
            f"query {query.name!r} needs a header with a summary, 'grain:' and 'column' lines"
        )
    wrong = [split for need in query.needs for split in need.splits if split not in SPLITS]
    if wrong:
        raise QueryError(
            f"query {query.name!r} needs soft labels of {wrong[0]!r}; wanted one of "
            f"{', '.join(SPLITS)}"
        )
    statements = duckdb.extract_statements(query.sql)
    used = set().union(*(statement.named_parameters for statement in statements))
    declared = {parameter.name for parameter in query.parameters}
    if used != declared:
        raise QueryError(
            f"query {query.name!r} uses the parameters {sorted(used)} and declares "
            f"{sorted(declared)}; its 'param' lines must name exactly those it uses"
        )
    check_labels_defaults(query.name, query.parameters)
