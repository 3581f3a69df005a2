"""A model card says what the store says."""

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import plstore
from plstore.store import Store
from plstore.upkeep import correct
from tests.cli.shell import shell
from tests.conftest import CLASS_NAMES, give_labels
from tests.trainers.exported import give_model
from trainers import evaluate
from trainers.evaluation.intervals import wilson
from trainers.exporting import export_model
from trainers.exporting.measured import measured

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": {"architecture": "test_resnet", "dropout": 0.0},
    "train": {"steps": 40, "labeled_batch": 4, "ratio": 3},
    "noise": {"labeled": ["flip", "crop"]},
    "select": {"min_confidence": 0.4},
}


@pytest.fixture
def student(store: Store) -> str:
    give_model(store, "t0", view="labeled", view_version=1)
    give_labels(store, "t0", 1)
    balance = plstore.Balance(min_confidence=0.4, images_per_class=7)
    plstore.select(store, plstore.Selection(view="v", teachers=["a=t0@1"], balance=balance))
    give_model(
        store,
        "t1",
        role="student",
        iteration=1,
        view="v",
        view_version=1,
        recipe=RECIPE,
        recipe_hash="f00d",
        seed=5,
        code_version="0.6.0",
    )
    return "t1"


def tables(text: str, section: str) -> list[dict[str, str]]:
    """Return the rows of the table of a section."""
    (body,) = re.findall(rf"## {section}\n(.*?)(?=\n## |\Z)", text, re.DOTALL)
    lines = [line.strip("| ").split(" | ") for line in body.splitlines() if line[:1] == "|"]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_its_numbers_are_those_of_the_store(store: Store, student: str, tmp_path: Path) -> None:
    rows = evaluate(store, student, splits=["validation", "test"], device="cpu")
    found = {row["split"]: row for row in rows}
    done = export_model(store, student, tmp_path / "out", data_licence="CC BY 4.0")
    text = (done.folder / "README.md").read_text()
    sql = (
        "select dataset, split, count(*) as images from images where verdict = 'accepted' "
        "group by all"
    )
    known = plstore.run_sql(store, sql).to_pylist()
    counts = {(row["dataset"], row["split"]): row["images"] for row in known}
    said = {row["split"]: row for row in tables(text, "Accuracy")}
    view = plstore.open_view(store, "v").record

    assert {
        (row["dataset"], row["split"]): int(row["images"]) for row in tables(text, "Data")
    } == counts
    assert set(said) == {"validation", "test"}
    for split, row in said.items():
        right, images = int(row["right"]), found[split]["num_images"]
        low, high = wilson(right, images)
        assert images == counts["pets", split]
        assert right / images == pytest.approx(found[split]["accuracy"] / 100)
        assert row["images"] == str(images)
        assert row["accuracy, %"] == f"{found[split]['accuracy']:.2f}"
        assert row["95 % interval (Wilson), %"] == f"{low:.2f} to {high:.2f}"
        ends = (found[split]["low"], found[split]["high"])
        assert ends == pytest.approx((low, high), abs=1e-3)  # another way to the same interval
    assert (
        f"view v@1: {view.num_labeled} labeled and {view.counts['kept']} pseudo-labeled "
        f"images, {view.num_draws} draws"
    ) in text
    assert f"Classes (3): {', '.join(CLASS_NAMES)}." in text
    assert "## Licence of the data\n\nCC BY 4.0\n" in text
    (front,) = ModelCard(text).data.to_dict()["model-index"]  # type: ignore[no-untyped-call]
    measures = {one["dataset"]["split"]: one["metrics"][0]["value"] for one in front["results"]}
    assert front["name"] == "t1"
    assert measures == {split: values["accuracy"] for split, values in found.items()}


