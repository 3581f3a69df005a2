"""What the shell's verb `run` does: a recipe, several seeds of it, a dry run."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from plstore.errors import InputError
from plstore.exchange import Source
from plstore.report.page import write_report
from plstore.report.progress import Display
from plstore.storage import held, write_atomically
from plstore.store import Store
from plstore.store import open as open_store
from trainers.context import Context
from trainers.counted import CountedEstimator, counted_row
from trainers.estimate import Estimate, Estimator
from trainers.events import Shown, Teller, unheard
from trainers.importing import check_store_is_its_own
from trainers.ledger import Ledger
from trainers.logs import logged
from trainers.loop import Run, open_run, run
from trainers.models.costs import CARDS, PAPER_UTILISATION
from trainers.pacing import Paced
from trainers.recipe import Recipe
from trainers.resolved import iteration_lines
from trainers.result import result_rows, write_result
from trainers.sections import Data
from trainers.sources import counted_source
from trainers.training.processes import ALONE, Processes, leave

Row = dict[str, Any]

_DEFAULT_CARD = "H100 SXM"
_STORE = "store"  # the name that needs no mark


def run_recipe(
    recipe: Recipe,
    store: Path,
    *,
    device: str,
    display: Display,
    source: Source | None = None,
    budget: float | None = None,
    processes: Processes = ALONE,
    tensorboard: bool = False,
) -> list[Row]:
    """Run a recipe; leave result and report beside the store; return its table.

    Args:
        recipe: What to do.
        store: Where.
        device: "auto", "cpu" or a CUDA device.
        display: Where it is said what is done, and how long it still takes.
        source: The images that the recipe names, where they are listed already.
        budget: Seconds for all of it: where it takes longer, that is said.
        processes: That work together, of which this is the first.
        tensorboard: Write metrics for TensorBoard too; JSON lines are always written.
    """
    opened = open_run(recipe, Store(store), device=device, source=source)
    to_do = _seconds_to_do(opened)
    shown = Paced(listener=Shown(display), seconds=to_do, budget=budget)
    processes.share((recipe, store))
    board = beside(store, "tensorboard") if tensorboard else None
    with logged(shown, beside(store, "metrics.jsonl"), board) as listener:
        result = run(
            recipe, store, device=device, on_event=listener, source=source, processes=processes
        )
    rows = result_rows(result)
    write_result(beside(store, "result.json"), result)
    write_report(beside(store, "report.html"), open_store(store), result, rows)
    for line in result["advice"]:
        display.say(line)
    display.say(f"result: {beside(store, 'result.json')}")
    display.say(f"report: {beside(store, 'report.html')}")
    return rows


def take_part(device: str, processes: Processes) -> None:
    """Do, in a process that is not the first, its part of every run that the first begins."""
    while (work := _shared_run(processes)) is not None:
        recipe, store = work
        run(recipe, store, device=device, processes=processes)
    leave()


def _shared_run(processes: Processes) -> tuple[Recipe, Path] | None:
    return processes.share(None)


def beside(store: Path, name: str) -> Path:
    """Return the place of what a run leaves beside its store.

    Stores of one folder do not share it: `result.json` is that of a store named `store`, and
    `pets.result.json` that of one named `pets`.
    """
    return store.parent / (name if store.name == _STORE else f"{store.name}.{name}")


def run_all(  # noqa: PLR0913  one keyword per choice of the user
    recipe: Recipe,
    store: Path,
    *,
    seeds: Sequence[int] | None,
    device: str,
    display: Display,
    source: Source | None,
    budget: float | None,
    processes: Processes,
    tensorboard: bool,
) -> list[Row]:
    """Run a recipe, once or with several seeds; return its table."""
    if seeds is not None:
        shown: dict[str, Any] = {"display": display, "tensorboard": tensorboard}
        how: dict[str, Any] = {"device": device, "budget": budget, "processes": processes}
        return run_seeds(recipe, store, seeds, **how, **shown)
    return run_recipe(
        recipe,
        store,
        device=device,
        display=display,
        source=source,
        budget=budget,
        processes=processes,
        tensorboard=tensorboard,
    )


def end_together(processes: Processes) -> None:
    """Tell the other processes that no run is left."""
    processes.share(None)
    leave()


def run_seeds(
    recipe: Recipe,
    store: Path,
    seeds: Sequence[int],
    *,
    device: str,
    display: Display,
    budget: float | None = None,
    processes: Processes = ALONE,
    tensorboard: bool = False,
) -> list[Row]:
    """Run a recipe with several seeds, one folder each beside the store.

    A line a seed goes to `seeds.jsonl` as it is finished (see `beside`); those of other seeds
    and recipes that are there stay. Returns the table of all that are asked for, with mean and
    standard deviation of the gains in points of accuracy; what a seed did not come to, such as
    a student after the last, is None.

    Raises:
        InputError: If the images, or the teacher, are those of a store.
    """
    if recipe.data.source == "store" or recipe.teacher is not None:
        what = "teacher" if recipe.teacher is not None else "images"
        raise InputError(
            f"--seeds gives each seed a store of its own, and the {what} of this run is one "
            f"store's; leave --seeds out (--set seed=1 is another seed), or name your folders "
            "with --labeled and --unlabeled"
        )
    home = store.parent
    lines: list[Row] = []
    for seed in seeds:
        place = home / f"seed-{seed}" / store.name
        seeded = recipe.model_copy(update={"seed": seed})
        display.say(f"seed {seed}: {place.parent}")
        run_recipe(
            seeded,
            place,
            device=device,
            display=display,
            budget=budget,
            processes=processes,
            tensorboard=tensorboard,
        )
        result = json.loads(beside(place, "result.json").read_text())
        lines.append(_seed_line(result))
        _keep_line(beside(store, "seeds.jsonl"), lines[-1], seeded)
    return seed_rows(lines)


def _keep_line(path: Path, line: Row, recipe: Recipe) -> None:
    """Put a line into a file, in place of that of the same recipe and seed, if there is one."""
    with held(path.parent / f".{path.name}.lock"):
        there = path.read_text().splitlines() if path.is_file() else []
        kept = [old for old in there if json.loads(old).get("recipe_hash") != recipe.hash]
        text = "\n".join([*kept, json.dumps({**line, "recipe_hash": recipe.hash})])
        write_atomically(path, f"{text}\n".encode())


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that "0..4" or "0,3,7" names.

    Raises:
        InputError: If it is neither.
    """
    try:
        if ".." in text:
            first, last = (int(part) for part in text.split(".."))
            seeds = list(range(first, last + 1))
        else:
            seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise InputError(f"--seeds is {text!r}; wanted such as 0..4 or 0,3,7")
    return seeds


