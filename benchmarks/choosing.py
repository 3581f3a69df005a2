"""Which selection of pseudo-labels helps a student, over several seeds?

    python -m benchmarks.choosing --seeds 0..4 --json benchmarks/results/DATE-choosing.json
    python -m benchmarks.choosing --folders LABELED UNLABELED TEST --set train.steps=500
    python -m benchmarks.choosing --recipe probe --folders ... --set model.weights=FILE
    python -m benchmarks.choosing --quick

Of every seed one teacher is trained, and of its labels one student for each selection. Runs are
kept in --home, one folder a seed, and go on where they stopped; what is finished is a line of
results.jsonl there. Selections on embeddings take those that a seed's store has, and are left
out, with a line that says so, where it has none: make them, then run the same command again.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import pyarrow.parquet as pq

from benchmarks.record import Measurement, publish
from plstore.embeddings import (
    EMBEDDING_IDS,
    EmbeddingBatch,
    EmbeddingSet,
    commit_embeddings,
    embedding_sets,
    write_embeddings,
)
from plstore.loaders import ImageFormat, clean_batches, open_split
from plstore.query import saved_query
from plstore.report.output import render
from plstore.report.progress import Display
from plstore.storage import write_atomically
from plstore.store import Store, create
from trainers.data import sample_folder
from trainers.events import Shown
from trainers.loop import Run, open_run
from trainers.programs import parse_seeds
from trainers.recipe import Recipe, load_recipe
from trainers.sections import Select

Line = dict[str, Any]

DEFAULT: Final = "recipe"
QUERIES: Final = ("adaptive_floor", "soft_weight", "diverse", "near_labeled", "in_distribution")
SELECTIONS: Final = (DEFAULT, "none", *QUERIES)
"""The recipe's own, every label once, the saved queries of `selection/`."""

_DECIDING: Final = frozenset(
    ("policy", "min_confidence", "images_per_class", "relabel", "query", "parameters")
)
_RESULTS: Final = "results.jsonl"
_QUICK: Final = (
    "train.steps=2",
    "schedule.warmup_steps=1",
    "train.labeled_batch=4",
    "train.threads=1",
    "select.min_confidence=0.0",
    "select.images_per_class=8",
)
_QUICK_IMAGES: Final = {"labeled": 80, "unlabeled": 120, "test": 60}
_PIXELS: Final = 7


