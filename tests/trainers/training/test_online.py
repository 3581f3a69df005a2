"""A student that labels itself at each step: FixMatch, as a mode of training."""

from dataclasses import replace

import pytest
import timm
import torch

import plstore
from plstore.errors import PlstoreError, RecipeError
from plstore.loaders import Batch, ComposedAugment, Crop, ImageFormat, Noise
from plstore.selection import Selection
from plstore.store import Store
from tests.conftest import give_labels
from tests.trainers.test_run import TRAIN, recipe
from trainers.loop import run
from trainers.training.online import FLOOR, WEAK, labeled_by_itself
from trainers.training.recording import COUNTED

NOISE = Noise(
    crop=Crop(min_area=0.5), flip=0.5, augment=ComposedAugment(n=2, ops={"rotate": 30.0})
)


@pytest.fixture
def batches(store: Store) -> tuple[Batch, Batch]:
    give_labels(store)
    view = plstore.select(store, Selection(view="v", teachers=["t0"]))
    found = [
        next(
            iter(
                plstore.load(
                    view,
                    labeled_batch=4,
                    pseudo_batch=12,
                    image_format=ImageFormat(size=16),
                    noise=NOISE,
                    pseudo_noise=parts,
                    seed=3,
                    backend="threads",
                )
            )
        )
        for parts in (("crop", "flip", "augment"), WEAK)
    ]
    return found[0], found[1]


def test_it_learns_what_it_is_sure_of_with_weak_noise(batches: tuple[Batch, Batch]) -> None:
    batch, weak = batches
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3).train()
    torch.nn.init.normal_(network.get_classifier().weight, std=3)
    network.layer1.eval()  # as a frozen block is

    def logits_of(images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = network(images.float() / 255)
        return logits

    found = labeled_by_itself(batch, weak, network, logits_of)
    modes = network.training, network.layer1.training, network.layer2.training
    probs = torch.softmax(network.eval()(weak.images.float() / 255), dim=1)

    assert not torch.equal(batch.images[4:], weak.images[4:])
    assert torch.equal(batch.images[:4], weak.images[:4])
    assert torch.equal(found.targets[:4], batch.targets[:4])
    assert torch.equal(found.targets[4:].argmax(1), probs[4:].argmax(1))
    assert torch.equal(found.targets[4:].sum(1), torch.ones(12))
    sure = probs[4:].max(1).values > FLOOR
    assert 0 < int(sure.sum()) < 12
    assert torch.equal(found.weights[4:], sure.float())
    assert torch.equal(found.weights[:4], torch.ones(4))
    assert modes == (True, False, True)


def test_other_images_are_no_weak_view_of_a_batch(batches: tuple[Batch, Batch]) -> None:
    batch, weak = batches
    other = replace(weak, sample_ids=weak.sample_ids.flip(0))

    with pytest.raises(PlstoreError, match="with weak noise are others than those with all"):
        labeled_by_itself(batch, other, torch.nn.Identity(), lambda images: images)


@pytest.mark.nightly
def test_a_run_of_it_is_a_mode_of_the_recipe(store: Store) -> None:
    long = {**TRAIN, "steps": 50, "looks": 0}
    asked = recipe(train=long, loss={"pseudo_labels": "online"})
    hard = recipe(train=long, loss={"pseudo_labels": "hard"})

    student = run(asked, store, device="cpu")["students"][0]
    again = run(asked, store, device="cpu")["students"][0]
    other = run(hard, store, device="cpu")["students"][0]
    rows = store.table("runs").read().to_pylist()
    counted = {row["run"]: row["value"] for row in rows if row["name"] == COUNTED}

    assert student == again
    assert student["teacher_id"] != other["teacher_id"]
    teachers = {t.teacher_id: t for t in plstore.list_teachers(store)}
    hashes = {teachers[s["teacher_id"]].checkpoint_hash for s in (student, other)}
    assert len(hashes) == 2
    assert list(counted) == [student["teacher_id"]]
    assert 0 <= counted[student["teacher_id"]] <= 100


def test_labels_of_views_are_a_teachers() -> None:
    with pytest.raises(RecipeError, match=r"label\.views keeps what a teacher says"):
        recipe(
            iterations=1,
            train=TRAIN,
            loss={"pseudo_labels": "online"},
            label={"views": True},
        )
