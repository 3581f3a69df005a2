"""A recipe as each of its iterations sees it, in lines for people."""

from collections.abc import Iterator
from typing import Any

from trainers.recipe import SECTIONS_BY_ITERATION, Recipe


def iteration_lines(recipe: Recipe) -> list[str]:
    """Return a line for each model of a run, and one for each key that it changes."""
    lines = []
    for number in range(recipe.iterations + 1):
        name = "the teacher" if number == 0 else f"student {number}"
        lines.append(f"{name}: {_summary(recipe, number)}")
        lines += [f"  {change}" for change in _changes(recipe, number)]
    return lines


def _summary(recipe: Recipe, number: int) -> str:
    seen = recipe.at(number)
    model, train, how = seen.model_of(number), seen.train, seen.how(number)
    what = f"{model.architecture} at {model.resolution} px, {how}"
    if how == "probe":
        return what
    length = f"{train.epochs:g} epochs" if train.epochs else f"{train.num_steps(0):,} steps"
    labeled = train.labeled_batch + (0 if number else train.pseudo_batch)
    parts = [f"{labeled:,} labeled"] if train.images == "both" or not number else []
    parts += [f"{train.pseudo_batch:,} pseudo-labeled"] if number else []
    last = ""
    if seen.finetune.is_wanted:
        last = f", then finetuned at {seen.finetuning().model.resolution} px"
    return f"{what}, {length} of {' and '.join(parts)} images, {seen.optimizer.name}{last}"


def _changes(recipe: Recipe, number: int) -> Iterator[str]:
    """Yield what is otherwise than in the sections without an iteration."""
    seen = recipe.at(number)
    for section in SECTIONS_BY_ITERATION:
        base: dict[str, Any] = getattr(recipe, section).model_dump(mode="json")
        for key, value in getattr(seen, section).model_dump(mode="json").items():
            if value != base[key]:
                yield f"{section}.{key} = {value} (else {base[key]})"
