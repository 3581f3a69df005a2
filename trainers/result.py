"""What a run leaves: `result.json` for programs, one table for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plstore.query import run_query
from plstore.storage import write_json
from plstore.store import Store
from plstore.version import __version__
from trainers.advice import advice, best_model
from trainers.health import health, warnings
from trainers.recipe import Recipe

_MODEL = ("teacher_id", "architecture", "checkpoint", "test_accuracy", "validation_accuracy")


class Findings:
    """What the steps of a run found, by model; accuracies are in percent."""

    def __init__(self, store: Store) -> None:
        """Begin with nothing."""
        self.store = store
        self.imported: dict[str, Any] = {}
        self.pretrained: dict[str, Any] | None = None
        self._models: dict[str, dict[str, Any]] = {}
        self.best_labels: dict[str, Any] | None = None
        self._right: Mapping[str, float] | None = None

    def model(self, name: str) -> dict[str, Any]:
        """Return what is said of a model: "0" for the teacher, "1", … or "control"."""
        return self._models.setdefault(name, dict.fromkeys(_MODEL))

    def find(self, name: str) -> dict[str, Any] | None:
        """Return what was said of a model, None if nothing was."""
        return self._models.get(name)

    def more_teachers(self) -> list[dict[str, Any]]:
        """Return what is said of the first teachers beside the one of `model`, in order."""
        return [found for name, found in self._models.items() if name.startswith("0.")]

    def pseudo_label_accuracy(self, view: str) -> float | None:
        """Return how many of a view's pseudo-labels are right, in percent, if that is known.

        It is known where the store has the truth of unlabeled images.
        """
        if self._right is None:
            rows = run_query(self.store, "calibration/pseudo_label_accuracy").to_pylist()
            found = {(row["view"], row["version"]): 100 * row["accuracy"] for row in rows}
            columns = ["view", "version", "identity"]
            views = self.store.table("views").read(columns=columns).to_pylist()
            names = {(row["view"], row["version"]): row["identity"] for row in views}
            self._right = {names[key]: n for key, n in found.items() if key in names}
        return self._right.get(view)


def build_result(recipe: Recipe, findings: Findings, seconds: float) -> dict[str, Any]:
    """Return the result of a finished run as JSON-like values.

    Accuracies are in percent. `pseudo_label_accuracy` is there where the truth of unlabeled
    images is known; it is over the pseudo-labeled images that were kept.
    """
    students = [findings.find(str(n)) for n in range(1, recipe.iterations + 1)]
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
        "seed": recipe.seed,
        "code_version": __version__,
        "store_versions": findings.store.versions(),
        "run_seconds": round(seconds, 1),
        "imported": findings.imported,
        "pretrained": findings.pretrained,
        "teacher": findings.model("0"),
        "more_teachers": findings.more_teachers(),
        "control": findings.find("control"),
        "students": [student for student in students if student is not None],
    }
    even = 100 / len(findings.store.class_names)
    result["health"] = [
        {**row, "even_share": even} for row in health(findings.store, result["students"])
    ]
    best = best_model(result)
    result["best"] = None if best is None else best["teacher_id"]
    result["best_labels"] = findings.best_labels
    held_out = findings.imported.get("splits", {}).get("validation")
    result["advice"] = [
        *advice(result, _num_measured(findings.imported), held_out),
        *warnings(result["health"], held_out),
    ]
    return result


def _num_measured(imported: Mapping[str, Any]) -> int | None:
    """Return how many images accuracies are of: test images, else those of validation."""
    splits: Mapping[str, int] = imported.get("splits", {})
    return splits.get("test") or splits.get("validation")


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write `result.json`."""
    write_json(path, result)


def result_rows(result: Mapping[str, Any]) -> list[dict[str, object]]:
    """Return the result as the rows of one table, first the teacher, last the control."""
    rows = [_row(0, "teacher", t) for t in (result["teacher"], *result["more_teachers"])]
    rows += [_row(s["iteration"], "student", s) for s in result["students"]]
    if result["control"] is not None:
        rows.append(_row(len(result["students"]), "control", result["control"]))
    return rows


def _row(iteration: int, role: str, model: Mapping[str, Any]) -> dict[str, object]:
    return {
        "iteration": iteration,
        "role": role,
        "model": model["teacher_id"],
        "architecture": model["architecture"],
        "method": model.get("how"),
        "taught by": model.get("taught_by"),
        "test accuracy": _percent(model.get("test_accuracy")),
        "validation accuracy": _percent(model.get("validation_accuracy")),
        "images kept": model.get("images"),
        "pseudo-label accuracy": _percent(model.get("pseudo_label_accuracy")),
    }


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
