"""What models are worth: by the labels that they give; a step reads what its run pinned."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torchmetrics.functional.classification import multiclass_calibration_error

from plstore.codec import Codec
from plstore.errors import InputError
from plstore.exchange import import_predictions, parquet_folder
from plstore.loaders import ImageSet, open_split
from plstore.store import Store
from plstore.upkeep import correct
from tests.conftest import CLASS_NAMES
from tests.trainers.given import add_model, record_backends
from trainers.context import Context, Outputs
from trainers.data import sample_folder
from trainers.evaluation.evaluate import agreement, evaluate
from trainers.events import Event, Note, Teller, unheard
from trainers.inference.clean import probabilities
from trainers.labeling.label import Labeling, label
from trainers.models.model import fetch_bundle, load_bundle
from trainers.recipe import check_recipe
from trainers.steps.evaluating import Evaluate
from trainers.steps.labeling import Label


@pytest.fixture
def trained(store: Store) -> Outputs:
    return add_model(store, "t0", iteration=0, seed=0)


def run_of(store: Store, backend: str = "auto") -> Context:
    recipe = check_recipe({"name": "tiny", "train": {"backend": backend}}, "test")
    source = parquet_folder(sample_folder(), dataset="sample")
    return Context(
        recipe=recipe, source=source, store=store, device="cpu", teller=Teller(unheard)
    )


def imported(store: Store) -> Outputs:
    return {"images_version": store.table("images").version()}


def said(store: Store, trained: Outputs, images: ImageSet) -> torch.Tensor:
    folder = fetch_bundle(store, trained["checkpoint"], trained["checkpoint_hash"])
    ((_, probs),) = probabilities(load_bundle(folder), images, device="cpu")
    return probs


def predicted(store: Store, trained: Outputs, images: ImageSet) -> dict[int, str]:
    classes = said(store, trained, images).argmax(dim=1).tolist()
    return {i: CLASS_NAMES[c] for i, c in zip(images.sample_ids.tolist(), classes, strict=True)}


def test_metrics_of_labels_are_those_of_the_model(store: Store, trained: Outputs) -> None:
    images = open_split(store, "test")
    correct(store, {int(images.sample_ids[0]): "owl"}, who="me")
    images = open_split(store, "test")
    truth = torch.from_numpy(images.class_ids.astype(np.int64))
    probs = said(store, trained, images).double()
    right = int((probs.argmax(1) == truth).sum())
    low, high = binomtest(right, len(truth)).proportion_ci(method="wilson")

    (found,) = evaluate(store, "t0", splits=["test"], device="cpu")

    wanted = {
        "accuracy": 100 * float((probs.argmax(1) == truth).double().mean()),
        "low": 100 * low,
        "high": 100 * high,
        "top5_accuracy": 100.0,
        "nll": float(torch.nn.functional.nll_loss(probs.log(), truth)),
        "brier": float(((probs - torch.eye(3)[truth]) ** 2).sum(1).mean()),
        "ece": float(multiclass_calibration_error(probs, truth, num_classes=3, n_bins=15)),
        "mean_confidence": float(probs.max(1).values.mean()),
    }
    assert truth[0] == CLASS_NAMES.index("owl")
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=2e-3)
    assert (found["split"], found["iteration"], found["num_images"]) == ("test", 1, 6)
    kept = {
        row["name"]: row["value"]
        for row in store.table("runs").read().to_pylist()
        if row["run"] == "t0"
    }
    assert kept == {
        f"test_{name}": found[name] for name in wanted if name not in {"low", "high"}
    }


def test_a_second_evaluation_looks_at_no_image(store: Store, trained: Outputs) -> None:
    second = add_model(store, "t1", iteration=1, seed=1)
    first = evaluate(store, ["t0", "t1"], device="cpu")
    versions = store.versions()
    again = evaluate(store, ["t0", "t1"], device="cpu")
    (alike,) = agreement(store, ["t0", "t1"], "test")
    images = open_split(store, "test")
    ours = said(store, trained, images).argmax(1)
    theirs = said(store, second, images).argmax(1)

    assert again == first
    assert store.versions() == versions
    assert [(row["teacher_id"], row["split"]) for row in first] == [
        ("t0", "validation"),
        ("t1", "validation"),
        ("t0", "test"),
        ("t1", "test"),
    ]
    assert (alike["teacher_a"], alike["teacher_b"]) == ("t0", "t1")
    assert alike["same_top1"] == float((ours == theirs).double().mean())
    assert alike["mean_kl"] > 0


def test_labels_are_measured_without_a_model(store: Store, tmp_path: Path) -> None:
    ids = open_split(store, "test").sample_ids
    np.save(tmp_path / "ids.npy", ids)
    np.save(tmp_path / "probs.npy", np.array([[0.5, 0.25, 0.25]] * len(ids), np.float32))
    import_predictions(
        store, tmp_path / "probs.npy", ids=tmp_path / "ids.npy", teacher_id="clip"
    )

    (found,) = evaluate(store, "clip", splits=["test"])
    assert found["mean_confidence"] == 0.5
    assert found["accuracy"] == 100 * float((open_split(store, "test").class_ids == 0).mean())
    with pytest.raises(InputError, match="none of them are of validation images"):
        evaluate(store, "clip", splits=["validation"])


def test_labels_of_another_temperature_are_those_that_are_measured(
    store: Store, trained: Outputs
) -> None:
    label(store, Labeling(teacher_id="t0", splits=["test"], temperature=4.0, device="cpu"))
    images = open_split(store, "test")
    probs = torch.softmax(said(store, trained, images).double().log() / 4, dim=1)

    events: list[Event] = []
    (found,) = evaluate(store, "t0", splits=["test"], device="cpu", on_event=events.append)
    said_of = [event.text for event in events if isinstance(event, Note)]
    assert any("labels of t0 have temperature 4.0" in text for text in said_of)
    assert found["mean_confidence"] == pytest.approx(
        float(probs.max(1).values.mean()), rel=1e-3
    )


def test_labels_of_one_class_tell_no_likelihood(store: Store, trained: Outputs) -> None:
    hard = Labeling(teacher_id="t0", splits=["test"], codec=Codec(name="hard"), device="cpu")
    label(store, hard)

    (found,) = evaluate(store, trained["teacher_id"], splits=["test"], device="cpu")
    assert (found["top5_accuracy"], found["nll"], found["brier"]) == (None, None, None)
    assert found["accuracy"] is not None
    names = {row["name"] for row in store.table("runs").read().to_pylist()}
    assert names == {"test_accuracy", "test_ece", "test_mean_confidence"}


def test_labels_alone_are_compared_too(store: Store, trained: Outputs, tmp_path: Path) -> None:
    ids = open_split(store, "test").sample_ids
    np.save(tmp_path / "ids.npy", ids)
    np.save(tmp_path / "probs.npy", np.array([[0.5, 0.25, 0.25]] * len(ids), np.float32))
    import_predictions(
        store, tmp_path / "probs.npy", ids=tmp_path / "ids.npy", teacher_id="clip"
    )
    both = [trained["teacher_id"], "clip"]
    evaluate(store, both, splits=["test"], device="cpu")
    assert len(agreement(store, both, "test")) == 1


@pytest.mark.parametrize(
    ("teacher", "split", "words"),
    [
        ("gone", "test", "has no teacher 'gone'; there are t0"),
        ("t0", "unlabeled", "split is 'unlabeled'; wanted labeled, validation or test"),
        ("t0", "tset", "split is 'tset'"),
    ],
)
def test_what_cannot_be_measured_is_said(
    store: Store, trained: Outputs, teacher: str, split: str, words: str
) -> None:
    assert trained["teacher_id"] == "t0"
    with pytest.raises(InputError, match=words):
        evaluate(store, teacher, splits=[split], device="cpu")  # type: ignore[list-item]  # that is it


def test_evaluation_reads_the_corrections_that_its_run_pinned(
    store: Store, trained: Outputs
) -> None:
    run = run_of(store)
    needs = [imported(store), trained]
    assert run.decisions["corrections"] == 0
    before = Evaluate(name="evaluate-1", iteration=1, key="a").do(run, needs)
    correct(store, predicted(store, trained, open_split(store, "test")), who="me")
    again = Evaluate(name="evaluate-1", iteration=1, key="b").do(run, needs)
    later = Evaluate(name="evaluate-1", iteration=1, key="c").do(run_of(store), needs)

    assert before["test_accuracy"] < 100
    assert again == before
    assert later["test_accuracy"] == 100


def test_a_split_is_read_as_of_a_version_of_the_corrections(store: Store) -> None:
    ids = open_split(store, "test").sample_ids.tolist()
    before = open_split(store, "test").class_ids.copy()
    correct(store, dict.fromkeys(ids, "owl"), who="me")

    assert np.array_equal(open_split(store, "test", corrections=0).class_ids, before)
    assert open_split(store, "test", corrections=1).class_ids.tolist() == [2] * len(ids)
    assert open_split(store, "test").class_ids.tolist() == [2] * len(ids)


@pytest.mark.parametrize("backend", ["torch", "dali"])
def test_labels_and_accuracy_come_through_the_backend_of_the_recipe(
    store: Store, trained: Outputs, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    run = run_of(store, backend)
    used = record_backends(monkeypatch)
    needs = [imported(store), trained]
    Label(name="label-1", iteration=1, key="a").do(run, needs)
    Evaluate(name="evaluate-1", iteration=1, key="b").do(run, needs)
    (commit, *_) = store.table("soft_labels").history()

    assert run.backend == backend  # what is imported before a run begins
    assert set(used) == {backend}
    assert len(used) == 4
    assert commit.lineage["backend"] == backend


def test_no_partial_file_is_left_beside_a_split(store: Store) -> None:
    open_split(store, "test")

    assert not [p for p in Path(store.cache_folder()).iterdir() if p.name.startswith(".split")]
