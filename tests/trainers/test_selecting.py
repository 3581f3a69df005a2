"""A run whose students train on what a saved query selects."""

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

import plstore
from plstore.store import Store
from plstore.views import open_view
from tests.conftest import give_embeddings
from trainers.loop import open_run
from trainers.recipe import Recipe, load_recipe

TINY: dict[str, dict[str, object]] = {
    "data": {"source": "store"},
    "model": {"architecture": "test_resnet", "resolution": 16, "stochastic_depth": 0},
    "train": {"steps": 3, "labeled_batch": 4, "threads": 1},
}


def recipe(query: str, *more: str) -> Recipe:
    settings = [f"select.query=selection/{query}", "iterations=1", "control=false", *more]
    return load_recipe("images", settings, TINY)


def keys(store: Store, query: str) -> dict[str, str]:
    return {step.name: step.key for step in open_run(recipe(query), store).steps}


def test_a_run_on_weights_says_so_and_keeps_them(store: Store) -> None:
    said: list[str] = []
    weighted = recipe("soft_weight", "select.parameters.min_weight=0.001")
    result = plstore.run(weighted, store, on_event=lambda event: said.append(str(event)))
    record = open_view(store, "images-1").record

    assert result["students"][0]["counts"]["kept"] == record.num_images - 12
    assert 0 < record.counts["mean_weight"] < 1
    assert record.parameters["min_weight"] == 0.001
    assert any(f"weighs {record.counts['mean_weight']} on average" in line for line in said)


def test_other_embeddings_are_another_selection_where_they_are_read(store: Store) -> None:
    before = {query: keys(store, query) for query in ("diverse", "soft_weight")}
    give_embeddings(store)
    after = {query: keys(store, query) for query in before}
    changed = [n for n, key in after["diverse"].items() if before["diverse"][n] != key]

    assert changed == ["select-1", "train-1", "evaluate-1", "label-best"]
    assert before["soft_weight"] == after["soft_weight"]


def test_a_student_trains_on_what_embeddings_select(store: Store) -> None:
    give_embeddings(store)
    result = plstore.run(recipe("near_labeled", "select.min_confidence=0.0"), store)
    counts = result["students"][0]["counts"]

    assert counts["dropped"]["far"] + counts["kept"] == 60
    assert open_view(store, "images-1").record.pins["embeddings"] == 1


def test_embeddings_that_a_run_makes_itself_do_not_change_its_steps(
    store: Store, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "test_resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    settings = [f"model.weights={path}", "method.teacher=probe", "select.min_confidence=0.0"]
    probed = recipe("in_distribution", *settings)
    before = [step.key for step in open_run(probed, store).steps]
    result = plstore.run(probed, store)

    assert [step.key for step in open_run(probed, store).steps] == before
    assert result["students"][0]["counts"]["kept"] > 0
