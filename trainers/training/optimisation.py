"""What a step does to weights: how many there are, optimizer, learning rate.

Each is timm's or torch's; here is which, with which numbers (Noisy Student, section 4.1 and its
official code).
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from plstore.errors import InputError
from trainers.recipe import Recipe
from trainers.sections import Optimizer, Schedule

_WARMUP_SHARE: Final = 0.05
_NORMS: Final = (
    *(nn.modules.batchnorm._NormBase, nn.LayerNorm),  # noqa: SLF001  all batch norms are one
    *(nn.GroupNorm, nn.RMSNorm),
)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How long a training is.

    Attributes:
        steps: Optimizer steps.
        steps_per_epoch: Steps in which labeled images are drawn once each, not rounded.
        warmup_steps: The first of them.
    """

    steps: int
    steps_per_epoch: float
    warmup_steps: int


def course_of(recipe: Recipe, num_labeled: int) -> Course:
    """Return how long a training on so many labeled images is.

    Epochs are passes over the labeled images, whatever is learnt beside them (Noisy Student,
    4.1); so an epoch has as many steps for teacher, student and control.

    Raises:
        InputError: If the warm-up is as long as the training.
    """
    steps = recipe.train.num_steps(num_labeled)
    per_epoch = num_labeled / recipe.train.labeled_batch
    warmup = _warmup(recipe.schedule, steps, per_epoch)
    if warmup >= steps:
        raise InputError(
            f"the warm-up of {warmup} steps is not below the training's {steps}: lower "
            "schedule.warmup_epochs or schedule.warmup_steps"
        )
    return Course(steps=steps, steps_per_epoch=per_epoch, warmup_steps=warmup)


def _warmup(schedule: Schedule, steps: int, per_epoch: float) -> int:
    if schedule.warmup_epochs is not None:
        return int(schedule.warmup_epochs * per_epoch)  # as the official code cuts it
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    return int(steps * _WARMUP_SHARE)


def peak_rate(optimizer: Optimizer, labeled_batch: int) -> float:
    """Return the largest learning rate: it grows with the labeled images of a step alone.

    The paper's is 0.016 per 256 of them: 0.128 at 2,048 (Noisy Student, 4.1).
    """
    if optimizer.per_images is None:
        return optimizer.learning_rate
    return optimizer.learning_rate * labeled_batch / optimizer.per_images


def make_optimizer(
    network: nn.Module, optimizer: Optimizer, rate: float
) -> torch.optim.Optimizer:
    """Return timm's optimizer of that name.

    `rmsproptf` is TensorFlow's RMSProp: epsilon within the root, squares that start at 1, the
    learning rate in the momentum, weight decay in the gradient.

    Raises:
        InputError: If timm knows no such optimizer, or it does not take these settings.
    """
    settings = {"momentum": optimizer.momentum, "eps": optimizer.eps, "alpha": optimizer.decay}
    given: dict[str, Any] = {k: v for k, v in settings.items() if v is not None}
    parameters = network
    if optimizer.decay_biases and optimizer.weight_decay:
        parameters = _but_norms(network, optimizer.weight_decay)  # type: ignore[assignment]
    try:
        made: torch.optim.Optimizer = create_optimizer_v2(
            parameters,
            opt=optimizer.name,
            lr=rate,
            weight_decay=optimizer.weight_decay,
            filter_bias_and_bn=not optimizer.decay_biases,
            **given,
        )
    except Exception as error:
        raise InputError(
            f"optimizer.name is {optimizer.name!r} with {given or 'its own settings'}: "
            f"{error}; wanted a name that timm knows, such as adamw, sgd or rmsproptf, and "
            "settings that it takes"
        ) from error
    return made


def check_optimizer(optimizer: Optimizer) -> None:
    """Raise InputError unless timm makes this optimizer."""
    make_optimizer(nn.Linear(1, 1), optimizer, 1.0)


def _but_norms(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameters in two groups: weights and biases, which decay, and those of norms."""
    norms = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, _NORMS)
        for parameter in module.parameters(recurse=False)
    }
    trained = [p for p in network.parameters() if p.requires_grad]
    return [
        {
            "params": [p for p in trained if id(p) not in norms],
            "weight_decay": weight_decay,
        },
        {"params": [p for p in trained if id(p) in norms], "weight_decay": 0.0},
    ]


def make_schedule(
    schedule: Schedule, optimizer: torch.optim.Optimizer, course: Course, rate: float
) -> Scheduler:
    """Return timm's schedule of that name, by steps; `step_update(steps done)` moves it.

    The staircase is the official code's: rate x step / warm-up steps at first, then
    rate x decay_rate^floor(step / (decay_epochs x steps an epoch)).
    """
    warmup = course.warmup_steps
    if schedule.name == "cosine":
        return CosineLRScheduler(
            optimizer,
            t_initial=course.steps,
            warmup_t=warmup,
            warmup_lr_init=rate / max(warmup, 1),
            t_in_epochs=False,
        )
    is_flat = schedule.name == "constant"
    return StepLRScheduler(
        optimizer,
        decay_t=schedule.decay_epochs * course.steps_per_epoch,
        decay_rate=1.0 if is_flat else schedule.decay_rate,
        warmup_t=warmup,
        warmup_lr_init=0.0,
        warmup_prefix=False,  # stairs are counted from step 0 on
        t_in_epochs=False,
    )
