"""The recipes that ship: models, optimizer, schedule, plan and a tiny view of each."""

from pathlib import Path

import pytest
import torch
from torch import nn

from plstore.errors import InputError
from plstore.loaders import ImageFormat, load
from plstore.report.progress import Display
from plstore.selection import Balance, Selection, select
from plstore.store import Store
from tests.conftest import give_labels
from trainers.models.architectures import on_meta, published
from trainers.programs import dry_run
from trainers.recipe import load_recipe, recipes_folder
from trainers.sources import counted_source
from trainers.training.optimisation import course_of, make_optimizer, make_schedule, peak_rate

SHIPPED = sorted(path.stem for path in recipes_folder().glob("*.toml"))
PAPERS = [name for name in SHIPPED if name.startswith(("imagenet", "svhn"))]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_makes_models_optimizer_and_schedule(name: str) -> None:
    recipe = load_recipe(name)
    counts = recipe.data.counts
    for iteration in {0, 1, recipe.iterations}:
        seen = recipe.at(iteration)
        model = seen.model_of(iteration)
        network = on_meta(
            model.architecture,
            num_classes=10,
            channels=model.channels,
            size=model.resolution,
            small=model.small_images,
        )
        course = course_of(seen, counts.labeled if counts else 300)
        rate = peak_rate(seen.optimizer, seen.train.labeled_batch)
        optimizer = make_optimizer(network, seen.optimizer, rate)
        schedule = make_schedule(seen.schedule, optimizer, course, rate)
        schedule.step_update(course.warmup_steps)

        found = optimizer.param_groups[0]["lr"]
        assert 0.9 * rate < found <= rate
        assert course.steps > course.warmup_steps


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_makes_batches_of_a_tiny_view(name: str, store: Store) -> None:
    give_labels(store)
    recipe = load_recipe(name).at(1)
    balance = Balance(min_confidence=0.0, images_per_class=5, seed=0)
    view = select(store, Selection(view="v", teachers=["t0@1"], balance=balance), identity="v")
    ratio = max(recipe.train.ratio, 1)
    loader = load(
        view,
        labeled_batch=2,
        pseudo_batch=2 * ratio,
        image_format=ImageFormat(size=32),
        noise=recipe.noise.as_noise(),
        seed=0,
        backend="threads",
        num_threads=1,
        shuffle=recipe.train.shuffle,
    )
    batch = next(iter(loader))

    assert batch.images.shape == (2 + 2 * ratio, 3, 32, 32)
    assert len(batch.targets) == len(batch.images)


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_recipes_have_what_is_published(name: str) -> None:
    recipe = load_recipe(name)
    for iteration in (0, 1):
        model, noise = recipe.model_of(iteration), recipe.at(iteration).noise
        known = published(model.architecture)
        assert known is not None
        if model.architecture == "resnet50":
            continue
        assert model.dropout == known.dropout
        if not model.small_images:
            assert model.resolution == known.resolution
            assert model.crop_pct == pytest.approx(
                model.resolution / (model.resolution + 32), abs=1e-3
            )
        assert noise.dialect == "noisystudent"
    assert recipe.optimizer.learning_rate * 2048 / 256 == 0.128


def test_a_dry_run_refuses_a_store_that_the_run_would_refuse(store: Store) -> None:
    with pytest.raises(InputError, match="holds 84 images that this recipe's data does not"):
        dry_run(load_recipe("fashion_mnist"), store.root, device="cpu", display=Display())


def test_a_dry_run_counts_pretraining(tmp_path: Path) -> None:
    recipe = load_recipe("cifar10", ["pretrain.steps=1000", "pretrain.task=simclr"])
    rows = dry_run(
        recipe, tmp_path / "store", device="cpu", display=Display(), card="H100 SXM", cards=1
    )
    (row,) = (row for row in rows if row["step"] == "pretrain")

    assert row["images"] == 1000 * 256 * 2
    assert row["epochs"] == round(1000 * 256 / 46_000, 1)
    assert row["PFLOP"] > 0
    assert row["GB a card"] > 0


@pytest.mark.parametrize("name", ["svhn_b0", "imagenet_b0_b0"])
def test_a_dry_run_counts_what_is_not_here(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = load_recipe(name)
    rows = dry_run(
        recipe, tmp_path / "store", device="cpu", display=Display(), card="H100 SXM", cards=8
    )
    by_step = {row["step"]: row for row in rows}
    source = counted_source(recipe.data)

    assert source is not None
    assert by_step["label-1"]["images"] == source.splits["unlabeled"] + source.splits.get(
        "validation", 0
    )
    student = by_step["train-1"]
    course = course_of(recipe.at(1), source.splits["labeled"])
    per_step = recipe.train.labeled_batch * (1 + recipe.train.ratio)
    assert student["images"] == course.steps * per_step
    assert student["parameters, M"] in {4.0, 5.3}
    assert student["PFLOP"] > 10
    assert student["GB a card"] > 0
    assert by_step["total"]["hours of H100 SXM"] > student["hours of H100 SXM"]
    assert not (tmp_path / "store").exists()
    said = capsys.readouterr().err
    assert "the teacher: tf_efficientnet_b0" in said
    assert "train.ratio = 0 (else" in said


def test_small_images_give_another_network_that_is_kept() -> None:
    usual, small = (
        on_meta("tf_efficientnet_b0", num_classes=10, small=small) for small in (False, True)
    )
    shapes = [
        net.eval().forward_features(torch.empty(1, 3, 32, 32, device="meta")).shape[-1]  # type: ignore[operator]  # timm's
        for net in (usual, small)
    ]

    assert shapes == [1, 4]
    assert isinstance(small, nn.Module)
