"""Options that several verbs share."""

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

if TYPE_CHECKING:
    from plstore.report.output import Format
    from plstore.store import Store

StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="PLSTORE_STORE", help="Folder or s3:// URL of the store."),
]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        help="Snapshot: a tag, a number of plstore log, a UTC time, or VIEW@VERSION.",
    ),
]
IdsOption = Annotated[
    str | None, typer.Option("--ids", help="Sample ids, by commas: 17,18,40.")
]
IdsFileOption = Annotated[
    Path | None, typer.Option("--file", help="CSV or Parquet with a sample_id column.")
]
IdsQueryOption = Annotated[
    str | None, typer.Option("--query", help="A SELECT with a sample_id column.")
]


def _check_format(format_: str) -> str:
    """Say which formats there are before a verb does anything."""
    if format_ not in {"table", "json", "csv"}:
        raise typer.BadParameter(f"--format is {format_!r}; wanted table, json or csv")
    return format_


FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        callback=_check_format,
        help="How rows are printed: table, json (exact numbers; NaN and infinity are null) or "
        "csv (nested values are JSON).",
    ),
]


_Verb = TypeVar("_Verb", bound=Callable[..., None])


def with_examples(verb: _Verb) -> _Verb:
    """Keep indented lines, such as examples, as they are written in a verb's docstring."""
    paragraphs = (inspect.getdoc(verb) or "").split("\n\n")
    verb.__doc__ = "\n\n".join(
        f"\b\n{paragraph}" if "\n  " in paragraph else paragraph for paragraph in paragraphs
    )
    return verb


def open_to_read(path: str) -> "Store":
    """Open a store for a verb that only reads, without paying for pandas."""
    from plstore.storage import import_without_pandas

    import_without_pandas()
    from plstore.store import open as open_store

    return open_store(path)


def print_rows(
    rows: Sequence[dict[str, Any]],
    format_: str,
    *,
    columns: Sequence[str] | None = None,
    whole: bool = False,
) -> None:
    """Print rows on stdout; `whole` where a cell may not be cut, such as a path."""
    sys.stdout.write(rendered(rows, format_, columns=columns, whole=whole) + "\n")


def rendered(
    rows: Sequence[dict[str, Any]],
    format_: str,
    *,
    columns: Sequence[str] | None = None,
    whole: bool = False,
) -> str:
    """Return rows as `print_rows` prints them."""
    from plstore.report.output import LONGEST_CELL, render

    longest = 10_000 if whole else LONGEST_CELL
    return render(rows, cast("Format", format_), columns=columns, longest=longest)


def chosen_rows(
    store: "Store", *, ids: str | None, file: Path | None, query: str | None
) -> list[dict[str, Any]]:
    """Return the rows that name images, by whichever of three options was given.

    Returns:
        For each row its sample_id, an integer, and its label as it is written, where there is
        a column of that name.

    Raises:
        InputError: If not exactly one was given, or it has no column of sample ids.
    """
    from plstore.errors import InputError
    from plstore.exchange.tables import read_table, whole_numbers
    from plstore.query import run_sql

    if sum(option is not None for option in (ids, file, query)) != 1:
        raise InputError("name the images by exactly one of --ids, --file and --query")
    if ids is not None:
        try:
            return [{"sample_id": int(word)} for word in ids.split(",")]
        except ValueError as error:
            raise InputError(f"--ids is {ids!r}; wanted numbers such as 17,18,40") from error
    table = run_sql(store, query) if query is not None else read_table(Path(str(file)))
    source = rows_source(file)
    if "sample_id" not in table.column_names:
        raise InputError(
            f"{source} has the columns {', '.join(table.column_names)}; wanted sample_id among "
            "them"
        )
    rows = [
        {"sample_id": sample_id}
        for sample_id in whole_numbers(table["sample_id"], f"{source}: sample_id").to_pylist()
    ]
    if "label" in table.column_names:
        labels = table["label"].to_pylist()
        rows = [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]
    return rows


def rows_source(file: Path | None) -> str:
    """Return what `chosen_rows` took rows from, for messages."""
    return "the query" if file is None else str(file)
