"""A plan that is kept: a recipe beside the store, found again by the same command."""

import json
from itertools import chain, count
from pathlib import Path
from typing import Any

import tomli_w

from plstore.fingerprint import value_hash
from plstore.storage import write_atomically
from plstore.version import __version__
from trainers.planning.census import Census, Machine
from trainers.planning.wishes import Plan, Wishes
from trainers.recipe import Recipe, load_recipe

_MARK = "# made for "
_OF = "# of images: "
_ALIKE = 0.1
"""Images may be so much more, fewer or larger, and a plan is still theirs."""


def plan_identity(
    census: Census, machine: Machine, wishes: Wishes, given: dict[str, Any]
) -> str:
    """Return what a plan is known by: classes, machine, wishes and settings given by hand."""
    what = {
        "classes": list(census.class_names),
        "channels": census.channels,
        "machine": [machine.device, machine.cores, machine.gpu],
        "wishes": vars(wishes),
        "given": given,
        "code": __version__,
    }
    return value_hash(what)


def kept_plan(path: Path, identity: str, census: Census) -> tuple[Recipe, Path] | None:
    """Return the plan that is kept for the same command, machine and images, edited or not.

    The images are the same while there are about as many of about the same size: a file that
    came or went makes no other plan. It is at the path, or stands aside since another command
    was planned.
    """
    aside = sorted(path.parent.glob(f"{path.stem}-{identity}*{path.suffix}"))
    for place in (path, *aside):
        if _identity_of(place) == identity and _is_of(place, census):
            return load_recipe(place), place
    return None


def keep_plan(
    path: Path, recipe: Recipe, plan: Plan, identity: str, census: Census
) -> Path | None:
    """Write a plan as a recipe, with its reasons; return where the one before stands now."""
    values = recipe.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    lines = [_MARK + identity, _OF + json.dumps(_numbers(census))]
    lines += [f"# {title}: {text}" for title, text in plan.reasons.items()]
    lines.append("# Change what you like: the same command, or plstore run THIS_FILE, runs it.")
    text = "\n".join([*lines, "", tomli_w.dumps(values)])
    path.parent.mkdir(parents=True, exist_ok=True)
    before = _aside(path) if path.exists() else None
    if before is not None:
        path.replace(before)
    write_atomically(path, text.encode())
    return before


def _numbers(census: Census) -> dict[str, int]:
    """Return what a plan rests on: how many images, and how large."""
    return {**census.splits, "width": census.width, "height": census.height}


def _is_of(path: Path, census: Census) -> bool:
    """Whether a kept plan was made for images like these."""
    now = _numbers(census)
    try:
        found = json.loads(_line(path, 1, _OF) or "{}")
        before = {name: int(number) for name, number in found.items()}
    except (AttributeError, TypeError, ValueError):  # someone changed that line
        return False
    return before.keys() == now.keys() and all(
        abs(now[name] - before[name]) <= max(_ALIKE * before[name], 1) for name in now
    )


def _identity_of(path: Path) -> str | None:
    """Return what a kept plan was made for; None where there is none, or no plan."""
    return _line(path, 0, _MARK)


def _line(path: Path, number: int, mark: str) -> str | None:
    """Return what a line of a file says behind its mark; None where there is no such line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    if len(lines) <= number or not lines[number].startswith(mark):
        return None
    return lines[number].removeprefix(mark)


def _aside(path: Path) -> Path:
    """Return a free place for the plan that is at the path."""
    name = f"{path.stem}-{_identity_of(path) or 'before'}"
    endings = chain([""], (f"-{number}" for number in count(2)))
    places = (path.with_name(f"{name}{ending}{path.suffix}") for ending in endings)
    return next(place for place in places if not place.exists())
