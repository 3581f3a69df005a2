"""Verbs that ask a store: sql, query, audit."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from plstore.cli.child import in_child
from plstore.cli.options import (
    AsOfOption,
    FormatOption,
    StoreOption,
    open_to_read,
    print_rows,
    rendered,
    say,
    with_examples,
)
from plstore.errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa

    from plstore.query import SavedQuery

MemoryOption = Annotated[
    str | None,
    typer.Option("--memory", help="Most that SQL may take; half of what there is."),
]
SecondsOption = Annotated[float, typer.Option("--seconds", help="Longest that SQL may run.")]

FOUND_WRONG = 1

queries = typer.Typer(help="Saved questions about a store.", no_args_is_help=True)


@in_child
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT.")],
    store: StoreOption,
    as_of: AsOfOption = None,
    memory: MemoryOption = None,
    seconds: SecondsOption = 600.0,
    format_: FormatOption = "table",
) -> None:
    """Run one SELECT over the store; read-only, and blind to everything else.

    Functions over the label of soft_labels and view_rows:
      prob(label, class_id)   dense(label)   entropy(label)   kl(a, b)   js(a, b)
      class_name(class_id)    confidence_bucket(confidence)   lottery(sample_id, seed)
      wilson_low(share, num)  wilson_high(share, num)

    Functions over lists of embeddings, by cosine, places counted from 1:
      neighbors(vectors, others, k)           the k most similar others of each vector
      similar_pairs(vectors, others, least)   all pairs with that cosine or more

    Tables with parameters, after from:
      candidates(teacher_id, iteration)   labels of unlabeled images, with their standing
      labeled_images()                    sample_id and class_id of what students train on
      embeddings_of(model)                those of a model; '' for the only one
      perturbed(split, kind)              labels of images that were made worse
      evaluated(split, dataset)           labels of images of known class; '' for any dataset

    Example:
      plstore sql --store demo/store "select class_id, count(*) from soft_labels group by 1"
      plstore sql --as-of iteration-2 "select count(*) from soft_labels"
    """
    opened = open_to_read(store)
    from plstore.query import Limits, run_sql, what_is_missing

    limits = Limits(memory=memory, seconds=seconds)
    rows = run_sql(opened, query, as_of=as_of, limits=limits)
    if not rows.num_rows:
        for line in what_is_missing(opened, query, as_of=as_of):
            say(line)
    _print(rows, format_)


@queries.command("list")
def query_list(format_: FormatOption = "table") -> None:
    """List the saved queries and their parameters, with what these are when left out.

    newest: of the labels of the last iteration, by the teacher that labeled last in it;
    previous: of those before.
    """
    from plstore.query import list_queries

    rows = [
        {
            "query": query.name,
            "answers": query.summary,
            "parameters": ", ".join(p.short for p in query.parameters) or None,
        }
        for query in list_queries()
    ]
    print_rows(rows, format_, whole=True)


@queries.command("show")
def query_show(name: Annotated[str, typer.Argument(help="Such as coverage/verdicts.")]) -> None:
    """Print a saved query: the file itself."""
    from plstore.query import saved_query

    print(saved_query(name).sql.rstrip())


class _QueryRun(TyperCommand):
    """Explains the query that is named, too: its parameters are options."""

    _named: "SavedQuery | None" = None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  typer's click
        """Note which query is to be explained."""
        if "--help" in args:
            from plstore.query import find_query

            found = map(find_query, args)
            self._named = next((query for query in found if query is not None), None)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write what the query answers and takes below the verb's own help."""
        super().format_help(ctx, formatter)
        if self._named is None:
            return
        with formatter.section(self._named.name):
            formatter.write_text(self._named.summary)
            formatter.write_paragraph()
            formatter.write_dl(
                [(p.option, p.explained) for p in self._named.parameters]
                or [("no parameters", "")]
            )


@queries.command(
    "run",
    cls=_QueryRun,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
@with_examples
@in_child
def query_run(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Such as coverage/verdicts.")],
    store: StoreOption,
    as_of: AsOfOption = None,
    memory: MemoryOption = None,
    seconds: SecondsOption = 600.0,
    format_: FormatOption = "table",
) -> None:
    """Run a saved query; its own parameters are options: plstore query run NAME --help.

    A teacher and an iteration that are not given are those of the newest labels; stderr says
    which, and what the store has none of yet.

    Examples:
      plstore query run coverage/labels_by_file --store demo/store --format csv > labels.csv
      plstore query run coverage/labels_per_class --min-confidence 0.5
      plstore query run selection/low_margin_images --teacher-id t1-1a2b3c4d --iteration 2
    """
    opened = open_to_read(store)
    from plstore.query import Limits, run_query, saved_query

    parameters = _parameters(saved_query(name), ctx.args)
    limits = Limits(memory=memory, seconds=seconds)
    rows = run_query(opened, name, as_of=as_of, limits=limits, on_note=say, **parameters)
    _print(rows, format_)


@in_child
def audit(
    store: StoreOption, as_of: AsOfOption = None, format_: FormatOption = "table"
) -> None:
    """Run every saved audit; exit with 1 if one finds a fault.

    A fault is wrong and can be put right. A note is what someone decided and the store keeps a
    record of (images that were deleted, copies of test images that were asked for), or what
    only an older version of a view has. plstore query run audit/NAME lists the rows of both.

    Example:
      plstore audit --store demo/store
    """
    from plstore.query import audit as run_audits

    found = run_audits(open_to_read(store), as_of=as_of)
    rows = [
        {"audit": a.name, "faults": a.faults, "notes": a.notes, "what": a.summary}
        for a in found
    ]
    print_rows(rows, format_)
    faults, notes = sum(a.faults for a in found), sum(a.notes for a in found)
    listed = "; plstore query run audit/NAME lists them" if faults or notes else ""
    say(f"{_count(faults, 'fault')}, {_count(notes, 'note')}{listed}")
    if faults:
        raise typer.Exit(FOUND_WRONG)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _parameters(query: "SavedQuery", words: list[str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    pending = list(words)
    while pending:
        option, equals, value = pending.pop(0).partition("=")
        if not option.startswith("--") or not (equals or pending):
            raise QueryError(f"found {option!r}; wanted --parameter value")
        name = option.removeprefix("--").replace("-", "_")
        value = value if equals else pending.pop(0)
        parameters[name] = query.read_value(name, value)
    return parameters


def _print(table: "pa.Table", format_: str) -> None:
    """Print the rows of a query, still within its limits."""
    from plstore.containment import held
    from plstore.report.values import rows_of

    repeated = sorted({n for n in table.column_names if table.column_names.count(n) > 1})
    if repeated:
        raise QueryError(
            f"columns of the same name: {', '.join(repeated)}; name them apart with 'as'"
        )
    try:
        with held(0, None, goes_on=True):
            text = rendered(rows_of(table), format_, columns=table.column_names)
    except MemoryError as error:
        raise QueryError(
            f"the {table.num_rows} rows as {format_} need more than the limit of memory; ask "
            "for less, or raise the memory limit"
        ) from error
    print(text)
