"""What a plan is asked for, and what it says."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from plstore.errors import InputError
from trainers.sections import How, Model
from trainers.training.timing import Timed

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DEFAULT_BUDGET: Final = 1800.0
"""Seconds on a CPU; on a GPU there is no limit unless one is given."""
_WEIGHTS: Final = ("model.weights", "model.pretrained")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user has said: the plan keeps to it.

    Attributes:
        model: timm name, or None.
        resolution: Pixels a side, or None.
        weights: A file or folder of weights, or None.
        pretrained: Whether to start from timm's weights.
        teacher: How the teacher comes about, or None.
        students: How students do, or None.
        seconds: Of the budget, or None for no limit.
        also: More first teachers, as the recipe's `model.also`.
        is_taught: Whether it is settled how the first teacher comes about: one of the store
            labels, or settings by hand say what it starts from.
        versions: How often pretraining is to noise an image.
        precision: Of activations in training, as in a recipe; of "auto" the plan takes the
            faster on a CPU.
    """

    model: str | None = None
    resolution: int | None = None
    weights: str | None = None
    pretrained: bool = False
    teacher: How | None = None
    students: How | None = None
    seconds: float | None = None
    also: tuple[Mapping[str, Any], ...] = ()
    is_taught: bool = False
    versions: int = 1
    precision: str = "auto"

    @property
    def has_weights(self) -> bool:
        """Whether there are weights to start from."""
        return self.pretrained or self.weights is not None


def check_weights(wishes: Wishes, overrides: Sequence[str] = ()) -> None:
    """Check that there are weights for the methods that start from some.

    Args:
        wishes: What the user has said.
        overrides: ``path.to.key=value`` each, of which one may name weights.

    Raises:
        InputError: If there are none.
    """
    asked = [how for how in (wishes.teacher, wishes.students) if how not in {None, "scratch"}]
    by_hand = any(override.strip().startswith(_WEIGHTS) for override in overrides)
    if asked and not (wishes.has_weights or by_hand):
        raise InputError(
            f"--method {asked[0]} needs weights: give --weights hub, or a file (.safetensors, "
            ".pth, or a folder with one)"
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do, and why.

    Attributes:
        values: Of a recipe, by section.
        reasons: Lines for people, by title.
        seconds: That it would take, estimated from timed steps.
    """

    values: dict[str, dict[str, Any]]
    reasons: dict[str, str]
    seconds: float


Timer = Callable[[Model, str], Timed]
"""Times a model with its pixels."""


def parse_budget(text: str) -> float | None:
    """Return the seconds of "30m", "2h", "90s" or "1d"; None for "none".

    Raises:
        InputError: If it is none of these.
    """
    if text.strip().lower() == "none":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip().lower())
    if found is None or float(found[1]) <= 0:
        raise InputError(f"--budget is {text!r}; wanted such as 90s, 30m, 2h, 1d, or none")
    return float(found[1]) * _UNITS[found[2]]