def main(words: Sequence[str] | None = None) -> None:
    """Run the seeds; publish accuracies, and what each selection adds to the default."""
    arguments = _parser().parse_args(words)
    seeds = parse_seeds("0..1" if arguments.quick else arguments.seeds)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.quick:
            arguments.home = Path(scratch)
            arguments.folders = few_images(arguments.home / "images")
        choosing = Choosing(
            recipe=_recipe(arguments),
            home=arguments.home,
            device=arguments.device,
            model=arguments.embeddings,
            prepare=embed_pixels if arguments.quick else _nothing,
        )
        lines = choosing.run(seeds, Display())
    command = "python -m benchmarks.choosing " + " ".join(words or sys.argv[1:])
    publish(measurements(lines), command=command, json_path=arguments.json)
    print(render(summary(lines), "table"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two tiny seeds, in seconds")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    parser.add_argument("--seeds", default="0..4")
    parser.add_argument(
        "--folders",
        nargs=3,
        metavar=("LABELED", "UNLABELED", "TEST"),
        help="your own images, in place of the bundled sample; as in plstore run",
    )
    parser.add_argument(
        "--recipe", help="a TOML file, or one that ships; fits the images unless given"
    )
    parser.add_argument(
        "--set", action="append", default=[], help="override a value of the recipe; repeatable"
    )
    parser.add_argument(
        "--embeddings", default="", help="model, where a store has those of several"
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    parser.add_argument(
        "--home", type=Path, default=Path("demo/choosing"), help="where runs are kept"
    )
    return parser


def _recipe(arguments: argparse.Namespace) -> Recipe:
    overrides = [*(_QUICK if arguments.quick else ()), *arguments.set]
    fitting = "images" if arguments.folders and not arguments.quick else "fashion_mnist"
    data: dict[str, object] = {}
    if arguments.folders:
        named = dict(zip(_QUICK_IMAGES, arguments.folders, strict=True))
        data = {"source": "folders", **named}
    recipe = load_recipe(arguments.recipe or fitting, overrides, {"data": data})
    return recipe.model_copy(update={"iterations": 1, "control": False})


def _nothing(_: Store) -> None:
    """Leave embeddings as they are."""


@dataclass(frozen=True, kw_only=True)
class Choosing:
    """An experiment.

    Attributes:
        recipe: Of one iteration, without control; its selection is the default.
        home: Folder of runs and results.
        device: "auto", "cpu" or a CUDA device.
        model: Whose embeddings, where a store has those of several.
        prepare: Called with the store of a seed, filled and labeled, before each selection
            that reads embeddings: it may make them where there are none.
    """

    recipe: Recipe
    home: Path
    device: str = "cpu"
    model: str = ""
    prepare: Callable[[Store], None] = _nothing

    def run(self, seeds: Sequence[int], display: Display) -> list[Line]:
        """Do what is not done yet; return a line for each seed and selection."""
        lines: list[Line] = []
        for seed in seeds:
            store = create(self.home / f"seed-{seed}" / "store")
            for name in SELECTIONS:
                if _reads_embeddings(name):
                    self.prepare(store)
                    if not embedding_sets(store):
                        display.say(
                            f"seed {seed}: {name} left out, {store.root} has no embeddings; "
                            "'plstore embed' makes them"
                        )
                        continue
                recipe = self.recipe.model_copy(
                    update={"seed": seed, "select": self.select(name)}
                )
                opened = open_run(recipe, store, device=self.device, on_event=Shown(display))
                lines.append(self._line(opened, name, display))
        return lines

    def select(self, name: str) -> Select:
        """Return the section of a recipe that makes a selection."""
        own = self.recipe.select
        if name == DEFAULT:
            return own
        kept = {k: v for k, v in own.model_dump().items() if k not in _DECIDING}
        if name == "none":
            return Select(policy="none", min_confidence=0.0, **kept)
        query = f"selection/{name}"
        taken = {parameter.name for parameter in saved_query(query).parameters}
        floor = {"min_confidence": own.min_confidence} if "min_confidence" in taken else {}
        model = {"model": self.model} if "model" in taken else {}
        return Select(query=query, parameters=model, **floor, **kept)

    def _line(self, opened: Run, name: str, display: Display) -> Line:
        """Return what came of a run: the line that is there, or a new one, which is kept."""
        identity = opened.steps[-1].key  # of all that its result depends on
        path = self.home / _RESULTS
        lines = list(read_lines(path))
        seed = opened.context.recipe.seed
        for line in lines:
            if line["identity"] == identity:
                return line | {"selection": name}  # of a probe, all labels are the recipe's own
        display.say(f"seed {seed}: {name}")
        result = opened.result(opened.execute())
        line = {"seed": seed, "selection": name, **_found(result), "identity": identity}
        text = "".join(json.dumps(each) + "\n" for each in [*lines, line])
        write_atomically(path, text.encode())
        return line


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of an experiment that were finished."""
    if path.is_file():
        yield from map(json.loads, path.read_text().splitlines())


def _reads_embeddings(name: str) -> bool:
    return name in QUERIES and "embeddings_of(" in saved_query(f"selection/{name}").sql


def _found(result: Mapping[str, Any]) -> Line:
    """Return what is kept of a result; accuracies in percent."""
    teacher, (student,) = result["teacher"], result["students"]
    tested = student["test_accuracy"] is not None
    key = "test_accuracy" if tested else "validation_accuracy"
    counts = student["counts"]
    return {
        "accuracy": student[key],
        "teacher_accuracy": teacher[key],
        "kept": counts["kept"],
        "draws": counts["draws"],
        "dropped": counts["dropped"],
        "mean_weight": counts.get("mean_weight", 1.0),
        "pseudo_label_accuracy": student.get("pseudo_label_accuracy"),
        "seconds": result["run_seconds"],
    }


def measurements(lines: Sequence[Line]) -> list[Measurement]:
    """Return accuracies by seed and selection, their means, deviations and differences."""
    found = [
        _measurement(f"seed {x['seed']}", x["selection"], "test_accuracy", x["accuracy"])
        for x in lines
    ]
    names = ("mean", "deviation", "difference", "difference_deviation")
    found += [
        _measurement("all seeds", row["selection"], name, row[name])
        for row in summary(lines)
        for name in names
        if row[name] is not None
    ]
    return found


def _measurement(case: str, contender: str, metric: str, value: float) -> Measurement:
    unit = "%" if metric in {"test_accuracy", "mean"} else "points"
    return Measurement(
        case=case, contender=contender, metric=metric, value=round(value, 2), unit=unit
    )


def summary(lines: Sequence[Line]) -> list[Line]:
    """Return a row a selection: accuracy over seeds, and what it adds to the default.

    Differences are between students of one seed, and so of one teacher. Standard deviations
    are those of a sample; None of one seed alone.
    """
    default = {x["seed"]: x["accuracy"] for x in lines if x["selection"] == DEFAULT}
    rows = []
    for name in SELECTIONS:
        own = [line for line in lines if line["selection"] == name]
        if not own:
            continue
        accuracies = [line["accuracy"] for line in own]
        gains = [line["accuracy"] - default[line["seed"]] for line in own]
        rows.append(
            {
                "selection": name,
                "seeds": len(own),
                "mean": round(mean(accuracies), 2),
                "deviation": _deviation(accuracies),
                "difference": round(mean(gains), 2),
                "difference_deviation": _deviation(gains),
                "kept": round(mean(line["kept"] for line in own)),
                "pseudo_label_accuracy": _mean_known(own, "pseudo_label_accuracy"),
            }
        )
    return rows


def _deviation(values: Sequence[float]) -> float | None:
    return round(stdev(values), 2) if len(values) > 1 else None


def _mean_known(lines: Sequence[Line], name: str) -> float | None:
    values = [line[name] for line in lines]
    return None if None in values else round(mean(values), 2)


def few_images(folder: Path) -> list[str]:
    """Write some images of the bundled sample as folders; return labeled, unlabeled, test."""
    for split, count in _QUICK_IMAGES.items():
        rows = pq.read_table(sample_folder() / f"{split}.parquet").slice(0, count).to_pylist()
        for number, row in enumerate(rows):
            name = "pool" if split == "unlabeled" else f"class-{row['label']}"
            path = folder / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(row["image"]["bytes"])
    return [str(folder / split) for split in _QUICK_IMAGES]


def embed_pixels(store: Store) -> None:
    """Keep 7 x 7 gray values an image as its embedding: enough for a quick run."""
    if embedding_sets(store):
        return
    shards = []
    for split in ("labeled", "unlabeled", "validation"):
        of = EmbeddingSet(model=f"pixels-{_PIXELS}", split=split)
        gray = ImageFormat(size=_PIXELS, channels=1, mean=(0.0,), std=(1.0,))
        images = open_split(store, split)
        for batch in clean_batches(images, gray, batch_size=EMBEDDING_IDS):
            vectors = batch.images.flatten(start_dim=1).float().numpy()
            rows = EmbeddingBatch(sample_ids=batch.sample_ids.numpy(), vectors=vectors)
            identity = f"pixels-{split}"
            shards.append(write_embeddings(store, of, rows, identity=identity))
    commit_embeddings(store, shards, lineage={"step": "embed"}, transaction="pixels")


if __name__ == "__main__":
    main()
