"""Verbs that read a store: sql, query, log, info."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plstore.cli.options import (
    FormatOption,
    StoreOption,
    open_to_read,
    print_rows,
    with_examples,
)
from plstore.errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa

    from plstore.query import SavedQuery

queries = typer.Typer(help="Saved questions about a store.", no_args_is_help=True)

_CASTS: dict[str, Any] = {"float": float, "integer": int, "bigint": int, "varchar": str}


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT.")],
    store: StoreOption,
    format_: FormatOption = "table",
) -> None:
    """Run one SELECT over the store; read-only, and blind to everything else.

    Example:
      plstore sql --store demo/store "select class_id, count(*) from soft_labels group by 1"
    """
    opened = open_to_read(store)
    from plstore.query import run_sql

    _print(run_sql(opened, query), format_)


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
def query_run(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Such as coverage/verdicts.")],
    store: StoreOption,
    format_: FormatOption = "table",
) -> None:
    """Run a saved query; its own parameters are options, see plstore query show.

    Example:
      plstore query run coverage/labels_per_class --min-confidence 0.5 --store demo/store
    """
    opened = open_to_read(store)
    from plstore.query import run_query, saved_query

    parameters = _parameters(saved_query(name), ctx.args)
    _print(run_query(opened, name, **parameters), format_)


def log(store: StoreOption, format_: FormatOption = "table") -> None:
    """Show every commit of the store, newest first, with its lineage."""
    rows = [
        {
            "time": commit.time.strftime("%Y-%m-%d %H:%M:%S"),
            "table": commit.table,
            "version": commit.version,
            "operation": commit.operation,
            "lineage": json.dumps(dict(commit.lineage), sort_keys=True),
        }
        for commit in open_to_read(store).history()
    ]
    print_rows(rows, format_)


def info(store: StoreOption, format_: FormatOption = "table") -> None:
    """Show what the store holds and takes: rows, files and bytes by table."""
    opened = open_to_read(store)
    sizes = opened.size_bytes()
    rows = []
    for name, version in opened.versions().items():
        table = opened.table(name)
        rows.append(
            {
                "table": name,
                "version": version,
                "rows": table.dataset(version).count_rows(),
                "files": len(table.files(version)),
                "bytes": sizes[name],
            }
        )
    rows += [
        {
            "table": f"({name})",
            "version": None,
            "rows": None,
            "files": None,
            "bytes": sizes[name],
        }
        for name in ("checkpoints", "work")
    ]
    print_rows(rows, format_)


def _parameters(query: "SavedQuery", words: list[str]) -> dict[str, Any]:
    kinds = {parameter.name: parameter.type for parameter in query.parameters}
    parameters: dict[str, Any] = {}
    pending = list(words)
    while pending:
        option, equals, value = pending.pop(0).partition("=")
        if not option.startswith("--") or not (equals or pending):
            raise QueryError(f"found {option!r}; wanted --parameter value")
        name = option.removeprefix("--").replace("-", "_")
        value = value if equals else pending.pop(0)
        try:
            parameters[name] = _CASTS[kinds.get(name, "varchar")](value)
        except ValueError as error:
            raise QueryError(f"{option} is {value!r}; wanted {kinds[name]}") from error
    return parameters


def _print(table: "pa.Table", format_: str) -> None:
    print_rows(table.to_pylist(), format_, columns=table.column_names)
