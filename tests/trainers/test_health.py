"""What is measured of a run while it goes on, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from plstore.store import Store
from tests.conftest import give_labels
from tests.trainers.test_run import TRAIN, recipe
from trainers.events import Event, Measured, Note
from trainers.health import health, warnings
from trainers.logs import logged
from trainers.loop import open_run, run
from trainers.stopping import is_left_out, last_iteration
from trainers.training.recording import (
    EPOCH,
    LOSS,
    MEMORY,
    RATE,
    SPEED,
    WAITING,
    Recorder,
)


def measured(accuracies: list[float]) -> dict[str, Any]:
    return {
        f"evaluate-{n}": {"validation_accuracy": value} for n, value in enumerate(accuracies)
    }


@pytest.mark.parametrize(
    ("accuracies", "patience", "last"),
    [
        ([50, 40], 1, 1),
        ([50, 60, 55], 1, 2),
        ([50, 60, 55], 2, None),
        ([50, 40, 45], 2, 2),
        ([50, 40, 51, 50, 51], 2, 4),
        ([50, 60, 70], 1, None),
        ([50, 40], None, None),
    ],
)
def test_a_run_ends_after_students_that_are_no_better(
    accuracies: list[float], patience: int | None, last: int | None
) -> None:
    asked = recipe(iterations=5, patience=patience)

    assert last_iteration(asked, measured(accuracies)) == last


def test_without_validation_images_a_run_goes_on() -> None:
    done: dict[str, Any] = {"evaluate-0": {}, "evaluate-1": {}}

    assert last_iteration(recipe(iterations=5, patience=1), done) is None


def test_what_comes_after_is_left_out_but_for_control_and_labels(store: Store) -> None:
    asked = recipe(iterations=3, control=True, patience=1, label={"best": True})
    steps = open_run(asked, store, device="cpu").steps

    left = {step.name for step in steps if is_left_out(step, 1)}
    assert "label-2" in left
    assert "train-3" in left
    assert not left & {"train-1", "train-control", "evaluate-control", "label-best"}


def test_a_run_that_lost_patience_has_a_result_of_what_was_done(store: Store) -> None:
    same = {"learning_rate": 1e-12}
    asked = recipe(iterations=3, patience=1, optimizer=same, label={"best": True})
    notes: list[Event] = []
    result = run(asked, store, device="cpu", on_event=notes.append)
    again = run(asked, store, device="cpu")

    done = len(result["students"])
    assert done < 3
    assert again["students"] == result["students"]
    assert result["best_labels"] is not None
    said = " ".join(event.text for event in notes if isinstance(event, Note))
    assert f"those after student {done} are left out" in said


def test_a_training_measures_itself(store: Store, tmp_path: Path) -> None:
    events: list[Event] = []
    lines, board = tmp_path / "x" / "metrics.jsonl", tmp_path / "board"
    with logged(events.append, lines, board) as listener:
        result = run(
            recipe(train={**TRAIN, "steps": 50}), store, device="cpu", on_event=listener
        )
    rows = store.table("runs").read().to_pylist()
    written = [json.loads(line) for line in lines.read_text().splitlines()]

    teacher = result["teacher"]["teacher_id"]
    kept = {row["name"]: row["value"] for row in rows if row["run"] == teacher}
    assert {LOSS, RATE, SPEED, WAITING, EPOCH, MEMORY} <= set(kept)
    assert 0 <= kept[WAITING] < 1
    assert kept[SPEED] > 0
    assert kept[MEMORY] > 1e7
    assert {row["model"] for row in written} == {
        teacher,
        result["students"][0]["teacher_id"],
    }
    assert sum(isinstance(event, Measured) for event in events) == len(written)
    assert any(row["name"] == LOSS and row["value"] == kept[LOSS] for row in written)
    assert list(board.glob("events.out.tfevents*"))


def test_speed_is_of_the_images_of_a_step() -> None:
    told: list[tuple[int, str, float]] = []
    recorder = Recorder(told.append, every=2, images=10, steps_per_epoch=4, device="cpu")
    for step in (1, 2, 3):
        with recorder.waiting():
            pass
        recorder.step_done(step, loss=0.5, rate=0.1)
    found = {name: value for _, name, value in told}

    assert {step for step, _, _ in told} == {2}
    assert found[SPEED] * found[EPOCH] == pytest.approx(10 * 4)
    assert recorder.metrics == told


def student(iteration: int, predicted: list[int]) -> dict[str, Any]:
    return {
        "iteration": iteration,
        "taught_by": f"t{iteration - 1}",
        "counts": {"predicted_by_class": predicted, "in": sum(predicted)},
    }


def test_labels_that_change_and_collapse_are_counted(store: Store) -> None:
    give_labels(store, "t0", 1)
    give_labels(store, "t1", 2)
    rows = health(store, [student(1, [20, 20, 20]), student(2, [60, 0, 0])])

    assert [row["largest_class"] for row in rows] == [pytest.approx(100 / 3), 100]
    assert [row["missing_classes"] for row in rows] == [0, 2]
    assert rows[0]["flips"] is None
    assert 0 < rows[1]["flips"] < 100
    even = [{**row, "even_share": 100 / 3} for row in rows]
    lines = warnings(even, 100)
    assert len(lines) == 1
    assert lines[0].startswith("the teacher of student 2 called 100 % of the images one class")


def test_a_teacher_that_is_too_sure_is_told() -> None:
    row = {"iteration": 1, "largest_class": 50.0, "even_share": 50.0, "flips": None}

    assert "is off by 40 points" in warnings([{**row, "calibration_error": 40.0}], 100)[0]
    assert not warnings([{**row, "calibration_error": 40.0}], 10)
    assert not warnings([{**row, "calibration_error": 5.0}], 100)


def test_labels_that_change_more_and_more_are_told() -> None:
    row = {"largest_class": None, "calibration_error": None}
    rows = [{**row, "iteration": n, "flips": f} for n, f in ((1, None), (2, 4.0), (3, 9.0))]

    assert "(4.0 then 9.0 % of them)" in warnings(rows, 100)[0]
    assert not warnings(rows[:2], 100)
