"""Options that several verbs share."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from plstore.report.output import Format

StoreOption = Annotated[
    Path,
    typer.Option("--store", envvar="PLSTORE_STORE", help="Folder of the store."),
]
FormatOption = Annotated[
    str, typer.Option("--format", help="How rows are printed: table, json or csv.")
]


def check_format(format_: str) -> "Format":
    """Return the format, or say which there are."""
    if format_ not in {"table", "json", "csv"}:
        raise typer.BadParameter(f"--format is {format_!r}; wanted table, json or csv")
    return format_  # type: ignore[return-value]  # checked above


def print_rows(
    rows: Sequence[dict[str, Any]], format_: str, *, columns: Sequence[str] | None = None
) -> None:
    """Print rows on stdout."""
    from plstore.report.output import render

    sys.stdout.write(render(rows, check_format(format_), columns=columns) + "\n")
