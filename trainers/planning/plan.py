"""A plan that fits: method, model, pixels and steps for these images, this machine, this time.

It is what an expert would try first, and no more than a start: a recipe that is written beside
the store, to be read, changed and run again.
"""

from dataclasses import replace
from typing import Final

from plstore.errors import InputError
from trainers.events import said_time
from trainers.models.model import build_model
from trainers.planning.census import Census, Machine
from trainers.planning.frozen import plan_frozen
from trainers.planning.trained import plan_trained
from trainers.planning.wishes import Plan, Timer, Wishes
from trainers.sections import Model
from trainers.training.timing import Timed, cpu_precisions, time_model, timed_batch

_FEW_VALIDATION: Final = 200


def plan(census: Census, machine: Machine, wishes: Wishes, timer: Timer | None = None) -> Plan:
    """Choose how to go about it.

    With weights: the backbone stays frozen, a logistic regression stands on its features, and
    a student is one too, on pseudo-labels as well; at the most pixels whose embedding fits.
    Without: Noisy Student from scratch, the largest of a few small nets that has the time to
    learn.

    Args:
        census: The images.
        machine: Where.
        wishes: What is given.
        timer: Times a model here; the machine's own unless given.

    Raises:
        InputError: If a class has no labeled image, or a model cannot be made.
    """
    if census.least < 1:
        raise InputError("a class has no labeled image; wanted one at least, better ten")
    timer = timer or _timer(machine, wishes.precision, len(census.class_names))
    kind = wishes.teacher or ("probe" if wishes.has_weights else "scratch")
    made = (plan_frozen if kind == "probe" else plan_trained)(census, wishes, timer)
    budget = "none" if wishes.seconds is None else said_time(wishes.seconds)
    start = {"images": str(census), "machine": f"{machine}; budget {budget}"}
    over = _doubt(census.splits.get("validation", 0))
    if wishes.also:
        over["also"] = (
            f"{len(wishes.also)} more first teachers, whose time --dry-run has and this has not"
        )
    if wishes.seconds is not None and made.seconds > wishes.seconds:
        over["too long"] = f"it takes {made.seconds / wishes.seconds:.1f} times the budget"
    return replace(made, reasons={**start, **made.reasons, **over})


def _doubt(num_validation: int) -> dict[str, str]:
    """Return what is to be said of few validation images."""
    if num_validation >= _FEW_VALIDATION:
        return {}
    if not num_validation:
        return {"measured": "there is no validation image: no model can be called the best"}
    points = 200 * (0.25 / num_validation) ** 0.5
    return {
        "measured": f"{num_validation} validation images choose the best model; an accuracy "
        f"of so few is right within {points:.0f} points or so: more labeled images, or "
        "--validation, say more"
    }


def _timer(machine: Machine, precision: str, classes: int) -> Timer:
    is_free = precision == "auto" and machine.device == "cpu"
    precisions = cpu_precisions() if is_free else (precision,)

    def timed(model: Model, architecture: str) -> Timed:
        fresh = model.model_copy(update={"pretrained": False, "weights": None})
        return time_model(
            build_model(fresh, architecture, classes),
            classes=classes,
            channels=model.channels,
            size=model.resolution,
            batch=timed_batch(model.resolution),
            device=machine.device,
            precisions=precisions,
        )

    return timed
