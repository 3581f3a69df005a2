"""Does a look at the right images pay? Labels corrected from the queue, and as many at random.

    python -m benchmarks.review --seeds 0..4 --json benchmarks/results/DATE-review.json
    python -m benchmarks.review --quick

Of every seed a teacher is trained and labels the pool, and a student learns from that (`none`).
Then a reviewer who knows the true classes says what 100 unlabeled images are: the first of the
saved query `review/worth_a_look` (`queue`), or some drawn at random (`random`). The run goes on
from there as it does for anyone: what was corrected is labeled now, so teacher and student are
trained anew, each on its own copy of the store. Runs are kept in --home, and go on where they
stopped; what is finished is a line of results.jsonl there.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import pyarrow.compute as pc

from benchmarks.choosing import read_lines
from benchmarks.record import Measurement, publish
from plstore.query import run_query
from plstore.report.output import render
from plstore.report.progress import Display
from plstore.schema import ACCEPTED
from plstore.seeds import Purpose, generator
from plstore.storage import write_atomically
from plstore.store import Store, create
from plstore.store import open as open_store
from plstore.upkeep import correct
from trainers.events import Shown
from trainers.loop import open_run
from trainers.programs import parse_seeds
from trainers.recipe import Recipe, load_recipe

Line = dict[str, Any]

NONE: Final = "none"
ARMS: Final = (NONE, "random", "queue")

_QUICK: Final = (
    "train.steps=4",
    "schedule.warmup_steps=1",
    "train.labeled_batch=8",
    "select.min_confidence=0.0",
    "data.limit_unlabeled=300",
)


def main(words: Sequence[str] | None = None) -> None:
    """Run the seeds; publish accuracies, and what the corrections add."""
    arguments = _parser().parse_args(words)
    seeds = parse_seeds("0..1" if arguments.quick else arguments.seeds)
    overrides = [*(_QUICK if arguments.quick else ()), "iterations=1", "control=false"]
    recipe = load_recipe("fashion_mnist", overrides)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) if arguments.quick else arguments.home
        reviewing = Reviewing(recipe=recipe, home=home, images=arguments.images)
        lines = [reviewing.line(seed, arm, Display()) for seed in seeds for arm in ARMS]
    command = "python -m benchmarks.review " + " ".join(words or sys.argv[1:])
    publish(measurements(lines), command=command, json_path=arguments.json)
    print(render(summary(lines), "table"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two tiny seeds, in seconds")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    parser.add_argument("--seeds", default="0..4")
    parser.add_argument("--images", type=int, default=100, help="that the reviewer looks at")
    parser.add_argument(
        "--home", type=Path, default=Path("demo/review"), help="where runs are kept"
    )
    return parser


@dataclass(frozen=True, kw_only=True)
class Reviewing:
    """An experiment.

    Attributes:
        recipe: Of one iteration, on images whose pool has true classes.
        home: Folder of runs and results.
        images: That the reviewer looks at.
    """

    recipe: Recipe
    home: Path
    images: int

    def line(self, seed: int, arm: str, display: Display) -> Line:
        """Return what came of a seed and a way to review: found in the results, or run now."""
        path = self.home / "results.jsonl"
        lines = list(read_lines(path))
        for line in lines:
            if (line["seed"], line["arm"], line["images"]) == (seed, arm, self.images):
                return line
        display.say(f"seed {seed}: {arm}")
        store = self._store(seed, arm)
        decided = {} if arm == NONE else self.decide(store, seed, arm)
        recipe = self.recipe.model_copy(update={"seed": seed})
        opened = open_run(recipe, store, device="cpu", on_event=Shown(display))
        result = opened.result(opened.execute())
        line = {"seed": seed, "arm": arm, "images": self.images, **decided, **_found(result)}
        text = "".join(json.dumps(each) + "\n" for each in [*lines, line])
        write_atomically(path, text.encode())
        return line

    def _store(self, seed: int, arm: str) -> Store:
        """Return an arm's own store: that of no review, copied before anything was decided."""
        base = self.home / f"seed-{seed}" / NONE / "store"
        if arm == NONE:
            return create(base)
        place = self.home / f"seed-{seed}" / arm / "store"
        shutil.rmtree(place, ignore_errors=True)  # of a run that was stopped
        shutil.copytree(base, place)
        return open_store(place)

    def decide(self, store: Store, seed: int, arm: str) -> Line:
        """Look at some images and say what they are; return how many labels were wrong."""
        truth = store.table("truth").read()
        true = dict(
            zip(truth["sample_id"].to_pylist(), truth["label"].to_pylist(), strict=True)
        )
        looked = self._queue(store) if arm == "queue" else self._at_random(store, seed)
        names = store.class_names
        correct(store, {image: names[true[image]] for image in looked}, who="truth")
        labels = store.table("soft_labels").read(
            columns=["sample_id", "class_id"],
            where=pc.field("sample_id").isin(looked) & (pc.field("split") == "unlabeled"),
        )
        rows = zip(labels["sample_id"].to_pylist(), labels["class_id"].to_pylist(), strict=True)
        return {"wrong": sum(true[image] != said for image, said in rows)}

    def _queue(self, store: Store) -> list[int]:
        rows = run_query(store, "review/worth_a_look", num_images=0).to_pylist()
        return [row["sample_id"] for row in rows if row["split"] == "unlabeled"][: self.images]

    def _at_random(self, store: Store, seed: int) -> list[int]:
        where = (pc.field("split") == "unlabeled") & (pc.field("verdict") == ACCEPTED)
        rows = store.table("images").read(columns=["sample_id"], where=where)
        ids = sorted(rows["sample_id"].to_pylist())
        drawn = generator(seed, Purpose.SAMPLE).choice(ids, self.images, replace=False)
        return [int(image) for image in sorted(drawn)]


