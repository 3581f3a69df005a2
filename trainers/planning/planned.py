"""A run of one's own folders: planned, unless the same command planned it before."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from plstore.errors import InputError
from plstore.exchange import Source
from plstore.query import saved_query
from plstore.report.progress import Display
from plstore.store import Store
from trainers.events import said_time
from trainers.importing import check_store_is_its_own
from trainers.models.pretrained import architecture_of, starting_weights
from trainers.planning import Plan, Wishes, check_weights, plan
from trainers.planning.census import Census, look_at_images, look_at_machine, look_at_store
from trainers.planning.frozen import FALLBACK
from trainers.planning.kept import keep_plan, kept_plan, plan_identity
from trainers.recipe import Recipe, load_recipe
from trainers.sections import Model
from trainers.sources import open_source
from trainers.training.train import pick_device

RECIPE = "images"
_BEGINNINGS = (
    *("model.weights", "model.pretrained", "model.also", "method.", "teacher", "iteration.0"),
    "pretrain.steps",
)
"""Settings by hand that say how the first teacher begins: a plan then leaves it at that."""
_COSTS = ("pretrain.task", "train.precision")
"""Settings by hand that say how long a step takes."""
_NO_WISHES = Wishes()


def planned_recipe(
    data: Mapping[str, Any],
    wishes: Wishes,
    overrides: Sequence[str],
    path: Path,
    *,
    store: Store,
    device: str,
    display: Display,
) -> tuple[Recipe, Source]:
    """Return a recipe for some folders of images, or for those of a store, and the images.

    Args:
        data: Values of the recipe's section `data`.
        wishes: What the user has said.
        overrides: ``path.to.key=value`` each: they come last.
        path: Where the plan is kept, and found again by the same command.
        store: The run's, whose images are meant where the data names no folders.
        device: "auto", "cpu" or a CUDA device.
        display: Where the plan and its reasons are said.

    Raises:
        InputError: If the images or weights are not as they must be.
    """
    check_weights(wishes, overrides)
    wishes = _by_hand(_with_model(wishes), overrides)
    source = _open(data, overrides, store)
    census = _looked_at(source, store if data["source"] == "store" else None)
    machine = look_at_machine(pick_device(device))
    given = {"data": dict(data), "overrides": list(overrides)}
    identity = plan_identity(census, machine, wishes, given)
    if (kept := kept_plan(path, identity, census)) is not None:
        found, place = kept
        display.say(f"plan: {place}, as it was made before; delete it for a new one")
        edited = _edited(found, data, overrides, store)
        if edited is not None:
            source = edited
            census = _looked_at(edited, store if found.data.source == "store" else None)
        _say_images(display, str(census), source)
        return found, source
    if data["source"] != "store" and store.table("images").root.exists():
        check_store_is_its_own(store, source)  # before a plan is written beside it
    made = _with_settings(plan(census, machine, wishes), overrides)
    recipe = _recipe_of(made, data, overrides)
    before = keep_plan(path, recipe, made, identity, census)
    reasons = dict(made.reasons)
    _say_images(display, reasons.pop("images"), source)
    for title, text in reasons.items():
        display.say(f"{title:>9}  {text}")
    display.say(f"{'time':>9}  about {said_time(made.seconds)}")
    display.say(f"{'recipe':>9}  {path}: change it and run the same command again")
    if before is not None:
        display.say(
            f"{'before':>9}  {before}: the plan of another command, or of other images, kept"
        )
    return recipe, source


def _with_settings(made: Plan, overrides: Sequence[str]) -> Plan:
    """Return a plan that says which settings come on top of it."""
    if not overrides:
        return made
    said = f"{', '.join(overrides)}: these come last, what is said of the plan is without them"
    return replace(made, reasons={**made.reasons, "by hand": said})


def _looked_at(source: Source, store: Store | None) -> Census:
    return look_at_images(source) if store is None else look_at_store(store, source)


def _edited(
    kept: Recipe, data: Mapping[str, Any], overrides: Sequence[str], store: Store
) -> Source | None:
    """Return the images that a kept plan names if someone edited that; None where not."""
    said = load_recipe(RECIPE, overrides, {"data": data})
    unlimited = {"limit_unlabeled": None}
    sections = [recipe.data.model_copy(update=unlimited) for recipe in (said, kept)]
    if sections[0] == sections[1] and said.seed == kept.seed:
        return None
    return open_source(sections[1], kept.seed, store)


def _say_images(display: Display, images: str, source: Source) -> None:
    """Say what images there are, and what should be known of them before they are imported."""
    display.say(f"{'images':>9}  {images}")
    for what, number in source.noticed.items():
        display.say(f"{'noticed':>9}  {what}: {number}")


def plan_recipe(
    labeled: str | Path,
    unlabeled: str | Path,
    *,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    wishes: Wishes = _NO_WISHES,
    overrides: Sequence[str] = (),
    device: str = "auto",
) -> tuple[Recipe, Mapping[str, str]]:
    """Return a recipe that fits some folders of images, this machine and the time; and why.

    Args:
        labeled: A folder for each class.
        unlabeled: Images anywhere below.
        validation: As `labeled`; split off from it unless given.
        test: As `labeled`; only evaluated on.
        wishes: What is given: weights, model, pixels, methods, seconds.
        overrides: ``path.to.key=value`` each: they come last.
        device: "auto", "cpu" or a CUDA device.

    Raises:
        InputError: If the images or weights are not as they must be.
    """
    places = {
        "labeled": labeled,
        "unlabeled": unlabeled,
        "validation": validation,
        "test": test,
    }
    named = {name: str(place) for name, place in places.items() if place is not None}
    data = {"source": "folders", **named}
    check_weights(wishes, overrides)
    source = _open(data, overrides)
    machine = look_at_machine(pick_device(device))
    wishes = _by_hand(_with_model(wishes), overrides)
    made = plan(look_at_images(source), machine, wishes)
    return _recipe_of(made, data, overrides), made.reasons


def _open(
    data: Mapping[str, Any], overrides: Sequence[str], store: Store | None = None
) -> Source:
    loaded = load_recipe(RECIPE, overrides, {"data": data})
    unlimited = loaded.data.model_copy(update={"limit_unlabeled": None})
    return open_source(unlimited, loaded.seed, store)


def _recipe_of(made: Plan, data: Mapping[str, Any], overrides: Sequence[str]) -> Recipe:
    values = {name: section for name, section in made.values.items() if name != "recipe"}
    values["data"] = {**values.get("data", {}), **data}
    if "select" in values:
        values["select"] = _select_of(values["select"], overrides)
    if "iteration" in values:
        values["iteration"] = _teacher_of(values["iteration"], overrides)
    if "schedule" in values:
        values["schedule"] = _schedule_of(values["schedule"], overrides)
    top = [f"{name}={value}" for name, value in made.values.get("recipe", {}).items()]
    return load_recipe(RECIPE, [*top, *overrides], values)


def _schedule_of(planned: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the plan of a schedule; of fewer steps that the user names, a shorter warm-up."""
    steps = _named(overrides).get("train.steps", "")
    if not steps.isdecimal() or "warmup_steps" not in planned:
        return dict(planned)
    return {**planned, "warmup_steps": min(planned["warmup_steps"], int(steps) // 5)}


def _teacher_of(planned: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the plan of a teacher's training; what the user names of steps is of it too.

    A teacher that starts from what was learnt without labels keeps to its fewer steps.
    """
    named, teacher = _named(overrides), dict(planned["0"])
    train = dict(teacher["train"])
    steps = named.get("train.steps", "")
    is_pretrained = "optimizer" in teacher
    if "iteration.0.train.epochs" in named:
        del train["steps"]
    elif is_pretrained and steps.isdecimal():
        train["steps"] = min(train["steps"], int(steps))
    elif not is_pretrained and {"train.steps", "train.epochs"} & set(named):
        del train["steps"]
    return {**planned, "0": {**teacher, "train": train}}


def _named(overrides: Sequence[str]) -> dict[str, str]:
    """Return values that are given by hand, by key."""
    pairs = (override.split("=", 1) for override in overrides if "=" in override)
    return {key.strip(): value.strip() for key, value in pairs}


def _select_of(planned: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the plan of a selection; where the user names a query, what that takes of it."""
    query = load_recipe(RECIPE, overrides).select.query
    if query is None:
        return dict(planned)
    taken = {parameter.name for parameter in saved_query(query).parameters}
    return {name: value for name, value in planned.items() if name in taken}


def _by_hand(wishes: Wishes, overrides: Sequence[str]) -> Wishes:
    """Return wishes with what settings by hand say of a teacher's beginning and the time."""
    said = any(override.strip().startswith(_BEGINNINGS) for override in overrides)
    given = load_recipe(RECIPE, [o for o in overrides if o.strip().startswith(_COSTS)])
    return replace(
        wishes,
        is_taught=wishes.is_taught or said,
        versions=given.pretrain.versions,
        precision=given.train.precision,
    )


def _with_model(wishes: Wishes) -> Wishes:
    """Name the architecture that given weights are of, where they say."""
    if wishes.weights is None:
        if wishes.pretrained:  # or it says at once why they cannot be had
            architecture = wishes.model or FALLBACK
            starting_weights(Model(pretrained=True), architecture)
        return wishes
    if not Path(wishes.weights).exists():
        raise InputError(
            f"--weights is {wishes.weights!r}, which does not exist; wanted a .safetensors or "
            ".pth file, a folder with one, or hub"
        )
    if wishes.model is not None:
        return wishes
    found = architecture_of(wishes.weights)
    if found is None:
        raise InputError(
            f"--weights {wishes.weights} does not say of which model it is: no config.json of "
            "timm, no name of one. Name it with --model, such as --model resnet50"
        )
    return replace(wishes, model=found)
