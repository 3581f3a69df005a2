"""Verbs that show what a store holds: log, info, diff, files."""

import json
from typing import Annotated, Any

import typer

from plstore.cli.options import (
    AsOfOption,
    FormatOption,
    StoreOption,
    open_to_read,
    print_rows,
)


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

    Labels are of all splits that both have; drift/flips_by_class is of unlabeled images alone.

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
