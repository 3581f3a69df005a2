"""Options that several verbs share."""

import inspect
import sys
from collections.abc import Callable, Sequence
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
    from plstore.machine import import_without_pandas

    import_without_pandas()
    from plstore.store import open as open_store

    return open_store(path)


def say(message: str) -> None:
    """Print a line for people on stderr, so that stdout stays for rows."""
    print(message, file=sys.stderr)


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
