"""When a run's iterations stop gaining, and the rest of them is left out."""

from collections.abc import Mapping

from trainers.context import Outputs
from trainers.recipe import Recipe
from trainers.steps import Step
from trainers.steps.step import CONTROL

_ACCURACY = "validation_accuracy"


def last_iteration(recipe: Recipe, done: Mapping[str, Outputs]) -> int | None:
    """Return the student after which a run ends, None while it goes on.

    That is the one at which `patience` students in a row were no better on validation images
    than the best model before them.
    """
    if recipe.patience is None:
        return None
    values: list[float] = []
    for number in range(recipe.iterations + 1):
        found = done.get(f"evaluate-{number}", {}).get(_ACCURACY)
        if found is None:
            return None
        values.append(float(found))
        late = values[-recipe.patience :]
        if number >= recipe.patience and max(late) <= max(values[: -recipe.patience]):
            return number
    return None


def is_left_out(step: Step, last: int | None) -> bool:
    """Return whether a step belongs to a student after the last one."""
    is_after = last is not None and step.iteration > last
    return is_after and step.model != CONTROL and step.kind != "label-best"
