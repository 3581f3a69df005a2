"""Probes: embeddings once, a regression on them, a model that anyone can load."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import trainers
from plstore.embeddings import EmbeddingSet, embedding_sets, read_embeddings
from plstore.errors import InputError, RecipeError
from plstore.labels import find_teacher
from plstore.loaders import clean_batches, open_split
from plstore.store import Store
from trainers.evaluation.evaluate import evaluate
from trainers.events import Event, Note
from trainers.features.embedding import embed, open_backbone
from trainers.inference.clean import probabilities
from trainers.models.model import EMBEDDINGS, load_teacher
from trainers.recipe import Recipe, check_recipe
from trainers.result import result_rows


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "test_resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


def recipe(weights: Path, **changes: dict[str, object]) -> Recipe:
    values: dict[str, dict[str, object]] = {
        "data": {"source": "store"},
        "model": {"architecture": "test_resnet", "resolution": 32, "weights": str(weights)},
        "method": {"teacher": "probe", "students": "probe"},
        "train": {"steps": 4, "labeled_batch": 4, "threads": 1},
        "select": {"policy": "none", "min_confidence": 0.2},
    }
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return check_recipe({"name": "probing", "iterations": 1, **values}, "test")


def test_a_backbone_is_asked_once_for_each_image(store: Store, weights: Path) -> None:
    backbone = open_backbone(recipe(weights).model, "test_resnet")

    first = embed(store, backbone)
    again = embed(store, backbone)

    assert first == {"labeled": 12, "validation": 6, "unlabeled": 60, "test": 6}
    assert set(again.values()) == {0}
    assert sum(embedding_sets(store).values()) == 84


def test_embeddings_are_the_features_before_the_classifier(store: Store, weights: Path) -> None:
    backbone = open_backbone(recipe(weights).model, "test_resnet")
    embed(store, backbone, splits=["test"])
    images = open_split(store, "test")
    network = timm.create_model(
        "test_resnet", num_classes=0, pretrained=True, pretrained_cfg_overlay={"file": weights}
    ).eval()

    (batch,) = read_embeddings(store, EmbeddingSet(model=backbone.name, split="test"))

    (seen,) = clean_batches(images, backbone.format, backend="torch")
    expected = network(backbone.format.normalise(seen.images)).detach().numpy()
    assert np.abs(batch.vectors - expected).max() < 2**-9 * np.abs(expected).max()


def test_a_run_of_probes_leaves_models_that_say_what_they_said(
    store: Store, weights: Path
) -> None:
    notes: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    result = trainers.run(recipe(weights), store, device="cpu", on_event=listen)

    student = find_teacher(store, result["students"][0]["teacher_id"])
    assert student is not None
    assert student.metrics is not None
    bundle = load_teacher(store, student, device="cpu")
    images = open_split(store, "test")
    by_network = torch.cat([p for _, p in probabilities(bundle, images, device="cpu")])
    (vectors,) = read_embeddings(
        store, EmbeddingSet(model=str(student.metrics[EMBEDDINGS]), split="test")
    )
    by_embeddings = bundle.head().probabilities(vectors.vectors)
    assert np.abs(by_network.numpy() - by_embeddings).max() < 5e-3
    assert [m["how"] for m in (result["teacher"], *result["students"])] == ["probe"] * 2
    assert result["control"]["test_accuracy"] == result["teacher"]["test_accuracy"]
    assert result["best"] in {m["teacher_id"] for m in (result["teacher"], *result["students"])}
    assert any("validation accuracy of the teacher" in note for note in notes)
    (measured,) = evaluate(store, student.teacher_id, splits=["test"], device="cpu")
    accuracy = result["students"][0]["test_accuracy"]
    assert measured["accuracy"] == pytest.approx(accuracy)  # summed in another order


def test_a_probe_cannot_be_noised(store: Store, weights: Path) -> None:
    noised = recipe(weights, noise={"teacher": ["augment"]})

    with pytest.raises(InputError, match=r"is a probe, .*; noise\.teacher is for one that is"):
        trainers.run(noised, store, device="cpu")


def test_a_frozen_teacher_teaches_a_small_student_from_scratch(
    store: Store, weights: Path
) -> None:
    mixed = recipe(
        weights,
        method={"students": "scratch"},
        iteration={"1": {"model": {"architecture": "test_efficientnet", "resolution": 24}}},
    )

    result = trainers.run(mixed, store, device="cpu")

    student = find_teacher(store, result["students"][0]["teacher_id"])
    assert student is not None
    assert student.preprocessing is not None
    assert [result["teacher"]["how"], result["students"][0]["how"]] == ["probe", "scratch"]
    assert (student.architecture, student.preprocessing["size"]) == ("test_efficientnet", 24)


def test_a_probe_without_weights_is_refused() -> None:
    with pytest.raises(RecipeError, match="probe starts from weights"):
        check_recipe({"name": "x", "method": {"teacher": "probe"}}, "test")


def test_random_features_are_no_embeddings() -> None:
    model = recipe(Path("x")).model.model_copy(update={"weights": None})

    with pytest.raises(InputError, match="random weights"):
        open_backbone(model, "test_resnet")


def test_several_first_teachers_are_fused(store: Store, weights: Path) -> None:
    second = weights.with_name("test_efficientnet.safetensors")
    torch.manual_seed(1)
    save_file(timm.create_model("test_efficientnet").state_dict(), second)
    also = [{"architecture": "test_efficientnet", "weights": str(second), "resolution": 24}]
    asked = recipe(weights, model={"also": also}, fuse={"weights": "fitted"})

    result = trainers.run(asked, store, device="cpu")

    (other,) = result["more_teachers"]
    fused = find_teacher(store, result["students"][0]["taught_by"])
    assert (result["teacher"]["architecture"], other["architecture"]) == (
        "test_resnet",
        "test_efficientnet",
    )
    assert other["test_accuracy"] is not None
    assert fused is not None
    assert fused.members is not None
    assert {m["teacher_id"] for m in fused.members["members"]} == {
        result["teacher"]["teacher_id"],
        other["teacher_id"],
    }
    assert len(result_rows(result)) == 4


WEIGHTED = """-- Everything.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar: the teacher
-- column sample_id bigint: the image
select sample_id, class_id, confidence, 'kept' as outcome, 1 as copies, {weight} as weight
from soft_labels where teacher_id = $teacher_id and split = 'unlabeled'
"""


def test_a_weight_is_a_share_of_what_an_image_counts_for(
    store: Store, weights: Path, tmp_path: Path
) -> None:
    heads = []
    for weight, ratio in (("1.0", 1), ("0.25", 4), ("0.25", 1)):
        own = tmp_path / "own.sql"
        own.write_text(WEIGHTED.format(weight=weight))
        chosen = recipe(
            weights,
            select={"query": str(own), "policy": "exact", "min_confidence": 0.3},
            method={"ratio": ratio},
        )
        result = trainers.run(chosen, store, device="cpu")
        student = find_teacher(store, result["students"][0]["teacher_id"])
        assert student is not None
        heads.append(
            load_teacher(store, student, device="cpu").network.state_dict()["fc.weight"]
        )

    torch.testing.assert_close(heads[0], heads[1])
    assert not torch.allclose(heads[0], heads[2], rtol=1e-3, atol=1e-3)
