"""Verbs that read a store: sql, query, log, info, diff, files."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plstore.cli.child import in_child
from plstore.cli.options import (
    AsOfOption,
    FormatOption,
    StoreOption,
    open_to_read,
    print_rows,
    rendered,
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

    Tables with parameters, after from:
      candidates(teacher_id, iteration)   labels of unlabeled images, with their standing
      labeled_images()                    sample_id and class_id of what students train on
      embeddings_of(model)                those of a model; '' for the only one

    Example:
      plstore sql --store demo/store "select class_id, count(*) from soft_labels group by 1"
      plstore sql --as-of iteration-2 "select count(*) from soft_labels"
    """
    opened = open_to_read(store)
    from plstore.query import Limits, run_sql

    limits = Limits(memory=memory, seconds=seconds)
    _print(run_sql(opened, query, as_of=as_of, limits=limits), format_)


@queries.command("list")
def query_list(format_: FormatOption = "table") -> None:
    """List the saved queries."""
    from plstore.query import list_queries

    rows = [{"query": query.name, "answers": query.summary} for query in list_queries()]
    print_rows(rows, format_)


@queries.command("show")
def query_show(name: Annotated[str, typer.Argument(help="Such as coverage/verdicts.")]) -> None:
    """Print a saved query: the file itself."""
    from plstore.query import saved_query

    print(saved_query(name).sql.rstrip())


@queries.command(
    "run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
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
    """Run a saved query; its own parameters are options, see plstore query show.

    Example:
      plstore query run coverage/labels_per_class --min-confidence 0.5 --store demo/store
    """
    opened = open_to_read(store)
    from plstore.query import Limits, run_query, saved_query

    parameters = _parameters(saved_query(name), ctx.args)
    limits = Limits(memory=memory, seconds=seconds)
    _print(run_query(opened, name, as_of=as_of, limits=limits, **parameters), format_)


@in_child
def audit(
    store: StoreOption, as_of: AsOfOption = None, format_: FormatOption = "table"
) -> None:
    """Run every saved audit; exit with 1 if one finds something wrong.

    Example:
      plstore audit --store demo/store
    """
    from plstore.query import list_queries, run_query

    opened = open_to_read(store)
    audits = [query for query in list_queries() if query.name.startswith("audit/")]
    found = {
        query.name: run_query(opened, query.name, as_of=as_of).num_rows for query in audits
    }
    rows = [
        {"audit": query.name, "found": found[query.name], "what": query.summary}
        for query in audits
    ]
    print_rows(rows, format_)
    if any(found.values()):
        raise typer.Exit(FOUND_WRONG)


def log(store: StoreOption, format_: FormatOption = "table") -> None:
    """Show every commit of the store, newest first, with its lineage and the tags on it.

    The number of a commit is what --as-of takes.
    """
    from plstore.store import numbered, tags

    opened = open_to_read(store)
    tagged: dict[int, list[str]] = {}
    for tag in tags(opened):
        tagged.setdefault(sum(tag.versions.values()), []).append(tag.name)
    rows = [
        {
            "number": number,
            "time": commit.time.strftime("%Y-%m-%d %H:%M:%S"),
            "table": commit.table,
            "version": commit.version,
            "tags": ", ".join(tagged.get(number, [])) or None,
            "lineage": json.dumps(dict(commit.lineage), sort_keys=True),
        }
        for number, commit in reversed(numbered(opened))
    ]
    columns = ["number", "time", "table", "version", "tags", "lineage"]
    print_rows(rows, format_, columns=columns)


def info(store: StoreOption, as_of: AsOfOption = None, format_: FormatOption = "table") -> None:
    """Show what the store holds and takes: rows, files and bytes by table.

    Bytes of a table are those of its snapshot's files; (older) is what older versions, tags and
    stopped writers keep beside them.
    """
    from plstore.store import resolve

    opened = open_to_read(store)
    sizes = opened.size_bytes()
    rows = []
    for name, version in resolve(opened, as_of).items():
        shards = opened.table(name).shards(version)
        num_bytes = sum(shard.size_bytes for shard in shards)
        num_rows = sum(shard.num_rows for shard in shards)
        rows.append(
            _info_row(name, num_bytes, version=version, rows=num_rows, files=len(shards))
        )
    kept = sum(sizes[name] for name in opened.versions()) - sum(row["bytes"] for row in rows)
    rows.append(_info_row("(older)", kept))
    rows += [_info_row(f"({name})", sizes[name]) for name in ("checkpoints", "work")]
    print_rows(rows, format_)


def _info_row(
    name: str,
    num_bytes: int,
    *,
    version: int | None = None,
    rows: int | None = None,
    files: int | None = None,
) -> dict[str, Any]:
    return {"table": name, "version": version, "rows": rows, "files": files, "bytes": num_bytes}


def diff(
    before: Annotated[
        str, typer.Argument(help="TEACHER[@ITERATION], an iteration, or VIEW@N.")
    ],
    after: Annotated[str, typer.Argument(help="As before; of the same kind.")],
    store: StoreOption,
    changes: Annotated[
        str, typer.Option(help="Which to show, by commas: flipped, entered, left, kept.")
    ] = "flipped,entered,left",
    as_of: AsOfOption = None,
    format_: FormatOption = "table",
) -> None:
    """Show which labels flipped between two teachers, or which images a view gained and lost.

    Examples:
      plstore diff 1 2 --store demo/store
      plstore diff fashion_mnist-1@1 fashion_mnist-2@1 --changes entered,left
    """
    from plstore.query import diff as compare

    opened = open_to_read(store)
    wanted = changes.split(",")
    if unknown := sorted(set(wanted) - {"flipped", "entered", "left", "kept"}):
        raise typer.BadParameter(
            f"--changes has {unknown}; wanted flipped, entered, left, kept"
        )
    names = dict(enumerate(opened.class_names))
    rows = [
        {
            **row,
            "class_before": names.get(row["class_before"]),
            "class_after": names.get(row["class_after"]),
        }
        for row in compare(opened, before, after, as_of=as_of).to_pylist()
        if row["change"] in wanted
    ]
    columns = ["change", "class_before", "class_after", "images"]
    print_rows(rows, format_, columns=[*columns, "confidence_before", "confidence_after"])


def files(
    table: Annotated[str, typer.Argument(help="Such as soft_labels.")],
    store: StoreOption,
    as_of: AsOfOption = None,
    format_: FormatOption = "table",
) -> None:
    """List the Parquet files of a table's snapshot, for any other engine.

    Example:
      plstore files soft_labels --store s3://bucket/store --as-of iteration-2 --format csv
    """
    from plstore.store import resolve

    opened = open_to_read(store)
    version = resolve(opened, as_of).get(table)
    found = opened.table(table)
    rows = [
        {"file": str(found.root / s.path), "rows": s.num_rows, "bytes": s.size_bytes}
        for s in found.shards(version)
    ]
    print_rows(rows, format_, columns=["file", "rows", "bytes"], whole=True)


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
