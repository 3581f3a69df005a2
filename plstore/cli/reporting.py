"""Verbs that show finished runs: runs, report."""

from pathlib import Path
from typing import Annotated

import typer

from plstore.cli.options import FormatOption, StoreOption, open_to_read, print_rows


def runs(
    store: StoreOption,
    run: Annotated[
        str | None, typer.Argument(help="One of them, in full or by its beginning.")
    ] = None,
    format_: FormatOption = "table",
) -> None:
    """List the finished runs of a store, or show the table of one.

    Examples:
      plstore runs --store pets/store
      plstore runs 1a2b --store pets/store
    """
    from plstore.report.runs import find_run, list_runs

    opened = open_to_read(store)
    if run is not None:
        print_rows([dict(row) for row in find_run(opened, run).rows], format_)
        return
    print_rows([found.row() for found in list_runs(opened)], format_)


def report(
    store: StoreOption,
    run: Annotated[
        str | None, typer.Argument(help="As plstore runs names it; the newest unless given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
) -> None:
    """Write the HTML report of a finished run.

    Example:
      plstore report 1a2b --out first.html --store pets/store
    """
    from plstore.report.runs import find_run, report_run

    opened = open_to_read(store)
    report_run(opened, find_run(opened, run), out)
    print(out)
