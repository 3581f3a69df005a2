"""Does the last student beat its teacher and the control, over several seeds?

    python -m benchmarks.gain --seeds 0..4 --json benchmarks/results/DATE-gain.json
    python -m benchmarks.gain --quick

The control is the student's own model and noise, with as many optimizer steps and images a
step, all labeled. Runs are kept in --home, one folder a seed, and go on where they stopped.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.record import Measurement, publish
from plstore.report.progress import Display
from trainers.programs import parse_seeds, run_seeds
from trainers.recipe import load_recipe

QUICK = (
    "train.steps=16",
    "schedule.warmup_steps=2",
    "train.labeled_batch=16",
    "select.min_confidence=0.11",
    "data.limit_unlabeled=300",
    "iterations=1",
)


def main(words: Sequence[str] | None = None) -> None:
    """Run the seeds and publish their accuracies and gains."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two tiny seeds, in seconds")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    parser.add_argument("--seeds", default="0..4")
    parser.add_argument(
        "--home", type=Path, default=Path("demo/gain"), help="where runs are kept"
    )
    arguments = parser.parse_args(words)
    recipe = load_recipe("fashion_mnist", QUICK if arguments.quick else ())
    seeds = parse_seeds("0..1" if arguments.quick else arguments.seeds)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) if arguments.quick else arguments.home
        rows = run_seeds(recipe, home / "store", seeds, device="cpu", display=Display())
        lines = rows[: len(seeds)]
    command = "python -m benchmarks.gain " + " ".join(words or sys.argv[1:])
    publish(measurements(lines), command=command, json_path=arguments.json)


def measurements(lines: Sequence[Mapping[str, Any]]) -> list[Measurement]:
    """Return the measurements of some seeds, and their means."""
    found = []
    for name, role in _names(lines[0]):
        found += [_measurement(f"seed {x['seed']}", role, name, x[name]) for x in lines]
        found.append(_measurement("mean", role, name, mean(line[name] for line in lines)))
    return found


def _names(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    students = [name for name in line if name.startswith("student")]
    gains = ["gain over teacher", "gain over control", "run seconds"]
    return [
        ("teacher", "teacher"),
        ("control", "control"),
        *((name, name.replace(" ", "-")) for name in students),
        *((name, "plstore") for name in gains),
    ]


def _measurement(case: str, role: str, name: str, value: float) -> Measurement:
    if name == "run seconds":
        return Measurement(
            case=case, contender=role, metric="run_seconds", value=round(value, 1), unit="s"
        )
    gain = name.startswith("gain")
    return Measurement(
        case=case,
        contender=role,
        metric=name.replace(" ", "_") if gain else "test_accuracy",
        value=round(value, 2),
        unit="points" if gain else "%",
    )


if __name__ == "__main__":
    main()