def dry_run(
    recipe: Recipe,
    store: Path,
    *,
    device: str,
    display: Display,
    source: Source | None = None,
    card: str | None = None,
    cards: int = 1,
) -> list[Row]:
    """Return the steps of a run with images, time and disk; do none of them.

    Args:
        recipe: What to do.
        store: Where.
        device: "auto", "cpu" or a CUDA device.
        display: Where it is said what the figures are of.
        source: The images that the recipe names, where they are listed already.
        card: Count operations and memory on cards of that name, instead of timing steps here.
        cards: How many share a step.

    Raises:
        InputError: If the images are not there and the recipe does not say how many they are,
            or the store has others too.
    """
    display.say(f"store: {store}")
    for line in iteration_lines(recipe):
        display.say(line)
    counted = counted_source(recipe.data)
    if source is None and counted is not None and not _is_there(recipe.data):
        display.say("images: not here; those that the recipe counts (data.counts)")
        return _counted(recipe, counted, store, card or _DEFAULT_CARD, cards, display)
    if card is not None:
        opened = open_run(recipe, Store(store), device=device, source=source)
        return _counted(recipe, opened.context.source, store, card, cards, display)
    opened = open_run(recipe, Store(store), device=device, source=source)
    if recipe.data.source != "store" and Store(store).table("images").root.exists():
        check_store_is_its_own(Store(store), opened.context.source)
    rows: list[Row] = [
        {
            "step": name,
            "state": "done" if is_done else "to do",
            "images": estimate.images,
            "seconds": 0 if is_done else round(estimate.seconds, 1),
            "megabytes": round(estimate.num_bytes / 1e6, 1),
        }
        for name, (estimate, is_done) in _costs(opened).items()
    ]
    total = {"step": "total", "state": None, "images": None}
    sums = {key: round(sum(row[key] for row in rows), 1) for key in ("seconds", "megabytes")}
    splits, device = opened.context.source.splits, opened.context.device
    display.say(f"images: {splits}; time from {device}, timed just now")
    return [*rows, total | sums]


