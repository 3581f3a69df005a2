"""The verb that opens the local app: ui."""

import getpass
import signal
import sys
from typing import Annotated

import typer

from plstore.cli.options import say
from plstore.errors import MissingExtraError


def ui(
    store: Annotated[
        str, typer.Argument(envvar="PLSTORE_STORE", help="Folder or s3:// URL of the store.")
    ],
    port: Annotated[int, typer.Option(help="To listen on; 0 for a free one.")] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Open no browser; the URL is printed anyway.")
    ] = False,
    review: Annotated[
        bool,
        typer.Option("--review", help="Let decisions and views be written; else only look."),
    ] = False,
    who: Annotated[
        str | None, typer.Option(help="Who decides in a review; the user's name by default.")
    ] = None,
) -> None:
    """Look at a store in the browser: iterations, teachers, thresholds, views, images, SQL.

    It listens on this machine alone, and only the URL that it prints lets in. Nothing is
    fetched from elsewhere.

    Examples:
      plstore ui demo/store
      plstore ui --review --port 8080 --no-open
    """
    from plstore.machine import import_without_pandas

    import_without_pandas()
    try:
        from plstore.ui.server import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("plstore"):
            raise
        raise MissingExtraError(error.name, "ui", "plstore ui") from error

    def started(url: str) -> None:
        say(f"plstore ui: {url}")

    for number in (signal.SIGINT, signal.SIGTERM):  # to end it is nothing to go on from
        signal.signal(number, lambda *_: sys.exit(0))
    serve(
        store,
        port=port,
        is_review=review,
        who=who or getpass.getuser(),
        on_start=started,
        open_browser=not no_open,
    )
