"""The experiment on selections: what it sums up, skips, and does not do twice."""

import json
from pathlib import Path
from typing import Any

import pytest

import plstore
from benchmarks.choosing import DEFAULT, QUERIES, Choosing, Line, measurements, summary
from plstore.images import import_images
from plstore.report.progress import Display
from tests.conftest import CLASS_NAMES, give_embeddings, make_records
from trainers.recipe import load_recipe

TINY: dict[str, dict[str, object]] = {
    "data": {"source": "store"},
    "model": {"architecture": "test_resnet", "resolution": 16, "stochastic_depth": 0},
    "train": {"steps": 2, "labeled_batch": 4, "threads": 1},
}


def line(seed: int, selection: str, accuracy: float, **values: Any) -> Line:  # noqa: ANN401  of a line
    known = {"kept": 10, "pseudo_label_accuracy": 80.0}
    return {"seed": seed, "selection": selection, "accuracy": accuracy, **known, **values}


def test_differences_are_between_students_of_one_seed() -> None:
    lines = [line(0, DEFAULT, 70.0), line(1, DEFAULT, 80.0)]
    lines += [line(0, "none", 71.0, kept=20), line(1, "none", 84.0)]
    lines += [line(1, "diverse", 79.0, pseudo_label_accuracy=None)]
    default, none, diverse = summary(lines)

    assert (default["mean"], default["deviation"], default["difference"]) == (75, 7.07, 0)
    assert (none["mean"], none["difference"], none["difference_deviation"]) == (77.5, 2.5, 2.12)
    assert (none["kept"], none["pseudo_label_accuracy"]) == (15, 80)
    assert (diverse["seeds"], diverse["difference"], diverse["deviation"]) == (1, -1, None)
    assert diverse["pseudo_label_accuracy"] is None
    assert len(measurements(lines)) == 5 + 4 + 4 + 2


def test_a_selection_keeps_what_does_not_decide() -> None:
    settings = ["select.held_out=true", "select.min_confidence=0.5", "select.max_side=64"]
    recipe = load_recipe("fashion_mnist", settings)
    choosing = Choosing(recipe=recipe, home=Path("nowhere"), model="net")
    near, soft, none = (choosing.select(n) for n in ("near_labeled", "soft_weight", "none"))

    assert choosing.select(DEFAULT) == recipe.select
    assert (near.query, near.min_confidence) == ("selection/near_labeled", 0.5)
    assert (near.parameters, soft.parameters) == ({"model": "net"}, {})
    assert (soft.min_confidence, soft.images_per_class) == (0.3, None)
    assert (none.policy, none.min_confidence) == ("none", 0)
    assert all(s.held_out and s.max_side == 64 for s in (near, soft, none))


@pytest.mark.nightly
def test_two_selections_that_are_the_same_are_one_student_and_two_lines(tmp_path: Path) -> None:
    store = plstore.create(tmp_path / "seed-0" / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    settings = ["iterations=1", "control=false", "select.min_confidence=0.0"]
    recipe = load_recipe("images", [*settings, "select.policy=none"], TINY)
    own, none, *_ = Choosing(recipe=recipe, home=tmp_path).run([0], Display())

    assert (own["selection"], none["selection"]) == (DEFAULT, "none")
    assert own["identity"] == none["identity"]
    assert own["accuracy"] == none["accuracy"]


@pytest.mark.nightly
def test_what_is_done_is_not_done_again_and_what_was_left_out_comes_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = plstore.create(tmp_path / "seed-0" / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    settings = ["iterations=1", "control=false", "select.min_confidence=0.0"]
    choosing = Choosing(recipe=load_recipe("images", settings, TINY), home=tmp_path)
    first = choosing.run([0], Display())
    told = capsys.readouterr().err
    versions = store.versions()
    again = choosing.run([0], Display())

    assert [x["selection"] for x in first] == [DEFAULT, "none", "adaptive_floor", "soft_weight"]
    assert all(told.count(f"{name} left out") == 1 for name in QUERIES[2:])
    assert (again, store.versions()) == (first, versions)
    assert len({x["teacher_accuracy"] for x in first}) == 1
    roles = store.table("teachers").read(columns=["role"])["role"].to_pylist()
    assert sorted(roles) == ["student"] * 4 + ["teacher"]

    give_embeddings(store)
    whole = choosing.run([0], Display())
    lines = (tmp_path / "results.jsonl").read_text().splitlines()

    assert whole[:4] == first
    assert [json.loads(text) for text in lines] == whole
    assert [x["selection"] for x in whole[4:]] == list(QUERIES[2:])