def _is_there(data: Data) -> bool:
    places = (data.labeled, data.unlabeled) if data.source == "folders" else (data.path,)
    return any(place is not None and Path(place).exists() for place in places)


def _counted(
    recipe: Recipe, source: Source, store: Path, card: str, cards: int, display: Display
) -> list[Row]:
    """Return the steps of a run on cards that are not here."""
    estimator = CountedEstimator(recipe, source, card, cards)
    opened = Run(
        context=Context(
            recipe=recipe,
            source=source,
            store=Store(store),
            device="cpu",
            teller=Teller(unheard),
        )
    )
    rows = [counted_row(step, estimator) for step in opened.steps]
    total: Row = {"step": "total"}
    for key in rows[0]:
        values = [row[key] for row in rows if isinstance(row[key], float)]
        is_sum = key.startswith(("PFLOP", "hours", "store"))
        total.setdefault(key, float(f"{sum(values):.4g}") if is_sum else None)
    display.say(
        f"counted, not timed: {cards} x {card} of {CARDS[card].peak_flops / 1e12:g} TFLOP/s in "
        f"bfloat16, of which {PAPER_UTILISATION:.1%} is used, as the paper's own figures come "
        f"to; {CARDS[card].memory_bytes / 1e9:.0f} GB each"
    )
    return [*rows, total]


def _seconds_to_do(opened: Run) -> dict[str, float]:
    """Return what each step takes that is not done, by name."""
    context = opened.context
    ledger = Ledger(context.store)
    estimator = Estimator(context.recipe, context.source, context.device)
    left = [step for step in opened.steps if ledger.outputs(step) is None]
    return {step.name: step.cost(estimator).seconds for step in left}


def _costs(opened: Run) -> dict[str, tuple[Estimate, bool]]:
    """Return what each step takes, by name, and whether it is done."""
    context = opened.context
    ledger = Ledger(context.store)
    estimator = Estimator(context.recipe, context.source, context.device)
    return {
        step.name: (step.cost(estimator), ledger.outputs(step) is not None)
        for step in opened.steps
    }


def _seed_line(result: Row) -> Row:
    key = "test_accuracy"
    if result["teacher"][key] is None:
        key = "validation_accuracy"
    teacher, last = result["teacher"][key], result["students"][-1][key]
    control = None if result["control"] is None else result["control"][key]
    line: Row = {"seed": result["seed"], "teacher": teacher, "control": control}
    line |= {f"student {s['iteration']}": s[key] for s in result["students"]}
    line["gain over teacher"] = None if teacher is None else round(last - teacher, 2)
    line["gain over control"] = None if control is None else round(last - control, 2)
    line["run seconds"] = result["run_seconds"]
    return line


def seed_rows(lines: Sequence[Row]) -> list[Row]:
    """Return a row a seed, all with the same keys, then mean and standard deviation."""
    most = max(lines, key=len)  # one of the most students
    rows = [{key: line.get(key) for key in most} for line in lines]
    return [*rows, *_seed_summary(rows)]


def _seed_summary(lines: Sequence[Row]) -> list[Row]:
    rows: list[Row] = []
    for name, statistic in (("mean", mean), ("standard deviation", stdev)):
        if statistic is stdev and len(lines) < 2:  # noqa: PLR2004  one value has no deviation
            continue
        row: Row = {"seed": name}
        for key in lines[0]:
            values = [line[key] for line in lines]
            if key != "seed":
                known = None not in values
                row[key] = round(statistic(values), 2) if known else None
        rows.append(row)
    return rows
