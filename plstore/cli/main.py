"""The ``plstore`` command.

Exit codes: 0 done, 1 found wrong, 2 bad input, 3 interrupted (run it again to go on).
"""

import signal
import sys
from typing import Annotated

import typer

from plstore.cli import ask, choose, keep, label, make, train
from plstore.cli.child import this_process_is_the_command
from plstore.cli.options import with_examples
from plstore.errors import PlstoreError

BAD_INPUT = 2
INTERRUPTED = 3

app = typer.Typer(
    name="plstore",
    help="A pseudo-label store and toolkit for Noisy Student training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("init")(with_examples(make.init))
app.add_typer(make.importing, name="import")
for verb in (
    *(train.run, train.predict),
    *(label.label, label.calibrate, label.fuse, choose.select),
    *(ask.sql, ask.audit, ask.diff, ask.log, ask.info, ask.files),
    *(keep.tag, keep.pins, keep.verify, keep.gc, keep.compact),
    *(keep.exclude, keep.correct, keep.delete, keep.duplicates, keep.export),
):
    app.command(verb.__name__)(with_examples(verb))
app.add_typer(ask.queries, name="query")


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
) -> None:
    """A pseudo-label store and toolkit for Noisy Student training."""
    if version:
        import plstore

        print(plstore.__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def main() -> None:
    """Run the command; turn errors into a message on stderr and an exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    this_process_is_the_command()
    try:
        app()
    except PlstoreError as error:
        print(f"plstore: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except (TimeoutError, ConnectionError) as error:  # of a store or images in a network
        why = str(error) or type(error).__name__
        print(
            f"plstore: no answer in time ({why}); what was committed stays, and the same "
            "command goes on from there",
            file=sys.stderr,
        )
        sys.exit(INTERRUPTED)
    except OSError as error:  # of a disk: a file that went away, no room, no permission
        print(
            f"plstore: {error}; run the same command again once that is mended", file=sys.stderr
        )
        sys.exit(BAD_INPUT)


def _interrupted(*_: object) -> None:
    print("plstore: interrupted; the same command goes on from here", file=sys.stderr)
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
