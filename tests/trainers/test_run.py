"""A run called from Python: events, a store that is filled already, a teacher that is there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plstore
from plstore.errors import InputError
from plstore.labels import Member, find_teacher, list_teachers, make_ensemble
from plstore.store import Store, pins
from plstore.views import Shrink, open_view
from tests.conftest import CLASS_NAMES, give_labels
from trainers.evaluation.evaluate import evaluate
from trainers.events import Event, Note, StepFinished, StepStarted, TaskAdvanced, TaskFinished
from trainers.loop import open_run, run
from trainers.models.bringing import bring_teacher
from trainers.models.model import build_model, image_format, load_teacher, save_bundle
from trainers.on_view import train_on_view
from trainers.recipe import Recipe, check_recipe
from trainers.resolved import iteration_lines
from trainers.sections import Model

MODEL = {
    "architecture": "test_resnet",
    "resolution": 16,
    "stochastic_depth": 0.0,
    "dropout": 0.0,
}
TRAIN = {"steps": 3, "labeled_batch": 2, "threads": 1}


def recipe(**changes: Any) -> Recipe:  # noqa: ANN401  values of a recipe
    values = {
        "name": "tiny",
        "iterations": 1,
        "control": False,
        "data": {"source": "store"},
        "model": MODEL,
        "train": TRAIN,
        "select": {"min_confidence": 0.0, "policy": "none"},
    }
    return check_recipe({**values, **changes}, "test")


def test_a_run_on_a_store_that_is_filled_imports_nothing(store: Store) -> None:
    before = store.table("images").version()
    events: list[Event] = []
    result = run(recipe(), store, device="cpu", on_event=events.append)

    assert store.table("images").version() == before
    assert result["imported"]["splits"]["unlabeled"] == 60
    assert result["students"][0]["images"] == 60
    assert result["control"] is None


def test_a_run_keeps_to_how_images_are_shrunk_and_decoded(store: Store) -> None:
    select = {"min_confidence": 0.0, "policy": "none", "max_side": 22, "quality": 80}
    changed = recipe(select=select, model={**MODEL, "scaled_decoding": False})
    notes: list[Event] = []
    result = run(changed, store, device="cpu", on_event=notes.append)
    views = [open_view(store, name) for name in ("tiny-labeled", "tiny-1")]
    teacher = find_teacher(store, result["teacher"]["teacher_id"])

    assert teacher is not None
    assert not load_teacher(store, teacher, device="cpu").format.scaled_decoding
    assert [view.record.mode for view in views] == ["packed", "packed"]
    assert [Shrink.of(view.record) for view in views] == [Shrink(max_side=22, quality=80)] * 2
    assert [view.record.counts["shrunk"] for view in views] == [6, 36]
    assert any(isinstance(e, Note) and "6 labeled images shrunk" in e.text for e in notes)
    assert result["students"][0]["counts"]["shrunk"] == 36


def test_a_run_tells_every_step_and_its_progress(store: Store) -> None:
    events: list[Event] = []
    run(recipe(), store, device="cpu", on_event=events.append)
    started = [event.name for event in events if isinstance(event, StepStarted)]
    finished = [event for event in events if isinstance(event, StepFinished)]
    labeled = sum(
        event.count
        for event in events
        if isinstance(event, TaskAdvanced) and event.title == "label unlabeled images"
    )
    again: list[Event] = []
    run(recipe(), store, device="cpu", on_event=again.append)

    assert started == [event.name for event in finished]
    assert started[:4] == ["import", "labeled", "train-0", "evaluate-0"]
    assert all(event.is_new for event in finished)
    assert labeled == 60
    assert sum(isinstance(event, TaskFinished) for event in events) >= 4
    assert any(isinstance(e, Note) and "validation accuracy" in e.text for e in events)
    assert not any(isinstance(event, StepStarted) for event in again)
    assert [e.name for e in again if isinstance(e, StepFinished) and not e.is_new] == started


def test_images_that_come_later_make_another_run(store: Store) -> None:
    before = [step.key for step in open_run(recipe(), store, device="cpu").steps]
    plstore.erase(store, [20], reason="asked for", who="ann")
    after = [step.key for step in open_run(recipe(), store, device="cpu").steps]

    assert not set(before) & set(after)


def test_an_empty_store_has_nothing_to_run_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no images to run on"):
        run(recipe(), tmp_path / "store", device="cpu")

    assert not (tmp_path / "store").exists()


@pytest.fixture
def model(store: Store, tmp_path: Path) -> Store:
    settings = Model(**MODEL)
    network = build_model(settings, "test_resnet", len(CLASS_NAMES))
    save_bundle(tmp_path / "m", network, image_format(settings, network), CLASS_NAMES)
    bring_teacher(store, "mine", str(tmp_path / "m"), device="cpu")
    return store


def test_a_model_of_the_store_takes_the_place_of_the_first_training(model: Store) -> None:
    result = run(recipe(teacher="mine"), model, device="cpu")
    steps = [step.name for step in open_run(recipe(teacher="mine"), model, device="cpu").steps]

    assert steps[2:5] == ["train-0", "evaluate-0", "label-1"]
    assert result["teacher"]["teacher_id"] == "mine"
    assert result["teacher"]["test_accuracy"] is not None
    assert result["students"][0]["taught_by"] == "mine"
    assert [t.role for t in list_teachers(model)] == ["imported", "student"]


Give = Callable[[Store], str]


def predictions(store: Store) -> str:
    probs = np.eye(3, dtype=np.float32)[np.arange(60) % 3] * 0.7 + 0.1
    np.save(store.root.parent / "probs.npy", probs)
    np.save(store.root.parent / "ids.npy", np.arange(12, 72))
    plstore.import_predictions(
        store,
        store.root.parent / "probs.npy",
        ids=store.root.parent / "ids.npy",
        teacher_id="clip",
        iteration=4,
    )
    return "clip"


def fusion(store: Store) -> str:
    for name in ("a", "b"):
        give_labels(store, name, 1)
    members = [Member(teacher_id=name, iteration=1) for name in ("a", "b")]
    make_ensemble(store, "both", members, iteration=2)
    return "both"


@pytest.mark.parametrize("give", [predictions, fusion])
def test_labels_without_a_model_go_straight_to_selection(store: Store, give: Give) -> None:
    name = give(store)
    before = store.table("soft_labels").version()
    result = run(recipe(teacher=name), store, device="cpu")

    assert store.table("soft_labels").version() == before
    assert result["teacher"]["teacher_id"] == name
    assert result["teacher"]["test_accuracy"] is None
    assert result["students"][0]["taught_by"] == name
    assert result["students"][0]["images"] == 60
    assert pins(store) == []


def test_a_teacher_that_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(InputError, match="has no teacher 'gone'; it has none"):
        run(recipe(teacher="gone"), store, device="cpu")


def test_one_model_is_trained_on_a_view_and_measured(store: Store) -> None:
    give_labels(store, "t0", 2)
    selection = plstore.Selection(
        view="all", teachers=["t0@2"], balance=plstore.Balance(min_confidence=0.0)
    )
    plstore.select(store, selection)
    view = open_view(store, "all")
    trained = train_on_view(view, recipe(), teacher_id="pupil", device="cpu")
    again = train_on_view(view, recipe(), teacher_id="pupil", device="cpu")
    found = evaluate(store, "pupil", splits=["test", "validation"], device="cpu")
    kept = store.table("runs").read().to_pylist()

    assert (trained.role, trained.iteration, trained.view) == ("student", 2, "all")
    assert again.checkpoint_hash == trained.checkpoint_hash
    assert find_teacher(store, "pupil") is not None
    assert [row["split"] for row in found] == ["test", "validation"]
    assert found[0]["top5_accuracy"] == 100
    assert {row["name"] for row in kept if row["run"] == "pupil"} >= {
        "test_nll",
        "validation_accuracy",
    }
    with pytest.raises(InputError, match="has another teacher named 'pupil'"):
        train_on_view(view, recipe(seed=1), teacher_id="pupil", device="cpu")


def test_labels_alone_cannot_be_measured(store: Store) -> None:
    name = predictions(store)
    with pytest.raises(InputError, match="has labels and no model"):
        evaluate(store, name, device="cpu")


def test_a_student_that_no_label_is_left_for_is_told_with_the_floor(store: Store) -> None:
    none = recipe(select={"min_confidence": 0.999})
    with pytest.raises(InputError) as told:
        run(none, store, device="cpu")

    assert "no pseudo-label is left for student 1: of 60 unlabeled images none" in str(
        told.value
    )
    assert "Lower the floor, 0.999 (--set select.min_confidence=0)" in str(told.value)


def test_a_teacher_is_said_with_as_many_images_as_it_sees() -> None:
    lines = iteration_lines(recipe(train={**TRAIN, "labeled_batch": 4, "ratio": 3}))

    assert "3 steps of 16 labeled images" in lines[0]
    assert "3 steps of 4 labeled and 12 pseudo-labeled images" in lines[-1]
