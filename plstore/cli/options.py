"""Options that several verbs share."""

import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from plstore.report.output import Format
    from plstore.store import Store

StoreOption = Annotated[
    Path,
    typer.Option("--store", envvar="PLSTORE_STORE", help="Folder of the store."),
]
FormatOption = Annotated[
    str, typer.Option("--format", help="How rows are printed: table, json or csv.")
]


_Verb = TypeVar("_Verb", bound=Callable[..., None])


def with_examples(verb: _Verb) -> _Verb:
    """Keep the lines of a verb's examples as they are written in its docstring."""
    paragraphs = (inspect.getdoc(verb) or "").split("\n\n")
    verb.__doc__ = "\n\n".join(
        f"\b\n{paragraph}" if paragraph.startswith("Example") else paragraph
        for paragraph in paragraphs
    )
    return verb


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("not needed", name=fullname)


def open_to_read(path: Path) -> "Store":
    """Open a store for a verb that only reads, without paying for pandas.

    Where pandas is installed, importing pyarrow.dataset imports it too, to learn whether it is
    there: half of the start-up time of a verb that never uses it.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow.dataset  # noqa: F401  for its side effect, while pandas is hidden
    finally:
        sys.meta_path.remove(finder)
    from plstore.store import open as open_store

    return open_store(path)


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
