"""The ``plstore`` command.

Exit codes: 0 done, 1 found wrong, 2 bad input, 3 interrupted (run it again to go on).
"""

import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from plstore.buckets import meaning
from plstore.cli import (
    ablating,
    asking,
    deciding,
    evaluating,
    exporting,
    importing,
    labeling,
    looking,
    models,
    predicting,
    probing,
    reading,
    reporting,
    reviewing,
    selecting,
    test_sets,
    training,
    upkeep,
)
from plstore.cli.child import this_process_is_the_command
from plstore.cli.options import with_examples
from plstore.errors import BucketError, PlstoreError

BAD_INPUT = 2
INTERRUPTED = 3


class _Grouped(TyperGroup):
    """Lists verbs by what one does with them."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401  typer's own click
        """Return the verbs in the order of their groups."""
        known = super().list_commands(ctx)
        return sorted(known, key=[verb for verbs in _GROUPS.values() for verb in verbs].index)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write a section a group."""
        for title, verbs in _GROUPS.items():
            commands = {verb: self.get_command(ctx, verb) for verb in verbs}
            limit = formatter.width - 6 - max(map(len, verbs))
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (verb, command.get_short_help_str(limit))
                        for verb, command in commands.items()
                        if command is not None
                    ]
                )


_GROUPS: dict[str, tuple[str, ...]] = {
    "All of it": ("run", "ablate"),
    "Fill a store": ("init", "import"),
    "Step by step": (
        "train",
        "evaluate",
        "probe",
        "label",
        "calibrate",
        "fuse",
        "embed",
        "select",
        "predict",
    ),
    "Look": ("ui", "sql", "query", "audit", "diff", "log", "info", "files", "runs", "report"),
    "Decide": ("review", "exclude", "correct", "delete", "duplicates"),
    "Keep in order": ("tag", "pins", "verify", "gc", "compact"),
    "Take out": ("export",),
}

app = typer.Typer(
    name="plstore",
    help="A pseudo-label store and toolkit for Noisy Student training.",
    cls=_Grouped,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("init")(with_examples(importing.init))
importing.verbs.command("test-set")(with_examples(test_sets.import_test_set))
importing.verbs.command("answers")(with_examples(test_sets.import_answers))
importing.verbs.command("review")(with_examples(reviewing.import_review))
app.add_typer(importing.verbs, name="import")
for verb in (
    *(training.run, ablating.ablate, models.train, evaluating.evaluate, probing.probe),
    predicting.predict,
    *(labeling.label, labeling.calibrate, labeling.fuse, labeling.embed, selecting.select),
    *(asking.sql, asking.audit, reading.diff, reading.log, reading.info, reading.files),
    *(looking.ui, reporting.runs, reporting.report),
    *(upkeep.tag, upkeep.pins, upkeep.verify, upkeep.gc, upkeep.compact),
    *(deciding.exclude, deciding.correct, deciding.delete, deciding.duplicates),
    *(reviewing.review, exporting.export),
):
    app.command(verb.__name__)(with_examples(verb))
app.add_typer(asking.queries, name="query")


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
) -> None:
    """A pseudo-label store and toolkit for Noisy Student training."""
    if version:
        from plstore.version import __version__

        print(__version__)
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
    except BucketError as error:
        print(f"plstore: {error}", file=sys.stderr)
        sys.exit(INTERRUPTED)
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
    except OSError as error:  # of a disk or bucket: a file that went away, no permission
        in_a_bucket = meaning(error)
        again = f"{error}; run the same command again once that is mended"
        print(f"plstore: {in_a_bucket or again}", file=sys.stderr)
        sys.exit(BAD_INPUT if in_a_bucket is None else INTERRUPTED)


def _interrupted(*_: object) -> None:
    print("plstore: interrupted; the same command goes on from here", file=sys.stderr)
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
