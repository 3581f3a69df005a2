"""Files that went since the last import: a run goes on, and says what became of them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange import image_folders, import_source
from plstore.query import run_sql
from plstore.store import Store
from plstore.upkeep import exclude
from tests.exchange.test_growing import add
from trainers.evaluation.evaluate import evaluate
from trainers.events import Event, Note, StepFinished
from trainers.labeling.label import Labeling, label
from trainers.loop import run
from trainers.recipe import Recipe, check_recipe


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        add(tmp_path / "labeled" / name, range(8))
        add(tmp_path / "test" / name, range(20, 24))
    add(tmp_path / "all", range(12))
    return tmp_path


def recipe(home: Path, *, of_store: bool = False, **changes: Any) -> Recipe:  # noqa: ANN401  values of a recipe
    folders = {"labeled": "labeled", "unlabeled": "all", "test": "test"}
    data = {"source": "folders", "dataset": "images"}
    data |= {name: str(home / path) for name, path in folders.items()}
    values = {
        "name": "tiny",
        "iterations": 1,
        "control": False,
        "data": {"source": "store"} if of_store else data,
        "model": {"architecture": "test_resnet", "resolution": 16},
        "train": {"steps": 3, "labeled_batch": 2, "threads": 1},
        "select": {"min_confidence": 0.0, "policy": "none"},
    }
    return check_recipe({**values, **changes}, "test")


def in_place(home: Path) -> Store:
    source = image_folders(labeled=home / "labeled", unlabeled=home / "all", test=home / "test")
    store = plstore.create(home / "store")
    import_source(store, source, in_place=True)
    return store


def do(recipe: Recipe, store: Store) -> tuple[dict[str, Any], str, list[str]]:
    """Return the result of a run, what it said, and the steps that it did anew."""
    events: list[Event] = []
    result = run(recipe, store, device="cpu", on_event=events.append)
    said = "\n".join(event.text for event in events if isinstance(event, Note))
    steps = [e.name for e in events if isinstance(e, StepFinished) and e.is_new]
    return result, said, steps


def test_images_with_bytes_that_left_the_folders_stay_and_are_named(home: Path) -> None:
    store = plstore.create(home / "store")
    first, _, _ = do(recipe(home), store)
    (home / "all/003.png").unlink()
    (home / "labeled/cat/001.png").unlink()
    second, said, _ = do(recipe(home), store)
    _, _, again = do(recipe(home), store)

    assert first["imported"]["not_in_folders"] == 0
    assert second["imported"]["not_in_folders"] == 2
    assert second["imported"]["splits"] == first["imported"]["splits"]
    assert second["students"][0]["images"] == 12
    assert second["students"][0]["test_accuracy"] == first["students"][0]["test_accuracy"]
    ids = run_sql(
        store,
        "select string_agg(sample_id, ',' order by sample_id) as ids from images "
        "where key in ('unlabeled/003.png', 'labeled/cat/001.png')",
    )["ids"][0].as_py()
    assert (
        "no longer in the folders, kept as the store has them: 2; first: labeled/cat/001.png "
        f"(plstore exclude --ids {ids} leaves them out)"
    ) in said
    assert again == []
    exclude(store, [int(number) for number in ids.split(",")], reason="gone", who="ann")
    add(home / "all", range(30, 31))
    third, said, _ = do(recipe(home), store)
    assert "no longer in the folders" not in said
    assert third["students"][0]["counts"]["dropped"] == {"excluded": 1}


@pytest.mark.parametrize("of_store", [False, True])
def test_images_in_place_that_lost_their_files_are_left_out_of_all(
    home: Path, of_store: bool
) -> None:
    store = in_place(home)
    do(recipe(home, of_store=of_store), store)
    kept = {}
    for path in ("all/003.png", "labeled/cat/001.png", "test/dog/021.png"):
        kept[path] = (home / path).read_bytes()
        (home / path).unlink()
    result, said, steps = do(recipe(home, of_store=of_store), store)
    _, _, again = do(recipe(home, of_store=of_store), store)

    assert f"file is gone: 3; first: {home}/labeled/cat/001.png; left out until" in said
    assert result["imported"]["verdicts"] == {"accepted": 33, "file_gone": 3}
    assert result["students"][0]["counts"]["in"] == 12
    assert result["students"][0]["counts"]["dropped"] == {"file_gone": 1}
    assert result["students"][0]["images"] == 11
    assert {"import", "label-1", "select-1", "evaluate-1"} <= set(steps)
    assert again == []

    for path, data in kept.items():
        (home / path).write_bytes(data)
    back, said, _ = do(recipe(home, of_store=of_store), store)
    assert "gone" not in said
    assert store.count_images("unlabeled") == 12
    assert back["students"][0]["images"] == 12
    assert back["students"][0]["counts"]["dropped"] == {}


def test_labeling_and_evaluation_go_on_without_them(home: Path) -> None:
    store = in_place(home)
    result, _, _ = do(recipe(home, of_store=True), store)
    teacher = result["students"][0]["teacher_id"]
    for path in ("all/003.png", "test/dog/021.png"):
        (home / path).unlink()
    notes: list[Event] = []
    counts = label(
        store, Labeling(teacher_id=teacher, iteration=7, device="cpu"), on_event=notes.append
    )
    found = evaluate(store, teacher, splits=["test"], device="cpu")

    assert counts["unlabeled"] == 11
    assert any(isinstance(n, Note) and "file is gone: 2" in n.text for n in notes)
    assert [row["num_images"] for row in found] == [7]


@pytest.mark.parametrize("folder", ["all", "labeled/dog", "test"])
def test_folders_that_are_others_altogether_are_refused(home: Path, folder: str) -> None:
    store = plstore.create(home / "store")
    changed = recipe(home)
    do(changed, store)
    shutil.rmtree(home / folder)
    if folder == "test":
        add(home / "test" / "cat", range(30, 32))
        add(home / "test" / "dog", range(30, 32))
    elif folder == "all":
        add(home / "all", range(30, 32))
    else:
        add(home / "labeled" / "heron", range(30, 40))
        shutil.rmtree(home / "test" / "dog")
        add(home / "test" / "heron", range(30, 32))

    with pytest.raises(InputError, match=r"none of them is in the folders now.* --store; else"):
        do(changed, store)


def test_a_limit_is_kept_to_though_a_file_went(home: Path) -> None:
    data = {**recipe(home).data.model_dump(exclude_none=True), "limit_unlabeled": 6}
    store = plstore.create(home / "store")
    do(recipe(home, data=data), store)
    (home / "all/003.png").unlink()
    result, said, _ = do(recipe(home, data=data), store)

    assert "no longer in the folders, kept as the store has them: 1;" in said
    assert result["imported"]["splits"]["unlabeled"] == 7
    with pytest.raises(InputError, match="this recipe's data does not name"):
        do(recipe(home, data={**data, "limit_unlabeled": 5}), store)
