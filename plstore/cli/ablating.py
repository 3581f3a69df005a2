"""The verb that compares ways of training over seeds: ablate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from plstore.cli.engines import (
    AddressOption,
    CpusOption,
    EngineOption,
    GpusOption,
    engine_of,
)
from plstore.cli.options import FormatOption, print_rows
from plstore.cli.training import DeviceOption, SetOption, programs_of_training
from plstore.errors import InputError

_FAILED = 1
_SHOWN = ("finding", "paper", "ours", "low", "high", "seeds", "verdict", "source")


def ablate(
    grid: Annotated[
        str, typer.Argument(help="A TOML file, or a grid that ships: paper.")
    ] = "paper",
    home: Annotated[
        Path | None,
        typer.Option(help="Folder of stores and results; plstore-GRID[-DATA] unless given."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Such as 0..4 or 0,3,7; the grid's unless given.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Name of the grid's images; its first unless given.")
    ] = None,
    labeled: Annotated[
        Path | None, typer.Option(help="Your images: a folder for each class.")
    ] = None,
    unlabeled: Annotated[
        Path | None,
        typer.Option(
            help="Your images without labels. In folders named as the classes they may also "
            "become pools that follow from true classes."
        ),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="As --labeled; split off by a seeded hash unless given.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="As --labeled; what cells are measured on.")
    ] = None,
    set_: SetOption = None,
    only: Annotated[
        str | None, typer.Option(help="Ids of findings, by commas: their cells alone are run.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Hours for all of it, such as 2.5, or 90m: what takes longer is cut, seeds "
            "before cells."
        ),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            help="A cells.jsonl of another place: what it has is not run again. Repeatable."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that take a seed each, and share the cores: 1, or on Ray as many "
            "as fit.",
        ),
    ] = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of findings.json, .md and .png; the home unless given."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print cells, steps and seconds; run nothing."),
    ] = False,
    device: DeviceOption = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    format_: FormatOption = "table",
) -> None:
    """Run a grid of recipes with several seeds, and say which findings hold here.

    The grid "paper" has the findings of the Noisy Student paper, at a scale of minutes. A
    cell is a recipe and what is otherwise in it; a finding is the difference of two cells,
    paired by seed, beside the paper's. Cells that share steps share their work. A finished cell
    is a line of cells.jsonl in the home and never run again: stopped at any moment, the same
    command goes on. Exit code 1 if a cell failed.

    Examples:
      plstore ablate paper --dry-run
      plstore ablate paper --home demo/paper --budget 3
      plstore ablate paper --only iteration-1,larger-student --seeds 0..1
      plstore ablate paper --data cifar10 --labeled LABELED --unlabeled POOL --test TEST
      plstore ablate paper --home /shared/paper --engine ray --address auto --cpus-per-worker 4
      plstore ablate mine.toml --results elsewhere/cells.jsonl --out figures
    """
    programs_of_training()
    from plstore.report.progress import Display
    from trainers.ablation import Ablation, plan
    from trainers.ablation.running import Experiment
    from trainers.events import Shown

    folders = {"labeled": labeled, "unlabeled": unlabeled, "validation": validation}
    named = {name: str(path) for name, path in {**folders, "test": test}.items() if path}
    name = "-".join([Path(grid).stem, *([data] if data else [])])
    asked = Ablation(
        grid=grid,
        home=home or Path(f"plstore-{name}"),
        seeds=seeds or "",
        data=data or "",
        folders=named,
        overrides=set_ or [],
        only=[word.strip() for word in only.split(",")] if only else [],
        budget=None if budget is None else _seconds(budget),
        results=results or [],
        workers=1 if workers is None else workers,
        device=device,
        out=out,
    )
    shown = Shown(Display(quiet=quiet))
    most = None if workers is None or engine != "ray" else f"1..{workers}"
    where = engine_of(engine, address, most, cpus_per_worker, gpus_per_worker)
    if dry_run:
        print_rows(plan(asked, engine=where, on_event=shown), format_)
        return
    experiment = Experiment(asked, shown, where, is_quiet=quiet)
    rows = experiment.run()
    print_rows(rows if format_ == "json" else _few(rows), format_)
    if experiment.failed:
        raise typer.Exit(_FAILED)


def _few(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in _SHOWN} | {"seeds": len(row["seeds"])} for row in rows]


def _seconds(budget: str) -> float | None:
    """Return the seconds of so many hours, or of such as "90m".

    Raises:
        InputError: If it is neither, or none.
    """
    from trainers.planning import parse_budget

    try:
        hours = float(budget)
    except ValueError:
        return parse_budget(budget)
    if not 0 < hours < float("inf"):
        raise InputError(f"--budget is {budget!r}; wanted hours such as 2.5, or 90m")
    return hours * 3600
