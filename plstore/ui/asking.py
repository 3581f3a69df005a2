"""SQL of the user, and saved queries: run in a process of their own, with limits."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from plstore.errors import InputError, QueryError
from plstore.query import Limits, SavedQuery, list_queries, saved_query, with_labels
from plstore.query.isolated import run_isolated
from plstore.report.output import render
from plstore.report.snapshot import Snapshot
from plstore.report.values import rows_of

LIMITS: Final = Limits(seconds=60.0)
_NAMES_A_THING: Final = re.compile("_id$|^iteration|^version$|^bin$|^level$")
MOST_ROWS: Final = 500
"""Rows that a page shows; a download has all."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What SQL answered.

    Attributes:
        rows: All of them.
        notes: What was chosen where nothing was given.
    """

    rows: pa.Table
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The first rows, as Python has them."""
        return rows_of(self.rows.slice(0, MOST_ROWS))

    def csv(self) -> bytes:
        """Return all rows as CSV, as `plstore sql --format csv` prints them."""
        names = self.rows.column_names
        return (render(rows_of(self.rows), "csv", columns=names) + "\n").encode()

    def parquet(self) -> bytes:
        """Return all rows as Parquet."""
        stream = io.BytesIO()
        pq.write_table(self.rows, stream, compression="zstd")
        return stream.getvalue()


def ask(snapshot: Snapshot, sql: str) -> Answer:
    """Run one SELECT of the user over a snapshot.

    Raises:
        QueryError: If it is none, is refused, or reaches a limit.
    """
    if not sql.strip():
        raise QueryError("there is no SQL to run; wanted one SELECT")
    rows = run_isolated(snapshot.store, sql, as_of=snapshot.pins, limits=LIMITS)
    return Answer(rows=rows)


def ask_saved(snapshot: Snapshot, name: str, values: Mapping[str, Any]) -> Answer:
    """Run a saved query over a snapshot; what is not given is as its header says.

    Raises:
        InputError: If there is no such query.
        QueryError: If a parameter is wrong, or a limit is reached.
    """
    query = saved_query(name)
    notes: list[str] = []
    filled = with_labels(
        snapshot.store,
        query,
        query.check_parameters(values),
        version=snapshot.pins["soft_labels"],
        on_note=notes.append,
    )
    rows = run_isolated(snapshot.store, query.sql, filled, as_of=snapshot.pins, limits=LIMITS)
    return Answer(rows=rows, notes=tuple(notes))


def read_values(query: SavedQuery, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of a query from what was typed; empty ones are left out.

    Raises:
        QueryError: If one is no value of its type.
    """
    known = {parameter.name for parameter in query.parameters}
    return {
        name: query.read_value(name, value)
        for name, value in texts.items()
        if name in known and value.strip()
    }


def find_query(name: str) -> SavedQuery | None:
    """Return the saved query of a name, which may be no path; None if there is none."""
    if name.endswith(".sql"):
        return None
    try:
        return saved_query(name)
    except InputError:
        return None


def questions(*, of_images: bool = False) -> list[SavedQuery]:
    """Return the saved queries; of images alone, those that answer with a ``sample_id``."""
    return [
        query
        for query in list_queries()
        if not of_images or any(column.name == "sample_id" for column in query.columns)
    ]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Columns of an answer as a chart.

    Attributes:
        along: Name of the column along it.
        x: Its values, as text.
        series: Numbers by the name of their column.
        is_line: Whether they stand in an order, as steps and iterations do.
    """

    along: str
    x: list[str]
    series: dict[str, list[float | None]]
    is_line: bool


def chart_of(rows: pa.Table, x: str = "", y: str = "", most: int = 200) -> Chart | None:
    """Return a chart of the first rows, None where no column holds numbers.

    Args:
        rows: An answer.
        x: Column along the chart; the text that differs most, or the first, unless given.
        y: Column of its height; the first of numbers that count unless given.
        most: Rows.
    """
    kinds = {f.name: f.type for f in rows.schema}
    numbers = [n for n, kind in kinds.items() if _is_number(kind)]
    part = rows.slice(0, most)
    texts = [n for n in kinds if pa.types.is_string(kinds[n])]
    texts.sort(key=lambda n: -len(set(part[n].to_pylist())))
    x = x if x in kinds else (texts or list(kinds) or [""])[0]
    heights = sorted(
        (n for n in numbers if n != x), key=lambda n: bool(_NAMES_A_THING.search(n))
    )
    y = y if y in heights else (heights or [""])[0]
    if not (x and y and rows.num_rows):
        return None
    values = [None if v is None else float(v) for v in part[y].to_pylist()]
    names = ["" if v is None else str(v)[:40] for v in part[x].to_pylist()]
    is_line = _is_number(kinds[x]) and part.num_rows > 2  # noqa: PLR2004  two are no line
    return Chart(along=x, x=names, series={y: values}, is_line=is_line)


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))