def test_its_lineage_goes_back_to_the_first_teacher(
    store: Store, student: str, tmp_path: Path
) -> None:
    export_model(store, student, tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    own, first = tables(text, "Lineage")
    recipe = {row["setting"]: row["value"] for row in tables(text, "Recipe")}
    record = plstore.find_teacher(store, student)
    assert record is not None

    assert (own["model"], own["role"], own["trained on"], own["labels of"]) == (
        *("t1", "student", "v@1", "t0@1"),
    )
    assert (own["recipe"], own["seed"], own["plstore"]) == ("f00d", "5", "0.6.0")
    assert own["weights"] == record.checkpoint_hash
    assert (first["model"], first["role"], first["labels of"]) == ("t0", "teacher", "not known")
    assert recipe == {
        "recipe": "tiny",
        "optimizer steps": "40",
        "labeled images a step": "4",
        "pseudo-labeled images for each labeled one": "3",
        "noise on labeled images": "flip, crop",
        "floor of confidence": "0.4",
    }
    assert "## Accuracy\n\nNot measured: `plstore evaluate` does.\n" in text
    assert "## Licence of the data\n\nnot stated\n" in text
    assert "mistakes that its teacher makes often" in text


def test_its_lineage_has_the_network_that_it_started_from(store: Store, tmp_path: Path) -> None:
    give_model(store, "pre-1", role="pretrained")
    give_model(store, "s", metrics={"started_from": "pre-1"})
    export_model(store, "s", tmp_path / "out")
    rows = tables((tmp_path / "out/README.md").read_text(), "Lineage")

    assert [(row["model"], row["role"], row["labels of"]) for row in rows][1:] == [
        ("pre-1", "pretrained", "no one"),
    ]


def test_a_fusion_that_taught_is_followed_to_its_members(store: Store, tmp_path: Path) -> None:
    for name in ("a", "b"):
        give_model(store, name)
        give_labels(store, name, 1)
    plstore.fuse(store, "both", ["a@1", "b@1"])
    plstore.select(
        store, plstore.Selection(view="v", teachers=["both"], query="selection/soft_weight")
    )
    give_model(store, "s", role="student", iteration=1, view="v", view_version=1)
    export_model(store, "s", tmp_path / "out")
    rows = tables((tmp_path / "out/README.md").read_text(), "Lineage")

    assert [(row["model"], row["labels of"]) for row in rows] == [
        ("s", "both@1"),
        ("both", "a@1, b@1"),
        ("a", "not known"),
        ("b", "not known"),
    ]


def test_the_accuracy_is_the_last_that_was_measured(store: Store) -> None:
    give_model(store)
    sql = "select sample_id from images where split = 'test'"
    test = plstore.run_sql(store, sql)["sample_id"].to_pylist()
    values = []
    for name in CLASS_NAMES:
        correct(store, dict.fromkeys(test, name), who="ann")
        (row,) = evaluate(store, "t0", splits=["test"], device="cpu")
        values.append(row["accuracy"])
        (found,) = measured(store, "t0")
        assert found.accuracy == values[-1]
        assert found.num_right == round(values[-1] * 6 / 100)
    plstore.compact(store)

    assert len(set(values)) > 1
    assert [m.accuracy for m in measured(store, "t0")] == values[-1:]


def test_an_accuracy_on_other_images_has_no_interval(store: Store) -> None:
    give_model(store)
    rows = [{"run": "t0", "step": 0, "name": "test_accuracy", "value": 100 / 7}]
    store.append("runs", rows, identity="x", step="evaluate")
    (found,) = measured(store, "t0")

    assert (found.accuracy, found.num_images, found.interval) == (100 / 7, None, None)


def test_a_card_of_a_model_that_was_brought(store: Store, tmp_path: Path) -> None:
    give_model(store, "t0")
    brought = ("label", "--teacher", "mine", "--checkpoint", store.root / "checkpoints/t0")
    done = shell(*brought, "--splits", "test", "--store", store.root)
    assert done.returncode == 0, done.stderr
    export_model(store, "mine", tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()

    assert "None is recorded: the model was brought, not trained here." in text
    assert tables(text, "Lineage")[0]["labels of"] == "not known"
