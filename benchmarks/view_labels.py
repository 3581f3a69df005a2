"""Does a student learn more from labels of what it sees than from labels of clean images?

    python -m benchmarks.view_labels --seeds 0..4 --json benchmarks/results/DATE-views.json
    python -m benchmarks.view_labels --quick

Of every seed one teacher is trained and one view selected. Two students are trained on it, of
the same weights, draws and noise: one by the clean labels of the view (Noisy Student, algorithm
1), one by what the teacher says of each noised image, in all epochs. Differences are between
students of one seed. Runs are kept in --home, one folder a seed, and go on where they stopped;
what is finished is a line of results.jsonl there.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from benchmarks.record import Measurement, publish
from plstore.report.progress import Display
from plstore.storage import write_atomically
from plstore.store import Store, create
from trainers.events import Shown
from trainers.loop import open_run
from trainers.programs import parse_seeds
from trainers.recipe import Recipe, load_recipe

Line = dict[str, Any]

CLEAN: Final = "clean"
VIEWS: Final = "views"
LABELS: Final = (CLEAN, VIEWS)
QUICK: Final = (
    "train.steps=6",
    "schedule.warmup_steps=2",
    "train.labeled_batch=8",
    "select.min_confidence=0.0",
    "select.images_per_class=20",
    "data.limit_unlabeled=200",
)
_ALL_EPOCHS: Final = 1e9
_RESULTS: Final = "results.jsonl"


def main(words: Sequence[str] | None = None) -> None:
    """Run the seeds; publish accuracies, and what labels of views add."""
    arguments = _parser().parse_args(words)
    overrides = [*(QUICK if arguments.quick else ()), *arguments.set]
    recipe = load_recipe("fashion_mnist", overrides)
    seeds = parse_seeds("0..1" if arguments.quick else arguments.seeds)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) if arguments.quick else arguments.home
        comparing = Comparing(recipe=recipe, home=home, device=arguments.device)
        lines = comparing.run(seeds, Display())
    command = "python -m benchmarks.view_labels " + " ".join(words or sys.argv[1:])
    publish(measurements(lines), command=command, json_path=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two tiny seeds, within a minute")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    parser.add_argument("--seeds", default="0..4")
    parser.add_argument(
        "--set", action="append", default=[], help="override a value of the recipe; repeatable"
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    parser.add_argument(
        "--home", type=Path, default=Path("demo/view-labels"), help="where runs are kept"
    )
    return parser


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """An experiment.

    Attributes:
        recipe: Its iterations, control and labels of views are set here.
        home: Folder of runs and results.
        device: "auto", "cpu" or a CUDA device.
    """

    recipe: Recipe
    home: Path
    device: str = "cpu"

    def run(self, seeds: Sequence[int], display: Display) -> list[Line]:
        """Do what is not done yet; return a line for each seed."""
        path = self.home / _RESULTS
        there = path.read_text().splitlines() if path.is_file() else []
        known = {line["identity"]: line for line in map(json.loads, there)}
        for seed in seeds:
            store = create(self.home / f"seed-{seed}" / "store")
            opened = {
                labels: open_run(
                    self.recipe_of(labels, seed),
                    store,
                    device=self.device,
                    on_event=Shown(display),
                )
                for labels in LABELS
            }
            identity = "-".join(run.run_id for run in opened.values())
            if identity not in known:
                line: Line = {"seed": seed, "identity": identity}
                for labels, run in opened.items():
                    display.say(f"seed {seed}: {labels} labels")
                    line |= _found(labels, run.result(run.execute()))
                known[identity] = line | _kept(store)
                text = "".join(json.dumps(each) + "\n" for each in known.values())
                write_atomically(path, text.encode())
            there.append(identity)
        return [line for line in known.values() if line["identity"] in there]

    def recipe_of(self, labels: str, seed: int) -> Recipe:
        """Return the recipe of one iteration with some labels."""
        wanted = {"views": labels == VIEWS, "view_epochs": _ALL_EPOCHS}
        label = self.recipe.label.model_copy(update=wanted if labels == VIEWS else {})
        update = {"seed": seed, "iterations": 1, "control": False, "label": label}
        return self.recipe.model_copy(update=update)


def _found(labels: str, result: Mapping[str, Any]) -> Line:
    """Return what is kept of a result; accuracies in percent."""
    (student,) = result["students"]
    found = {labels: student["test_accuracy"], f"{labels} seconds": result["run_seconds"]}
    if labels == CLEAN:
        return {"teacher": result["teacher"]["test_accuracy"], **found}
    return {**found, "draws": student["labeled_views"]}


def _kept(store: Store) -> Line:
    """Return what the labels of views take, in bytes a draw."""
    shards = store.table("view_labels").shards()
    num_rows = sum(shard.num_rows for shard in shards)
    return {"bytes a draw": round(sum(shard.size_bytes for shard in shards) / num_rows, 2)}


def measurements(lines: Sequence[Line]) -> list[Measurement]:
    """Return accuracies by seed, their means, and the differences, paired by seed."""
    units = {"draws": "1", "bytes a draw": "B", "clean seconds": "s", "views seconds": "s"}
    found = []
    for name in ("teacher", *LABELS):
        found += [
            _measurement(f"seed {x['seed']}", name, "test_accuracy", x[name]) for x in lines
        ]
        accuracies = [line[name] for line in lines]
        found.append(_measurement("all seeds", name, "mean", mean(accuracies)))
    gains = [line[VIEWS] - line[CLEAN] for line in lines]
    found.append(_measurement("all seeds", VIEWS, "difference", mean(gains), "points"))
    if len(gains) > 1:
        deviation = stdev(gains)
        found.append(
            _measurement("all seeds", VIEWS, "difference_deviation", deviation, "points")
        )
    for name, unit in units.items():
        contender, metric = ("views", name) if " seconds" not in name else name.split()
        value = mean(line[name] for line in lines)
        found.append(
            _measurement("all seeds", contender, metric.replace(" ", "_"), value, unit)
        )
    return found


def _measurement(
    case: str, contender: str, metric: str, value: float, unit: str = "%"
) -> Measurement:
    return Measurement(
        case=case, contender=contender, metric=metric, value=round(value, 2), unit=unit
    )


if __name__ == "__main__":
    main()
