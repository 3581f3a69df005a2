"""A run of one's own folders: planned, unless the same command planned it before."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from plstore.errors import InputError
from plstore.exchange import Source
from plstore.report.progress import Display
from trainers.census import look_at_images, look_at_machine
from trainers.planning import Wishes, plan
from trainers.planning.kept import keep_plan, kept_plan, plan_identity
from trainers.pretrained import architecture_of
from trainers.recipe import Data, Recipe, load_recipe
from trainers.sources import open_source
from trainers.train import pick_device

RECIPE = "images"


def planned_recipe(
    data: Mapping[str, Any],
    wishes: Wishes,
    overrides: Sequence[str],
    path: Path,
    *,
    device: str,
    display: Display,
) -> tuple[Recipe, Source]:
    """Return a recipe for some folders of images, and the images.

    Args:
        data: Values of the recipe's section `data`.
        wishes: What the user has said.
        overrides: ``path.to.key=value`` each: they come last.
        path: Where the plan is kept, and found again by the same command.
        device: "auto", "cpu" or a CUDA device.
        display: Where the plan and its reasons are said.

    Raises:
        InputError: If the images or weights are not as they must be.
    """
    wishes = _with_model(wishes)
    seed = load_recipe(RECIPE, overrides, {"data": data}).seed
    source = open_source(Data.model_validate(data), seed)
    census = look_at_images(source)
    machine = look_at_machine(pick_device(device))
    given = {"data": dict(data), "overrides": list(overrides)}
    identity = plan_identity(census, machine, wishes, given)
    if (kept := kept_plan(path, identity)) is not None:
        display.say(f"plan: {path}, as it was made before; delete it for a new one")
        return kept, source
    made = plan(census, machine, wishes)
    values = {k: v for k, v in made.values.items() if k != "recipe"}
    values["data"] = {**values.get("data", {}), **data}
    top = [f"{name}={value}" for name, value in made.values.get("recipe", {}).items()]
    recipe = load_recipe(RECIPE, [*top, *overrides], values)
    keep_plan(path, recipe, made, identity)
    for title, text in made.reasons.items():
        display.say(f"{title:>9}  {text}")
    display.say(f"{'time':>9}  about {_minutes(made.seconds)}")
    display.say(f"{'recipe':>9}  {path}: change it and run the same command again")
    return recipe, source


def _with_model(wishes: Wishes) -> Wishes:
    """Name the architecture that given weights are of, where they say."""
    if wishes.model is not None or wishes.weights is None:
        return wishes
    found = architecture_of(wishes.weights)
    if found is None:
        raise InputError(
            f"--weights {wishes.weights} does not say of which model it is: no config.json of "
            "timm, no name of one. Name it with --model, such as --model resnet50"
        )
    return replace(wishes, model=found)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"  # noqa: PLR2004
