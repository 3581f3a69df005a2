"""What a run leaves: `result.json` for programs, one table for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plstore
from plstore.query import run_query
from plstore.storage import write_json
from trainers.loop import Run
from trainers.steps import CONTROL, Ledger

Outputs = Mapping[str, Any]


def build_result(run: Run, done: Mapping[str, Outputs]) -> dict[str, Any]:
    """Return the result of a finished run as JSON-like values.

    Accuracies are in percent. `pseudo_label_accuracy` is there where the truth of unlabeled
    images is known; it is over the pseudo-labeled images that were kept.
    """
    ledger = Ledger(run.store)
    right = _pseudo_label_accuracies(run)
    students = []
    for iteration in range(1, run.recipe.iterations + 1):
        counts = done[f"select-{iteration}"]["counts"]
        student = _model(done, str(iteration))
        student["iteration"] = iteration
        student["taught_by"] = done[f"label-{iteration}"]["teacher_id"]
        student["images"] = counts["kept"]
        student["counts"] = counts
        student["view"] = done[f"select-{iteration}"]["view"]
        student["min_confidence"] = run.recipe.select.min_confidence
        if student["view"] in right:
            student["pseudo_label_accuracy"] = right[student["view"]]
        students.append(student)
    return {
        "recipe": run.recipe.name,
        "recipe_hash": run.recipe.hash,
        "seed": run.recipe.seed,
        "code_version": plstore.__version__,
        "store_versions": run.store.versions(),
        "run_seconds": round(sum(ledger.seconds(step) for step in run.steps), 1),
        "imported": {k: v for k, v in done["import"].items() if k != "images_version"},
        "teacher": _model(done, "0"),
        "control": _model(done, CONTROL) if run.recipe.control else None,
        "students": students,
    }


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write `result.json`."""
    write_json(path, result)


def result_rows(result: Mapping[str, Any]) -> list[dict[str, object]]:
    """Return the result as the rows of one table, first the teacher, last the control."""
    rows = [_row(0, "teacher", result["teacher"])]
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
        "taught by": model.get("taught_by"),
        "test accuracy": _percent(model.get("test_accuracy")),
        "validation accuracy": _percent(model.get("validation_accuracy")),
        "images kept": model.get("images"),
        "pseudo-label accuracy": _percent(model.get("pseudo_label_accuracy")),
    }


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _model(done: Mapping[str, Outputs], name: str) -> dict[str, Any]:
    trained, evaluated = done[f"train-{name}"], done[f"evaluate-{name}"]
    return {
        "teacher_id": trained["teacher_id"],
        "architecture": trained["architecture"],
        "checkpoint": trained["checkpoint"],
        "test_accuracy": evaluated.get("test_accuracy"),
        "validation_accuracy": evaluated.get("validation_accuracy"),
    }


def _pseudo_label_accuracies(run: Run) -> dict[str, float]:
    rows = run_query(run.store, "calibration/pseudo_label_accuracy").to_pylist()
    views = run.store.table("views").read(columns=["view", "version", "identity"]).to_pylist()
    names = {(row["view"], row["version"]): row["identity"] for row in views}
    found = {(row["view"], row["version"]): 100 * row["accuracy"] for row in rows}
    return {names[key]: value for key, value in found.items() if key in names}
