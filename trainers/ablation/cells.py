"""The cells of a grid, resolved: each a recipe that loads, whose numbers, and which."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from plstore.errors import InputError
from trainers.ablation.grid import (
    Cell,
    Finding,
    Grid,
    Images,
    Number,
    Scalar,
    expanded,
    filled,
    inherited,
)
from trainers.recipe import Recipe, load_recipe, recipes_folder

DEFAULT_OF: Final = "student-1"
_CONTROL: Final = "control"


@dataclass(frozen=True, kw_only=True)
class ResolvedCell:
    """A cell as it is run.

    Attributes:
        name: Of the cell, with the values of its axes.
        recipe: Of no longer a run than the cell needs; of seed 0.
        of: "teacher", "control", or "student-N".
        numbers: What is measured.
    """

    name: str
    recipe: Recipe
    of: str
    numbers: tuple[Number, ...]

    @property
    def model(self) -> str:
        """The model in the run's steps: "0", "1", ... or "control"."""
        return {"teacher": "0"}.get(self.of, self.of.removeprefix("student-"))

    def seeded(self, seed: int) -> Recipe:
        """Return its recipe of a seed."""
        return self.recipe.model_copy(update={"seed": seed})


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a grid is run on.

    Attributes:
        data: Name of the grid's images; the first unless given.
        values: Of the recipe's section `data`, such as folders.
        overrides: Of all cells, before their own.
    """

    data: str = ""
    values: Mapping[str, object] = field(default_factory=dict)
    overrides: Sequence[str] = ()


def resolve_cells(grid: Grid, folder: Path, chosen: Chosen) -> dict[str, ResolvedCell]:
    """Return all cells of a grid by name, each checked.

    Args:
        grid: The grid.
        folder: That relative paths of recipes begin in.
        chosen: On which images.

    Raises:
        InputError: If a cell's recipe does not load, a finding's cell is not there, or has no
            such number; the message lists all that is wrong.
    """
    images = images_of(grid, chosen.data)
    found: dict[str, ResolvedCell] = {}
    wrong: list[str] = []
    for name in grid.cells:
        try:
            for resolved in _resolved(grid, name, images, folder, chosen):
                if resolved.name in found:
                    wrong.append(f"cells.{name}: its axes make {resolved.name}, which is there")
                found[resolved.name] = resolved
        except InputError as error:
            wrong.append(str(error) if "cells." in str(error) else f"cells.{name}: {error}")
    if not wrong:
        wrong = list(_wrong_findings(grid, found))
    if wrong:
        lines = "\n".join(f"  {line}" for line in wrong)
        raise InputError(f"grid {grid.name}: {len(wrong)} wrong\n{lines}")
    return found


def images_of(grid: Grid, name: str) -> Images:
    """Return the images of a name, the first unless given.

    Raises:
        InputError: If the grid has none of that name.
    """
    if name and name not in grid.data:
        raise InputError(
            f"grid {grid.name} has no images {name!r} (--data); it has {', '.join(grid.data)}"
        )
    return grid.data[name or next(iter(grid.data))]


def _resolved(
    grid: Grid, name: str, images: Images, folder: Path, chosen: Chosen
) -> Iterator[ResolvedCell]:
    cell = inherited(grid, name)
    for full_name, axes in expanded(name, cell):
        values = {axis: _worded(value, images.words) for axis, value in axes.items()}
        words = {**images.words, **values}
        overrides = filled([*images.set, *chosen.overrides, *cell.set], words)
        recipe = load_recipe(
            _place(cell.recipe or images.recipe, folder), overrides, {"data": {**chosen.values}}
        )
        of = cell.of or DEFAULT_OF
        yield ResolvedCell(
            name=full_name,
            recipe=_as_long_as(recipe, of),
            of=of,
            numbers=_numbers(cell),
        )


def _worded(value: Scalar, words: Mapping[str, Scalar]) -> Scalar:
    return filled([value], words)[0] if isinstance(value, str) else value


def _numbers(cell: Cell) -> tuple[Number, ...]:
    return tuple(cell.numbers or ("test_accuracy",))


def _place(recipe: str, folder: Path) -> str | Path:
    """Return a recipe's name, or its path: beside the grid if it is relative."""
    ships = (recipes_folder() / f"{recipe}.toml").is_file()
    return recipe if ships and not recipe.endswith(".toml") else folder / recipe


def _as_long_as(recipe: Recipe, of: str) -> Recipe:
    """Return a recipe without what comes after the model that is asked for."""
    changes: dict[str, Any] = {
        "control": of == _CONTROL,
        "label": recipe.label.model_copy(update={"best": False}),
        "patience": None,
    }
    if of == "teacher":
        changes["iterations"] = 1
    elif of != _CONTROL:
        changes["iterations"] = int(of.removeprefix("student-"))
    return recipe.model_copy(update=changes)


def _wrong_findings(grid: Grid, cells: Mapping[str, ResolvedCell]) -> Iterator[str]:
    for place, finding in enumerate(grid.findings):
        where = f"findings.{place} ({finding.id})"
        if unknown := [name for name in finding.cells if name not in cells]:
            known = ", ".join(cells)
            yield f"{where}: no cell {unknown[0]!r}; the grid has {known}"
            continue
        number = number_of(finding, cells)
        for name in finding.cells:
            if number not in cells[name].numbers:
                has = ", ".join(cells[name].numbers)
                yield f"{where}: cell {name} has no number {number}; it has {has}"


def number_of(finding: Finding, cells: Mapping[str, ResolvedCell]) -> Number:
    """Return what a finding compares."""
    return finding.number or cells[finding.cell].numbers[0]


def chosen_findings(grid: Grid, only: Sequence[str]) -> list[Finding]:
    """Return the findings that are asked for; all unless some are named.

    Raises:
        InputError: If there is none of a name.
    """
    known = [finding.id for finding in grid.findings]
    if unknown := [name for name in only if name not in known]:
        raise InputError(f"--only {unknown[0]}: no such finding; known are {', '.join(known)}")
    return [finding for finding in grid.findings if not only or finding.id in only]


def needed(
    findings: Sequence[Finding], cells: Mapping[str, ResolvedCell]
) -> list[ResolvedCell]:
    """Return the cells that findings compare, in the order of the grid."""
    names = {name for finding in findings for name in finding.cells}
    return [cell for name, cell in cells.items() if name in names]
