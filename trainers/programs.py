"""What the shell's verbs do: run a recipe, several seeds of it, a dry run, predictions."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from plstore.errors import InputError
from plstore.exchange.folders import files_below
from plstore.fingerprint import content_hash
from plstore.loaders.imageset import ImageSet, image_table
from plstore.report.page import write_report
from plstore.report.progress import Display
from plstore.schema import ACCEPTED
from plstore.store import Store, create, judge, large_images_are_verdicts
from trainers.estimate import Estimator
from trainers.inference import probabilities
from trainers.loop import Run
from trainers.model import Bundle, fetch_bundle, load_bundle
from trainers.recipe import Recipe
from trainers.result import build_result, result_rows, write_result
from trainers.sources import open_source
from trainers.steps import Ledger
from trainers.train import pick_device

Row = dict[str, Any]

_PREDICT_FILES = 512


def run_recipe(recipe: Recipe, store: Path, *, device: str, display: Display) -> list[Row]:
    """Run a recipe; leave result and report beside the store; return its table."""
    run = _open(recipe, store, device, display)
    result = build_result(run, run.execute())
    rows = result_rows(result)
    write_result(store.parent / "result.json", result)
    write_report(store.parent / "report.html", run.store, result, rows)
    display.say(f"result: {store.parent / 'result.json'}")
    display.say(f"report: {store.parent / 'report.html'}")
    return rows


def run_seeds(
    recipe: Recipe, store: Path, seeds: Sequence[int], *, device: str, display: Display
) -> list[Row]:
    """Run a recipe with several seeds, one folder each beside the store.

    A line a seed goes to `seeds.jsonl` as it is finished. Returns the table of all, with mean
    and standard deviation of the gains in points of accuracy.
    """
    home = store.parent
    lines: list[Row] = []
    for seed in seeds:
        folder = home / f"seed-{seed}"
        seeded = recipe.model_copy(update={"seed": seed})
        display.say(f"seed {seed}: {folder}")
        run_recipe(seeded, folder / store.name, device=device, display=display)
        result = json.loads((folder / "result.json").read_text())
        lines.append(_seed_line(result))
        (home / "seeds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [*lines, *_seed_summary(lines)]


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


def dry_run(recipe: Recipe, store: Path, *, device: str, display: Display) -> list[Row]:
    """Return the steps of a run with images, time and disk; touch nothing."""
    device = pick_device(device)
    source = open_source(recipe.data, recipe.seed)
    planned = Run(
        recipe=recipe,
        source=source,
        store=Store(store),
        device=device,
        display=display,
    )
    ledger = Ledger(planned.store)
    estimator = Estimator(recipe, source, device)
    rows: list[Row] = []
    for step in planned.steps:
        done = ledger.outputs(step) is not None
        estimate = estimator.estimate(step)
        rows.append(
            {
                "step": step.name,
                "state": "done" if done else "to do",
                "images": estimate.images,
                "seconds": 0 if done else round(estimate.seconds, 1),
                "megabytes": round(estimate.num_bytes / 1e6, 1),
            }
        )
    total = {"step": "total", "state": None, "images": None}
    sums = {key: round(sum(row[key] for row in rows), 1) for key in ("seconds", "megabytes")}
    display.say(f"images: {source.splits}; time from {device}, timed just now")
    return [*rows, total | sums]


def predict(
    store: Store, folder: Path, *, teacher_id: str | None, device: str, display: Display
) -> list[Row]:
    """Return what a trained model sees in every file of a folder, by path.

    A file that is no acceptable image has the reason as its verdict, and no class.
    """
    device = pick_device(device)
    teacher = _teacher(store, teacher_id)
    checkpoint = fetch_bundle(store, teacher["checkpoint"], teacher["checkpoint_hash"])
    bundle = load_bundle(checkpoint, device=device)
    display.say(f"{teacher['teacher_id']}: {teacher['architecture']}, {teacher['role']}")
    paths = files_below(folder)
    rows: list[Row] = []
    with display.task("predict", len(paths)) as advance, large_images_are_verdicts():
        for block in _blocks(paths, _PREDICT_FILES):
            rows += _predict_block(bundle, folder, block, device)
            advance(len(block))
    return rows


def _predict_block(
    bundle: Bundle, folder: Path, paths: Sequence[Path], device: str
) -> list[Row]:
    with ThreadPoolExecutor() as pool:
        verdicts = list(pool.map(lambda path: judge(path.read_bytes()), paths))
    rows: list[Row] = [
        {
            "path": path.relative_to(folder).as_posix(),
            "class": None,
            "confidence": None,
            "verdict": verdict.verdict,
        }
        for path, verdict in zip(paths, verdicts, strict=True)
    ]
    good = [
        (v.data, v.width, v.height, content_hash(v.data))
        for v in verdicts
        if v.data is not None
    ]
    if not good:
        return rows
    accepted = iter([row for row in rows if row["verdict"] == ACCEPTED])
    images = ImageSet(image_table(good), len(bundle.class_names))
    for _, probs in probabilities(bundle, images, device=device):
        confidences, classes = probs.max(dim=1)
        for confidence, class_id in zip(confidences.tolist(), classes.tolist(), strict=True):
            row = next(accepted)
            row["class"] = bundle.class_names[class_id]
            row["confidence"] = round(confidence, 6)
    return rows


def _blocks(items: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _open(recipe: Recipe, store: Path, device: str, display: Display) -> Run:
    device = pick_device(device)
    source = open_source(recipe.data, recipe.seed)  # before a store is made for nothing
    return Run(
        recipe=recipe, source=source, store=create(store), device=device, display=display
    )


def _teacher(store: Store, teacher_id: str | None) -> Row:
    rows = store.table("teachers").read().sort_by("created_at").to_pylist()
    rows = [row for row in rows if row["checkpoint"]]  # a fusion has no model of its own
    if teacher_id is None:
        rows = [row for row in rows if row["role"] in {"teacher", "student", "control"}]
        newest = rows[-1]["recipe_hash"] if rows else None
        rows = [r for r in rows if r["role"] != "control" and r["recipe_hash"] == newest]
        rows.sort(key=lambda row: row["iteration"])
    else:
        rows = [row for row in rows if row["teacher_id"] == teacher_id]
    if not rows:
        known = store.table("teachers").read(columns=["teacher_id", "checkpoint"]).to_pylist()
        ids = [row["teacher_id"] for row in known if row["checkpoint"]]
        raise InputError(
            f"{store.root} has no teacher {teacher_id or 'yet'} with a model; it has "
            f"{', '.join(ids) or 'none: plstore run trains them'}"
        )
    return dict(rows[-1])


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
