"""The verb that decides what a student trains on: select."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plstore.cli.asking import MemoryOption, SecondsOption
from plstore.cli.child import in_child
from plstore.cli.engines import (
    AddressOption,
    CpusOption,
    WorkersOption,
    engine_of,
)
from plstore.cli.options import AsOfOption, FormatOption, StoreOption, print_rows
from plstore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plstore.store import Store


@in_child
def select(
    store: StoreOption,
    view: Annotated[str, typer.Argument(help="Name of the view: [a-z0-9_-]+.")],
    teacher: Annotated[
        list[str], typer.Option(help="Whose labels: [ALIAS=]TEACHER[@ITERATION]; repeatable.")
    ],
    agree: Annotated[
        int | None, typer.Option(help="At least this many teachers must name the class.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="SQL over the teachers: a.class_id = b.class_id.")
    ] = None,
    class_id: Annotated[str | None, typer.Option(help="SQL for the class.")] = None,
    confidence: Annotated[str | None, typer.Option(help="SQL for the confidence.")] = None,
    policy: Annotated[
        str, typer.Option(help="exact, reference, cap or none, as above.")
    ] = "exact",
    min_confidence: Annotated[float, typer.Option(help="Labels above it are kept.")] = 0.3,
    images_per_class: Annotated[
        int | None, typer.Option(help="Draws of each class; an even share unless given.")
    ] = None,
    total: Annotated[int | None, typer.Option(help="Draws of all classes together.")] = None,
    power: Annotated[
        float, typer.Option(help="Of the total: 0 for even shares, 1 for classes as they come.")
    ] = 0.0,
    quotas: Annotated[
        Path | None, typer.Option(help="CSV of class,quota: draws of each class.")
    ] = None,
    relabel: Annotated[
        str | None, typer.Option(help="VIEW[@N] whose images and copies stay; new labels.")
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="A saved query or .sql file that decides instead.")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option(help="Of that query: NAME=VALUE; repeatable.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="reference or packed, as above: where the image bytes are."),
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(help="Pack images of a longer side shrunk to so many pixels."),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(help="Of the JPEGs that they become, 1 to 100; 90 by default."),
    ] = None,
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="Take images whose bytes are in validation or test."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Draws extra copies, and the order.")] = 0,
    engine: Annotated[
        str,
        typer.Option(help="duckdb or spark, for the SQL; ray: DuckDB, and workers that pack."),
    ] = "duckdb",
    address: AddressOption = None,
    workers: WorkersOption = None,
    cpus_per_worker: CpusOption = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show counts by class; write nothing.")
    ] = False,
    as_of: AsOfOption = None,
    memory: MemoryOption = None,
    seconds: SecondsOption = 600.0,
    format_: FormatOption = "table",
) -> None:
    r"""Filter and balance labels; keep the result as a new version of a view.

    --policy says how a class meets its quota K:
      exact      at most the K most confident; fewer are copied until they are exactly K
      reference  the official code: whole bins of 0.01, K / T copies rounded at random
      cap        at most the K most confident, once each
      none       all above --min-confidence, once each

    --mode says where the view's images are:
      reference  in the images table; the view names their places (default in a folder)
      packed     copied into the view's own files (default in a bucket)

    --max-side makes a packed view of smaller images: what is larger becomes a JPEG of that
    size, all else is copied as it is. Photos of a phone then train many times as fast.

    --engine ray lets workers of a cluster fetch, shrink and pack the images: the same files.

    --memory and --seconds are of your own SQL alone: --query, or the expressions over each
    range of images.

    Examples:
      plstore select surer --teacher t1-1a2b3c4d --min-confidence 0.8 --dry-run
      plstore select both --teacher a=clip --teacher b=dino --agree 2
      plstore select safe --teacher a=clip --teacher b=dino --where "a.class_id = b.class_id" \
          --confidence "least(a.confidence, b.confidence)" --total 50000 --power 0.5
      plstore select soft --teacher clip --query selection/soft_weight --parameter align=1
      plstore select small --teacher t1-1a2b3c4d --max-side 512 --quality 90
      plstore select small --teacher clip --max-side 512 --engine ray --address auto
    """
    from plstore.query import Limits
    from plstore.report.progress import Display
    from plstore.selection import Balance, Rule, Selection, preview
    from plstore.selection import select as run_selection
    from plstore.store import open as open_store

    packer = "ray" if engine == "ray" else "local"
    on = engine_of(packer, address, workers, cpus_per_worker, None)
    selection = Selection(
        view=view,
        teachers=teacher,
        rule=Rule(agree=agree, where=where, class_id=class_id, confidence=confidence),
        balance=Balance(
            policy=policy,  # type: ignore[arg-type]  # checked there
            min_confidence=min_confidence,
            images_per_class=images_per_class,
            total=total,
            power=power,
            quotas=None if quotas is None else _read_quotas(quotas),
            seed=seed,
        ),
        relabel=relabel,
        query=query,
        parameters=_parameters(query, parameter or []),
        mode=mode,  # type: ignore[arg-type]  # checked there
        max_side=max_side,
        quality=quality,
        held_out=held_out,
        engine="duckdb" if engine == "ray" else engine,  # type: ignore[arg-type]  # checked there
        limits=Limits(memory=memory, seconds=seconds),
    )
    opened = open_store(store)
    if dry_run:
        print_rows(_classes(opened, preview(opened, selection, as_of=as_of)), format_)
        return
    with Display().task("select images", None) as advance:
        view_made = run_selection(opened, selection, as_of=as_of, on_images=advance, engine=on)
    record = view_made.record
    rows: list[dict[str, Any]] = [
        {"what": "view", "n": f"{record.view}@{record.version}"},
        {"what": "images", "n": record.num_images},
        {"what": "draws", "n": record.num_draws},
        *({"what": k, "n": n} for k, n in record.counts.items() if k == "mean_weight"),
        *({"what": f"dropped: {why}", "n": n} for why, n in record.counts["dropped"].items()),
        *(
            {"what": f"labeled, dropped: {why}", "n": n}
            for why, n in record.counts.get("labeled_dropped", {}).items()
        ),
    ]
    if "shrunk" in record.counts:
        rows.append({"what": f"shrunk to {max_side} pixels", "n": record.counts["shrunk"]})
    empty = record.counts["classes_without_candidate"]
    if empty:
        rows.append(
            {"what": f"classes without a pseudo-label: {', '.join(empty)}", "n": len(empty)}
        )
    print_rows(rows, format_)


def _classes(store: "Store", counts: "Mapping[str, Any]") -> list[dict[str, Any]]:
    """Return what a dry run shows: a row a class, then the sum and each reason of a drop."""
    kinds = [key.removesuffix("_by_class") for key in counts if key.endswith("_by_class")]
    rows: list[dict[str, Any]] = [
        {"class": name, **{kind: counts[f"{kind}_by_class"][n] for kind in kinds}}
        for n, name in enumerate(store.class_names)
    ]
    sums = {kind: sum(counts[f"{kind}_by_class"]) for kind in kinds}
    rows.append({"class": "(all)", **sums})
    blank = dict.fromkeys(kinds)
    rows += [
        {"class": f"(dropped: {why})", **blank, "predicted": n}
        for why, n in counts["dropped"].items()
    ]
    return rows


def _parameters(query: str | None, words: list[str]) -> dict[str, Any]:
    from plstore.query import saved_query

    if query is None:
        if words:
            raise InputError("--parameter without --query: it is of a query of your own")
        return {}
    known = saved_query(query)
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"--parameter is {word!r}; wanted NAME=VALUE")
        found[name] = known.read_value(name, value)
    return found


def _read_quotas(path: Path) -> dict[str, int]:
    from plstore.exchange.classes import class_column
    from plstore.exchange.tables import read_table, whole_numbers

    table = read_table(path)
    if missing := sorted({"class", "quota"} - set(table.column_names)):
        raise InputError(
            f"{path} has the columns {', '.join(table.column_names)}; wanted class and quota, "
            f"and lacks {' and '.join(missing)}"
        )
    names = class_column(table["class"].to_pylist())
    numbers = whole_numbers(table["quota"], f"{path}, column quota,").to_pylist()
    quotas: dict[str, int] = {}
    for row, (name, number) in enumerate(zip(names, numbers, strict=True), start=1):
        if name is None or number < 0:
            raise InputError(
                f"{path}, row {row}: class {name}, quota {number}; wanted the name of a class "
                "and a number from 0 up"
            )
        if name in quotas:
            raise InputError(f"{path}, row {row}: class {name!r} is there twice")
        quotas[name] = number
    return quotas
