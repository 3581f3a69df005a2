"""With weights: a backbone that stays frozen, at the most pixels whose embedding fits."""

from typing import Any, Final

import timm

from trainers.estimate import fit_seconds
from trainers.planning.census import Census
from trainers.planning.wishes import Plan, Timer, Wishes
from trainers.sections import Model
from trainers.training.timing import DECODING

_EMBEDDED: Final = 0.5
"""Share of the budget that embedding may take."""

_STEP: Final = 32
_ENLARGED: Final = 6  # CIFAR-10: 68.4 % at 5 times the side, 68.8 at 7, 63.8 at 3.5
_NATIVE: Final = 224
_LEAST_UNLABELED: Final = 100
FALLBACK: Final = "efficientnet_b0"


def plan_frozen(census: Census, wishes: Wishes, timer: Timer) -> Plan:
    """Plan a frozen backbone with a regression, and students of the same kind."""
    architecture = wishes.model or FALLBACK
    most = _most_pixels(census, architecture)
    fits = float("inf") if wishes.seconds is None else wishes.seconds * _EMBEDDED
    fits /= 1 + len(wishes.also)  # as if each took as long
    smallest = Model(resolution=min(most, 2 * _STEP))
    look = timer(smallest, architecture).clean_seconds * DECODING
    per_pixel = look / smallest.resolution**2
    allowed = (fits / (per_pixel * census.num_images)) ** 0.5
    size = wishes.resolution or int(max(min(most, allowed) // _STEP * _STEP, 2 * _STEP))
    seconds = per_pixel * size**2
    pool = census.splits.get("unlabeled", 0)
    room = max(fits / seconds - (census.num_images - pool), _LEAST_UNLABELED)
    limit = None if room >= pool else int(room)
    looked = census.num_images - (0 if limit is None else pool - limit)
    reasons = _reasons(architecture, size, most, 1 / seconds, looked)
    if limit is not None:
        left = f"{pool - limit:,} of {pool:,} unlabeled images"
        reasons["left out"] = f"{left}: the budget is too short for them"
    return Plan(
        values=_values(wishes, architecture, size, limit),
        reasons=reasons,
        seconds=seconds * looked * (1 + len(wishes.also)) + 2 * fit_seconds(census.num_images),
    )


def _values(
    wishes: Wishes, architecture: str, size: int, limit: int | None
) -> dict[str, dict[str, Any]]:
    return {
        "recipe": {"iterations": 1},
        "data": {} if limit is None else {"limit_unlabeled": limit},
        "model": {
            "architecture": architecture,
            "resolution": size,
            "interpolation": "bicubic",
            "weights": wishes.weights,
            "pretrained": wishes.pretrained,
            "also": [dict(other) for other in wishes.also],
        },
        "method": {"teacher": "probe", "students": wishes.students or "probe"},
        "select": {"policy": "none", "min_confidence": 0.0},
    }


def _reasons(
    architecture: str, size: int, most: int, rate: float, looked: int
) -> dict[str, str]:
    return {
        "method": f"probe: {architecture} stays frozen, a logistic regression stands on its "
        "features; the student is one too, on all pseudo-labels as well",
        "because": "on few labels, features of a pretrained net are far better than a small "
        "net from scratch, and cost one look at each image",
        "pixels": f"{size}, of at most {most} that help here: {rate:.0f} images a second, "
        f"{looked:,} images",
    }


def _most_pixels(census: Census, architecture: str) -> int:
    """Return the pixels beyond which a backbone gains little: its own, or 6 times the image."""
    config = timm.get_pretrained_cfg(architecture)
    native = _NATIVE if config is None else int(config.input_size[-1])
    if config is not None and config.fixed_input_size:
        return native
    return max(min(native, census.side * _ENLARGED) // _STEP * _STEP, 2 * _STEP)
