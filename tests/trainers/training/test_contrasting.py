"""Self-supervised training: its loss, its draws, and how it goes on."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from plstore.errors import InputError
from plstore.loaders import ImageFormat, open_split
from plstore.store import Store
from trainers.recipe import check_recipe
from trainers.training import contrasting
from trainers.training.contrasting import Contrast, Contrasted, contrast, nt_xent
from trainers.training.recording import LOSS

STEPS, BATCH, IMAGES = 6, 16, 60


def contrasted(store: Store, seed: int = 0, **pretrain: object) -> Contrast:
    values = {
        "name": "tiny",
        "model": {"architecture": "test_resnet", "resolution": 16, "stochastic_depth": 0.1},
        "pretrain": {"steps": STEPS, "batch": BATCH, **pretrain},
        "train": {"threads": 1, "ema_decay": 0.5},
    }
    images = open_split(store, "unlabeled")
    return Contrast(
        recipe=check_recipe(values, "test"),
        images=images,
        images_version=store.table("images").version(),
        seed=seed,
        device="cpu",
    )


def weights(made: Contrasted) -> dict[str, torch.Tensor]:
    return dict(made.network.state_dict())


def same(a: Contrasted, b: Contrasted) -> bool:
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


def ids(training: Contrast, first_step: int) -> Iterator[list[int]]:
    for rows in training._passes(first_step):
        for start in range(0, len(rows), BATCH):
            yield rows[start : start + BATCH].tolist()


def test_each_pass_draws_whole_batches_of_all_images_in_its_own_order(store: Store) -> None:
    training = contrasted(store)
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
    training = contrasted(store, batch=IMAGES)
    format_ = ImageFormat(size=16, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    steps = list(islice(training.pairs(format_, 0), 3))
    (again,) = islice(training.pairs(format_, 2), 1)
    flat = [images for step in steps for images in step]
    sums = {tuple(sorted(int(image.sum()) for image in images)) for images in flat}

    assert [len(images) for images in flat] == [IMAGES] * 6
    assert len(sums) == 6  # the same images each time, in another order and noise
    assert all(torch.equal(a, b) for a, b in zip(steps[2], again, strict=True))


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    store: Store, tmp_path: Path
) -> None:
    first, second = (
        contrast(contrasted(store), tmp_path / name, lambda *_: None) for name in "ab"
    )
    other = contrast(contrasted(store, seed=1), tmp_path / "c", lambda *_: None)

    assert same(first, second)
    assert not same(first, other)
    assert first.loss is None  # too short for one


@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_stopped_one_goes_on_to_the_same_bits(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(contrasting, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(contrasting, "_METRIC_STEPS", 2)
    whole = contrast(contrasted(store), tmp_path / "whole", lambda *_: None)

    def stop(done: int, _: float) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    started: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        contrast(contrasted(store), tmp_path / "part", stop)
    resumed = contrast(
        contrasted(store), tmp_path / "part", lambda done, _: started.append(done)
    )

    assert started[0] == stop_at - 1
    assert same(whole, resumed)
    losses = [[m for m in made.metrics if m[1] == LOSS] for made in (whole, resumed)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == STEPS // 2


def test_two_versions_of_an_image_come_near_one_another(store: Store, tmp_path: Path) -> None:
    training = contrasted(store, steps=80, batch=IMAGES, learning_rate=0.01)
    losses: list[float] = []
    contrast(training, tmp_path / "a", lambda _, loss: losses.append(loss))

    assert np.mean(losses[-5:]) < np.mean(losses[1:6]) - 0.3


def test_one_image_cannot_be_told_from_another(store: Store, tmp_path: Path) -> None:
    alone = contrasted(store)
    one = Contrast(
        recipe=alone.recipe,
        images=open_split(store, "unlabeled"),
        images_version=alone.images_version,
        seed=0,
        device="cpu",
    )
    one.images.sample_ids = one.images.sample_ids[:1]

    with pytest.raises(InputError, match=r"1 unlabeled image cannot be told.*pretrain\.steps"):
        contrast(one, tmp_path / "a", lambda *_: None)
