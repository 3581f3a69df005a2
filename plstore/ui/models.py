"""What was measured of models: curves of their training, metrics, and how robust they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from plstore.report.runs import FinishedRun, list_runs
from plstore.report.snapshot import Snapshot
from plstore.report.values import rows_of
from plstore.ui.asking import ask_saved

_CURVES: Final = """
select run, name, step, value from runs
where run in (select unnest($runs)) and isfinite(value)
order by name, run, step
"""
_RUNS: Final = "select run, max(step) as step from runs group by run order by run"
_FIRST: Final = ("train/loss", "validation/accuracy", "train/learning_rate")
_MOST_POINTS: Final = 400


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What was measured while models trained.

    Attributes:
        by_name: Points (step, value) by metric and model, of metrics that have several steps.
        single: The last value of all other metrics, by model.
    """

    by_name: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]
    single: Mapping[str, Mapping[str, float]]


def run_names(snapshot: Snapshot) -> list[str]:
    """Return whatever the table of runs has measurements of."""
    return [row["run"] for row in snapshot.rows(_RUNS)]


def curves(snapshot: Snapshot, runs: Sequence[str]) -> Curves:
    """Return what was measured of some models."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in snapshot.rows(_CURVES, {"runs": list(runs)}):
        points = found.setdefault(row["name"], {}).setdefault(row["run"], [])
        points.append((row["step"], row["value"]))
    several = {
        name: {run: thinned(points) for run, points in of.items()}
        for name, of in found.items()
        if any(len({step for step, _ in points}) > 1 for points in of.values())
    }
    order = [*(n for n in _FIRST if n in several), *(n for n in several if n not in _FIRST)]
    single: dict[str, dict[str, float]] = {run: {} for run in runs}
    for name, of in found.items():
        for run, points in of.items():
            if name not in several:
                single[run][name] = points[-1][1]
    return Curves(by_name={name: several[name] for name in order}, single=single)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return as many points as a curve shows, evenly taken, the last one too."""
    every = -(-len(points) // _MOST_POINTS)
    return [*points[:-1][::every], points[-1]] if points else []


def finished(snapshot: Snapshot) -> list[FinishedRun]:
    """Return the finished runs of a store, the newest first."""
    return list_runs(snapshot.store)[::-1]


def metrics(snapshot: Snapshot, split: str) -> list[dict[str, Any]]:
    """Return the metrics of labels of a split, a row a teacher and iteration."""

    def find() -> list[dict[str, Any]]:
        if not snapshot.labels(split):
            return []
        rows = ask_saved(snapshot, "evaluation/metrics", {"split": split}).rows
        return rows_of(rows)

    return snapshot.once(("metrics", split), find)


def robustness(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return accuracies on images that were made worse, by teacher and perturbation."""
    if not snapshot.pins.get("perturbed_labels"):
        return []

    def find() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for kind in ("corruption", "attack"):
            rows = ask_saved(
                snapshot, "evaluation/perturbed_accuracy", {"split": "test", "kind": kind}
            ).rows.to_pylist()
            found += [{"kind": kind, **row} for row in rows]
        return found

    return snapshot.once("robustness", find)
