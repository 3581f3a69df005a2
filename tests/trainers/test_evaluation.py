"""A step reads what its run pinned, with the backend of its recipe."""

from pathlib import Path

import numpy as np
import pytest
import torch

from plstore.exchange import parquet_folder
from plstore.labels import TeacherRecord, add_teacher
from plstore.loaders import ImageFormat, ImageSet, open_split
from plstore.store import Store
from plstore.upkeep import correct
from tests.conftest import CLASS_NAMES
from tests.trainers.given import record_backends
from trainers.context import Context, Outputs
from trainers.data import sample_folder
from trainers.events import Teller, unheard
from trainers.model import build_model, fetch_bundle, keep_bundle, load_bundle
from trainers.recipe import check_recipe
from trainers.sections import Model
from trainers.steps.evaluating import Evaluate
from trainers.steps.labeling import Label


@pytest.fixture
def trained(store: Store) -> Outputs:
    torch.manual_seed(0)
    settings = Model(architecture="test_resnet", resolution=16, stochastic_depth=0)
    network = build_model(settings, "test_resnet", len(CLASS_NAMES))
    name, digest = keep_bundle(store, "t0", network, ImageFormat(size=16), CLASS_NAMES)
    record = TeacherRecord(
        teacher_id="t0",
        iteration=0,
        role="teacher",
        checkpoint=name,
        checkpoint_hash=digest,
    )
    add_teacher(store, record, identity="t0", step="train")
    return {"teacher_id": "t0", "checkpoint": name, "checkpoint_hash": digest}


def run_of(store: Store, backend: str = "auto") -> Context:
    recipe = check_recipe({"name": "tiny", "train": {"backend": backend}}, "test")
    source = parquet_folder(sample_folder(), dataset="sample")
    return Context(
        recipe=recipe, source=source, store=store, device="cpu", teller=Teller(unheard)
    )


def imported(store: Store) -> Outputs:
    return {"images_version": store.table("images").version()}


def predicted(store: Store, trained: Outputs, images: ImageSet) -> dict[int, str]:
    folder = fetch_bundle(store, trained["checkpoint"], trained["checkpoint_hash"])
    bundle = load_bundle(folder)
    from trainers.inference import probabilities

    (found,) = probabilities(bundle, images, device="cpu")
    classes = found[1].argmax(dim=1).tolist()
    return {i: CLASS_NAMES[c] for i, c in zip(images.sample_ids.tolist(), classes, strict=True)}


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
