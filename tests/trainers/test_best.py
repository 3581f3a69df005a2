"""In the end the best model labels the pool."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from plstore.query import run_sql
from plstore.report.runs import keep_run
from plstore.store import Store, pins
from tests.trainers.predicted import make_photos
from tests.trainers.test_run import recipe
from trainers.events import Event, Note, unheard
from trainers.loop import open_run, run
from trainers.prediction.predict import Prediction, predict
from trainers.steps.best import LabelBest

BEST = {"label": {"best": True}, "iterations": 2, "control": True}
LABELED = "select teacher_id, iteration from soft_labels where split = 'unlabeled' group by all"


def labelers(store: Store) -> set[tuple[str, int]]:
    return {(r["teacher_id"], r["iteration"]) for r in run_sql(store, LABELED).to_pylist()}


def chosen(store: Store, accuracies: Mapping[str, float]) -> dict[str, Any]:
    """Do the last step of a run as if its models were so good; return what it leaves."""
    opened = open_run(recipe(**BEST), store, device="cpu", on_event=unheard)
    done = opened.execute()
    step = opened.steps[-1]
    assert isinstance(step, LabelBest)
    found: list[Mapping[str, Any]] = [
        {**done[need], "validation_accuracy": accuracies[need.removeprefix("evaluate-")]}
        if need.startswith("evaluate-")
        else done[need]
        for need in step.needs
    ]
    return step.do(opened.context, found)


@pytest.mark.parametrize(
    ("accuracies", "name", "iteration"),
    [
        ({"0": 90.0, "1": 80.0, "2": 80.0, "control": 80.0}, "t0-", 1),
        ({"0": 80.0, "1": 90.0, "2": 80.0, "control": 90.0}, "t1-", 2),
        ({"0": 80.0, "1": 80.0, "2": 90.0, "control": 80.0}, "t2-", 3),
        ({"0": 80.0, "1": 80.0, "2": 80.0, "control": 90.0}, "control-", 3),
    ],
)
def test_the_best_labels_unless_it_has(
    store: Store, accuracies: Mapping[str, float], name: str, iteration: int
) -> None:
    found = chosen(store, accuracies)

    assert found["teacher_id"].startswith(name)
    assert found["iteration"] == iteration
    assert (found["teacher_id"], iteration) in labelers(store)
    assert pins(store) == []


def test_a_run_says_whose_labels_to_take(store: Store) -> None:
    result = run(recipe(**BEST), store, device="cpu")
    best = result["best_labels"]

    assert best["teacher_id"] == result["best"]
    assert (best["teacher_id"], best["iteration"]) in labelers(store)
    assert any("coverage/labels_by_file" in line for line in result["advice"])


def test_without_it_the_last_student_labels_nothing(store: Store) -> None:
    result = run(recipe(iterations=2), store, device="cpu")

    assert result["best_labels"] is None
    assert {iteration for _, iteration in labelers(store)} == {1, 2}


def looks(store: Store, photos: Path) -> str:
    """Return what model looks at photos where none is named."""
    told: list[Event] = []
    predict(store, photos, Prediction(device="cpu"), on_event=told.append)
    notes = [event.text for event in told if isinstance(event, Note)]
    return next(note for note in notes if "test_resnet" in note).partition(":")[0]


def test_the_model_that_looks_is_the_one_that_the_last_run_named(
    store: Store, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos")
    first = run(recipe(), store, device="cpu")
    select = {"min_confidence": 0.0, "policy": "exact"}
    other = run(recipe(select=select), store, device="cpu")
    teacher = other["teacher"]["teacher_id"]
    assert teacher == first["teacher"]["teacher_id"]  # of the first recipe
    assert looks(store, photos) == other["best"]
    keep_run(store, "another", {**other, "best": teacher}, [])
    assert looks(store, photos) == teacher
    keep_run(store, "more", {**other, "best": other["students"][0]["teacher_id"]}, [])
    assert looks(store, photos) == other["students"][0]["teacher_id"]
    run(recipe(), store, device="cpu")
    assert looks(store, photos) == first["best"]
