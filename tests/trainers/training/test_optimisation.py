"""Learning rate, RMSProp and average, each against the formula of the official code."""

from math import cos, floor, pi
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from plstore.errors import InputError
from trainers.models.model import Ema, build_model
from trainers.recipe import Recipe, check_recipe
from trainers.sections import Model, Optimizer
from trainers.training.optimisation import course_of, make_optimizer, make_schedule, peak_rate

PAPER: dict[str, Any] = {
    "train": {"epochs": 350, "labeled_batch": 2048, "ratio": 14},
    "optimizer": {"name": "rmsproptf", "learning_rate": 0.016, "per_images": 256},
    "schedule": {"name": "staircase", "warmup_epochs": 5},
}
IMAGENET = 1_281_167


def recipe(**sections: object) -> Recipe:
    return check_recipe({"name": "x", **sections}, "test")


def rates(asked: Recipe, num_labeled: int, steps: list[int]) -> list[float]:
    course = course_of(asked, num_labeled)
    peak = peak_rate(asked.optimizer, asked.train.labeled_batch)
    optimizer = make_optimizer(nn.Linear(2, 2), asked.optimizer, peak)
    schedule = make_schedule(asked.schedule, optimizer, course, peak)
    found = []
    for step in steps:
        schedule.step_update(step)
        found.append(float(optimizer.param_groups[0]["lr"]))
    return found


def test_the_papers_run_is_as_long_as_it_was() -> None:
    course = course_of(recipe(**PAPER), IMAGENET)
    as_released = {**PAPER, "train": {**PAPER["train"], "labeled_batch": 4096}}

    assert course.steps == 218_949
    assert course_of(recipe(**as_released), IMAGENET).steps == 109_474
    assert course.warmup_steps == int(5 * IMAGENET / 2048)


def test_the_staircase_is_that_of_the_official_code() -> None:
    per_epoch = IMAGENET / 2048
    warmup, stair = int(5 * per_epoch), 2.4 * per_epoch
    steps = [0, 1, 1000, warmup - 1, warmup, 4000, 4505, 50_000, 218_000]

    expected = [
        0.128 * step / warmup if step < warmup else 0.128 * 0.97 ** floor(step / stair)
        for step in steps
    ]
    assert rates(recipe(**PAPER), IMAGENET, steps) == pytest.approx(expected, rel=1e-12)
    assert expected[-1] == pytest.approx(0.128 * 0.0118, rel=0.03)  # 0.97^(350 / 2.4)


def test_a_cosine_ends_at_zero_and_a_constant_stays() -> None:
    length = {"steps": 200}
    cosine = recipe(train=length, optimizer={"learning_rate": 0.5})
    constant = recipe(
        train=length, optimizer={"learning_rate": 0.5}, schedule={"name": "constant"}
    )

    assert course_of(cosine, 10).warmup_steps == 10
    assert rates(cosine, 10, [10, 100, 199]) == pytest.approx(
        [0.25 * (1 + cos(pi * t / 200)) for t in (10, 100, 199)]
    )
    assert rates(constant, 10, [5, 10, 150]) == pytest.approx([0.25, 0.5, 0.5])


def test_rmsprop_is_tensorflows() -> None:
    generator = np.random.default_rng(0)
    start = generator.normal(size=(3, 4))
    gradients = generator.normal(size=(6, 3, 4))
    asked = Optimizer(name="rmsproptf", eps=1e-3, momentum=0.9, decay=0.9, weight_decay=0)
    layer = nn.Linear(4, 3, bias=False).double()
    layer.weight.data = torch.tensor(start)
    optimizer = make_optimizer(layer, asked, 0.05)

    weights, squares, velocity = start.copy(), np.ones_like(start), np.zeros_like(start)
    for gradient in gradients:
        squares = 0.9 * squares + 0.1 * gradient**2
        velocity = 0.9 * velocity + 0.05 * gradient / np.sqrt(squares + 1e-3)
        weights -= velocity
        layer.weight.grad = torch.tensor(gradient)
        optimizer.step()

    assert np.allclose(layer.weight.detach().numpy(), weights, rtol=1e-12)


def test_weight_decay_is_in_the_gradient_of_weights_and_biases_but_not_of_norms() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    asked = Optimizer(name="rmsproptf", weight_decay=1e-5, decay_biases=True)

    by_group = {
        group["weight_decay"]: {tuple(p.shape) for p in group["params"]}
        for group in make_optimizer(network, asked, 0.1).param_groups
    }
    of_biases = make_optimizer(network, asked.model_copy(update={"decay_biases": False}), 0.1)
    counts = [len(g["params"]) for g in of_biases.param_groups if g["weight_decay"] > 0]

    assert by_group == {1e-5: {(3, 2), (3,)}, 0.0: {(3,)}}
    assert len(make_optimizer(network, asked, 0.1).param_groups[0]["params"]) == 2
    assert counts == [1]


def test_the_average_covers_batch_statistics_by_the_official_rule() -> None:
    norm = nn.BatchNorm1d(2)
    network = nn.Sequential(nn.Linear(2, 2), norm)
    ema = Ema(network, decay=0.9999)
    mean = dict(norm.named_buffers())["running_mean"]
    expected = mean.clone()
    for step in range(4):
        mean += 1.0
        decay = min(0.9999, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * mean
        ema.update(network, step=step)

    assert torch.allclose(ema.module.state_dict()["1.running_mean"], expected)
    assert Ema(network, decay=0.9).get_decay(10_000) == 0.9


def test_batch_norms_are_as_tensorflow_says_them() -> None:
    model = Model(architecture="test_resnet", resolution=16, batch_norm=(0.99, 1e-3))

    network = build_model(model, "test_resnet", 3)

    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {(round(m.momentum or 0, 9), m.eps) for m in norms} == {(0.01, 1e-3)}


def test_the_learning_rate_grows_with_labeled_images_alone() -> None:
    optimizer = recipe(**PAPER).optimizer

    assert peak_rate(optimizer, 2048) == pytest.approx(0.128)
    assert peak_rate(optimizer, 4096) == pytest.approx(0.256)
    assert peak_rate(Optimizer(learning_rate=0.1), 4096) == 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "adamm"}, "wanted a name that timm knows"),
        ({"name": "adamw", "decay": 0.9}, "settings that it takes"),
    ],
)
def test_an_optimizer_that_cannot_be_made_says_so(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_optimizer(nn.Linear(2, 2), Optimizer(**values), 0.1)


def test_a_warm_up_as_long_as_the_training_is_refused() -> None:
    with pytest.raises(InputError, match="warm-up of 50 steps is not below the training's 10"):
        course_of(
            recipe(train={"epochs": 1, "labeled_batch": 10}, schedule={"warmup_epochs": 5}),
            100,
        )