def _found(result: Mapping[str, Any]) -> Line:
    """Return what is kept of a result; accuracies in percent."""
    (student,) = result["students"]
    return {
        "teacher": result["teacher"]["test_accuracy"],
        "student": student["test_accuracy"],
        "pseudo_label_accuracy": student.get("pseudo_label_accuracy"),
        "seconds": result["run_seconds"],
    }


def measurements(lines: Sequence[Line]) -> list[Measurement]:
    """Return accuracies by seed, and what each way to review adds over all of them."""
    found = [
        Measurement(
            case=f"seed {line['seed']}, {role}",
            contender=line["arm"],
            metric="test_accuracy",
            value=line[role],
            unit="percent",
        )
        for line in lines
        for role in ("teacher", "student")
    ]
    for row in summary(lines):
        found += [
            Measurement(
                case="all seeds", contender=row["arm"], metric=name, value=row[name], unit=unit
            )
            for name, unit in (
                ("student", "percent"),
                ("gain", "points"),
                ("deviation", "points"),
                ("wrong", "images"),
            )
            if row[name] is not None
        ]
    return found


def summary(lines: Sequence[Line]) -> list[Line]:
    """Return a row for each way to review: means, and the gain on none, paired by seed."""
    base = {line["seed"]: line["student"] for line in lines if line["arm"] == NONE}
    rows: list[Line] = []
    for arm in ARMS:
        own = [line for line in lines if line["arm"] == arm]
        gains = [line["student"] - base[line["seed"]] for line in own]
        reviewed = arm != NONE
        rows.append(
            {
                "arm": arm,
                "seeds": len(own),
                "wrong": round(mean(x["wrong"] for x in own), 1) if reviewed else None,
                "teacher": round(mean(x["teacher"] for x in own), 2),
                "student": round(mean(x["student"] for x in own), 2),
                "gain": round(mean(gains), 2) if reviewed else None,
                "deviation": round(stdev(gains), 2) if reviewed and len(own) > 1 else None,
            }
        )
    return rows


if __name__ == "__main__":
    main()
