"""Self-supervised training: its loss, its draws, and how it goes on."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from plstore.errors import InputError
from plstore.images import ImageRecord, import_images
from plstore.loaders import ImageFormat, open_split
from plstore.store import Store, create
from tests.conftest import encode
from trainers.models.model import build_model, image_format, save_bundle
from trainers.models.starting import take_backbone
from trainers.recipe import check_recipe
from trainers.sections import Model
from trainers.training import pretraining
from trainers.training.pretraining import (
    Pretrained,
    Pretraining,
    headed,
    nt_xent,
    pretrain,
    turned,
)
from trainers.training.recording import LOSS
from trainers.training.watching import VALIDATION, FeatureWatch

STEPS, BATCH, IMAGES = 6, 16, 60


TASKS = pytest.mark.parametrize("task", ["rotation", "simclr"])


def asked(
    store: Store,
    seed: int = 0,
    *,
    only: int | None = None,
    architecture: str = "test_resnet",
    **settings: object,
) -> Pretraining:
    values = {
        "name": "tiny",
        "model": {"architecture": architecture, "resolution": 32, "stochastic_depth": 0.1},
        "pretrain": {"steps": STEPS, "batch": BATCH, **settings},
        "train": {"threads": 1, "ema_decay": 0.5},
    }
    images = open_split(store, "unlabeled")
    rows = np.arange(len(images))
    return Pretraining(
        recipe=check_recipe(values, "test"),
        images=images,
        rows=rows if only is None else rows[:only],
        images_version=store.table("images").version(),
        seed=seed,
        device="cpu",
    )


def weights(made: Pretrained) -> dict[str, torch.Tensor]:
    return dict(made.network.state_dict())


def same(a: Pretrained, b: Pretrained) -> bool:
    pairs = zip(weights(a).values(), weights(b).values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_the_loss_is_that_of_the_papers_equation() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 3, 5))
    vectors = np.concatenate([first, second])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    losses = []
    for i in range(6):
        j = (i + 3) % 6
        of = {k: np.exp(vectors[i] @ vectors[k] / 0.3) for k in range(6) if k != i}
        losses.append(-np.log(of[j] / sum(of.values())))

    found = nt_xent(torch.tensor(first), torch.tensor(second), 0.3)

    assert float(found) == pytest.approx(np.mean(losses))


def ids(training: Pretraining, first_step: int) -> Iterator[list[int]]:
    for rows in training.passes(first_step):
        for start in range(0, len(rows), BATCH):
            yield rows[start : start + BATCH].tolist()


def test_each_pass_draws_whole_batches_of_all_images_in_its_own_order(store: Store) -> None:
    training = asked(store)
    steps = list(islice(ids(training, 0), 9))

    assert training.steps_per_epoch == IMAGES // BATCH == 3
    assert all(len(set(step)) == BATCH for step in steps)
    for first in (0, 3, 6):  # no image twice in a pass
        assert len(set().union(*steps[first : first + 3])) == 3 * BATCH
    assert sorted(steps[:3]) != sorted(steps[3:6])
    for step in range(7):
        assert next(ids(training, step)) == steps[step]


def test_an_image_is_noised_otherwise_each_time_and_the_same_after_a_resume(
    store: Store,
) -> None:
    training = asked(store, batch=IMAGES, task="simclr")
    format_ = ImageFormat(size=32, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    steps = list(islice(training.batches(format_, 0), 3))
    (again,) = islice(training.batches(format_, 2), 1)
    flat = [images for step in steps for images in step]
    sums = {tuple(sorted(int(image.sum()) for image in images)) for images in flat}

    assert [len(images) for images in flat] == [IMAGES] * 6
    assert len(sums) == 6  # the same images each time, in another order and noise
    assert all(torch.equal(a, b) for a, b in zip(steps[2], again, strict=True))


def test_images_are_turned_by_quarters() -> None:
    images = torch.arange(2 * 9).reshape(2, 1, 3, 3).repeat(2, 1, 1, 1)
    found = turned(images, torch.tensor([0, 1, 2, 3]))

    assert torch.equal(found[0], images[0])
    assert found[1, 0].tolist() == [[11, 14, 17], [10, 13, 16], [9, 12, 15]]
    assert torch.equal(found[2], images[2].flip(1, 2))
    assert torch.equal(turned(found[3:], torch.tensor([1])), images[3:])


def test_turns_follow_from_the_step_and_are_all_there(store: Store) -> None:
    training = asked(store, batch=IMAGES)
    steps = [training.turns(step) for step in range(3)]

    assert all(set(step.tolist()) == {0, 1, 2, 3} for step in steps)
    assert not torch.equal(steps[0], steps[1])
    assert torch.equal(steps[1], training.turns(1))


@TASKS
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    store: Store, tmp_path: Path, task: str
) -> None:
    first, second, other = (
        pretrain(asked(store, seed, task=task), tmp_path / f"{number}", lambda *_: None)
        for number, seed in enumerate((0, 0, 1))
    )

    assert same(first, second)
    assert not same(first, other)
    assert first.loss is None  # too short for one


@pytest.mark.parametrize(
    ("task", "architecture"),
    [
        ("rotation", "test_resnet"),
        ("simclr", "test_resnet"),
        ("rotation", "ghostnet_050"),  # which drops a fifth of its features unasked
    ],
)
def test_a_stopped_one_goes_on_to_the_same_bits(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    architecture: str,
) -> None:
    monkeypatch.setattr(pretraining, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(pretraining, "_METRIC_STEPS", 2)
    whole = pretrain(
        asked(store, task=task, architecture=architecture), tmp_path / "whole", lambda *_: None
    )

    def stop(done: int, _: float) -> None:
        if done == 4:
            raise KeyboardInterrupt

    started: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        pretrain(asked(store, task=task, architecture=architecture), tmp_path / "part", stop)
    resumed = pretrain(
        asked(store, task=task, architecture=architecture),
        tmp_path / "part",
        lambda done, _: started.append(done),
    )

    assert started[0] == 3
    assert same(whole, resumed)
    losses = [[m for m in made.metrics if m[1] == LOSS] for made in (whole, resumed)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == STEPS // 2


@pytest.mark.parametrize(("task", "chance"), [("rotation", np.log(4)), ("simclr", np.log(119))])
def test_a_network_learns_its_task(tmp_path: Path, task: str, chance: float) -> None:
    store = create(tmp_path / "store")
    records = [lit_from_above(number) for number in range(IMAGES)]
    import_images(store, records, dataset="lit", class_names=["a", "b"])
    training = asked(store, task=task, steps=60, batch=IMAGES, learning_rate=0.01)
    losses: list[float] = []
    pretrain(training, tmp_path / "partial", lambda _, loss: losses.append(loss))

    assert np.mean(losses[-5:]) < 0.9 * chance


def lit_from_above(number: int) -> ImageRecord:
    """Return an image whose upper part is the brighter one, in a colour of its own."""
    random = np.random.default_rng(number)
    rows = np.linspace(130, 10, 24)[:, None, None] * np.ones((1, 24, 1))
    pixels = (rows + random.integers(0, 120, 3)).astype(np.uint8)
    return ImageRecord(key=f"{number}.png", split="unlabeled", data=encode(pixels))


def test_one_image_cannot_be_told_from_another(store: Store, tmp_path: Path) -> None:
    alone = asked(store, only=1)

    with pytest.raises(InputError, match=r"1 unlabeled image cannot be told.*pretrain\.steps"):
        pretrain(alone, tmp_path / "a", lambda *_: None)


def test_rows_that_are_left_out_are_not_learnt_from(store: Store) -> None:
    training = asked(store, only=20)
    drawn = {row for rows in islice(training.passes(0), 3) for row in rows.tolist()}

    assert drawn <= set(range(20))
    assert training.steps_per_epoch == 1


def test_a_network_of_a_thousand_classes_takes_all_but_its_classifier(tmp_path: Path) -> None:
    plain = Model(architecture="test_resnet", resolution=32, stochastic_depth=0.0)
    before = build_model(plain, "test_resnet", 0)
    format_ = image_format(plain, before)
    save_bundle(tmp_path / "pre", before, format_, ())
    network = build_model(plain, "test_resnet", 1000)
    classifier = network.state_dict()["fc.weight"].clone()
    take_backbone(network, tmp_path / "pre")
    after = network.state_dict()

    assert torch.equal(after["fc.weight"], classifier)
    assert all(torch.equal(after[name], value) for name, value in before.state_dict().items())
    with pytest.raises(InputError, match="are of another network than ResNet"):
        take_backbone(build_model(plain, "resnet10t", 1000), tmp_path / "pre")


@pytest.mark.parametrize("architecture", ["mobilenetv3_small_050", "ghostnet_050", "test_vit"])
def test_a_head_fits_what_a_network_gives(architecture: str) -> None:
    model = {"architecture": architecture, "resolution": 32, "stochastic_depth": 0.0}
    if architecture == "test_vit":
        model["resolution"] = 160
    recipe = check_recipe({"name": "x", "model": model, "pretrain": {"steps": 1}}, "test")
    size = int(str(model["resolution"]))

    assert headed(recipe).eval()(torch.zeros(2, 3, size, size)).shape == (2, 4)


def test_it_is_watched_by_a_regression_on_its_features(store: Store, tmp_path: Path) -> None:
    images = open_split(store, "validation")
    watch = FeatureWatch(labeled=images, images=images, looks=3)
    seen: list[tuple[int, float]] = []
    plain = asked(store)
    alone = pretrain(plain, tmp_path / "a", lambda *_: None)
    watched = pretrain(
        replace(plain, watch=watch),
        tmp_path / "b",
        lambda *_: None,
        lambda step, accuracy: seen.append((step, accuracy)),
    )

    assert [step for step, _ in seen] == [2, 4, 6]
    assert all(accuracy > 90 for _, accuracy in seen)  # it knows what it was fitted on
    assert [m for m in watched.metrics if m[1] == VALIDATION] == [
        (step, VALIDATION, accuracy) for step, accuracy in seen
    ]
    assert same(alone, watched)
