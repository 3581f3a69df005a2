"""A plan that is kept: a recipe beside the store, found again by the same command."""

from pathlib import Path
from typing import Any

import tomli_w

from plstore.fingerprint import value_hash
from plstore.storage import write_atomically
from plstore.version import __version__
from trainers.census import Census, Machine
from trainers.planning.wishes import Plan, Wishes
from trainers.recipe import Recipe, load_recipe

_MARK = "# made for "


def plan_identity(
    census: Census, machine: Machine, wishes: Wishes, given: dict[str, Any]
) -> str:
    """Return what a plan is known by: images, machine, wishes and settings given by hand."""
    what = {
        "images": vars(census),
        "machine": [machine.device, machine.cores, machine.gpu],
        "wishes": vars(wishes),
        "given": given,
        "code": __version__,
    }
    return value_hash(what)


def kept_plan(path: Path, identity: str) -> tuple[Recipe, Path] | None:
    """Return the plan that is kept for the same images, machine and wishes, edited or not.

    It is at the path, or stands aside since another command was planned.
    """
    for place in (path, _aside(path, identity)):
        if _identity_of(place) == identity:
            return load_recipe(place), place
    return None


def keep_plan(path: Path, recipe: Recipe, plan: Plan, identity: str) -> Path | None:
    """Write a plan as a recipe, with its reasons; return where the one before stands now."""
    values = recipe.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    lines = [_MARK + identity, *(f"# {title}: {text}" for title, text in plan.reasons.items())]
    lines.append("# Change what you like: the same command, or plstore run THIS_FILE, runs it.")
    text = "\n".join([*lines, "", tomli_w.dumps(values)])
    path.parent.mkdir(parents=True, exist_ok=True)
    before = _aside(path, _identity_of(path) or "before") if path.exists() else None
    if before is not None:
        path.replace(before)
    write_atomically(path, text.encode())
    return before


def _identity_of(path: Path) -> str | None:
    """Return what a kept plan was made for; None where there is none, or no plan."""
    try:
        first = path.read_text(encoding="utf-8").partition("\n")[0]
    except FileNotFoundError:
        return None
    return first.removeprefix(_MARK) if first.startswith(_MARK) else None


def _aside(path: Path, identity: str) -> Path:
    return path.with_name(f"{path.stem}-{identity}{path.suffix}")
