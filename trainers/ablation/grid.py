"""Grids: which runs are compared to show what, as typed TOML; all errors come at once.

A grid names cells (a recipe and what is otherwise in it), and findings (two cells, what a
paper says of them, and the sign that is expected of their difference). Words such as
``$larger`` in a cell stand for what each collection of images has in their place, so that one
grid serves several.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from plstore.errors import InputError
from trainers.recipe import problems
from trainers.robustness.published import SEVERITIES
from trainers.sections import Section

Scalar = int | float | str
Number = Literal[
    "test_accuracy",
    "validation_accuracy",
    "clean_accuracy",
    "corrupted_accuracy",
    "mCE",
    "flip_probability",
    "mFR",
    "attacked_accuracy",
]
"""What a cell takes from its run: percent, mCE and mFR by the first teacher's errors."""

OF_CORRUPTIONS: Final = frozenset({"corrupted_accuracy", "mCE"})
OF_SEQUENCES: Final = frozenset({"flip_probability", "mFR"})
OF_ATTACKS: Final = frozenset({"attacked_accuracy"})
ROBUST: Final = OF_CORRUPTIONS | OF_SEQUENCES | OF_ATTACKS | {"clean_accuracy"}

_NAME: Final = r"^[a-z0-9][a-z0-9_.-]*$"
_Name = Annotated[str, Field(pattern=_NAME)]


class Worse(Section):
    """How images are made worse for cells that measure robustness."""

    limit: Annotated[int, Field(ge=0)] = 500
    """So many test images; 0 for all."""
    severities: Annotated[list[int], Field(min_length=1)] = Field(
        default_factory=lambda: [*SEVERITIES]
    )
    """Of all 15 corruptions."""
    frames: Annotated[int, Field(ge=2)] | None = None
    """Of all ten sequences; as many as are published unless given."""
    sequence_limit: Annotated[int, Field(ge=0)] = 100
    """So many test images become sequences."""
    attack: Literal["fgsm", "pgd"] = "fgsm"
    """In the L-inf norm."""
    epsilon: Annotated[float, Field(gt=0, le=255)] = 4.0
    """Of the attack, on the scale of pixels from 0 to 255."""


class Images(Section):
    """A collection of images that the grid runs on: the recipe that every cell begins with."""

    recipe: str
    """A recipe that ships, or the path of a TOML file, beside the grid's if it is relative."""
    set: list[str] = Field(default_factory=list)
    """Overrides for all cells, as ``plstore run --set`` has them."""
    words: dict[_Name, Scalar] = Field(default_factory=dict)
    """What ``$word`` stands for in the overrides of cells."""
    about: str = ""
    """What the images are, for people: it stands in the page of findings."""
    robustness: Worse | None = None
    """In place of the grid's."""


class Cell(Section):
    """A run, and what is taken from it."""

    like: str | None = None
    """A cell whose overrides come before its own, and whose recipe, model and numbers it has
    unless it says otherwise."""
    recipe: str | None = None
    """In place of the recipe of the images."""
    set: list[str] = Field(default_factory=list)
    """Overrides, as ``plstore run --set`` has them. ``$word`` is of the images' words, or one
    of the cell's axes."""
    axes: dict[_Name, list[Scalar] | dict[_Name, Scalar]] = Field(default_factory=dict)
    """Values that ``$axis`` takes: a cell for each, of the name ``CELL-VALUE``. A table gives
    names to values, which may be words of the images themselves."""
    of: Annotated[str, Field(pattern=r"^(teacher|control|student-[1-9][0-9]?)$")] | None = None
    """Whose numbers; the first student's unless given."""
    numbers: Annotated[list[Number], Field(min_length=1)] | None = None
    """What is measured; test accuracy unless given."""


class Finding(Section):
    """Two cells, and what is expected of them."""

    id: _Name
    sentence: Annotated[str, Field(min_length=1)]
    """What is found, in a short sentence."""
    cell: str
    against: str | float
    """The other cell, or a number that the first is compared with."""
    number: Number | None = None
    """Which of the cells' numbers; the first cell's first unless given."""
    sign: Literal["+", "-"]
    """Of the difference that is expected: cell minus the other one."""
    source: str = ""
    """Where the paper says so; empty where it does not."""
    paper: tuple[float, float] | None = None
    """The paper's figures of both, in the same unit."""
    note: str = ""
    """What is to know about the comparison."""

    @model_validator(mode="after")
    def _says_its_source(self) -> "Finding":
        if (self.paper is None) != (not self.source):
            raise ValueError("paper and source go together: figures, and where they are from")
        return self

    @property
    def cells(self) -> list[str]:
        """The cells it compares."""
        return [self.cell, *([self.against] if isinstance(self.against, str) else [])]


class Grid(Section):
    """A whole experiment."""

    name: _Name
    about: str = ""
    """What is compared, for people."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | str = "0..4"
    """Numbers, or text such as "0..4"."""
    data: Annotated[dict[_Name, Images], Field(min_length=1)]
    """Images by name; the first are those unless others are asked for."""
    robustness: Worse = Worse()
    cells: Annotated[dict[_Name, Cell], Field(min_length=1)]
    findings: Annotated[list[Finding], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_each_finding_once(self) -> "Grid":
        ids = [finding.id for finding in self.findings]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"findings of the same id: {', '.join(twice)}")
        return self


def grids_folder() -> Path:
    """Return the folder of the grids that ship with plstore."""
    return Path(__file__).parents[1] / "grids"


def load_grid(name: str | Path) -> tuple[Grid, Path]:
    """Read a grid; return it, and the folder that its relative paths begin in.

    Args:
        name: A file, or the name of one that ships with plstore: "paper".

    Raises:
        InputError: If the file is not there or no TOML, or any value is not as it must be; the
            message lists all of them.
    """
    path = Path(name)
    if not path.is_file():
        path = grids_folder() / f"{name}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in grids_folder().glob("*.toml")))
        raise InputError(f"no grid {str(name)!r}: no such file, and plstore ships {shipped}")
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML: {error}") from error
    return check_grid(values, str(path)), path.parent


def check_grid(values: Mapping[str, Any], where: str) -> Grid:
    """Return values as a grid, or raise InputError with everything that is wrong."""
    try:
        return Grid.model_validate(values)
    except ValidationError as error:
        lines = "\n".join(f"  {problem}" for problem in problems(error, "grid", Grid))
        raise InputError(f"{where}: {error.error_count()} wrong\n{lines}") from error


def inherited(grid: Grid, name: str) -> Cell:
    """Return a cell with what it has of the one that it is like.

    Raises:
        InputError: If it is like a cell that is not there, or like itself.
    """
    seen, chain = [name], [grid.cells[name]]
    while (other := chain[-1].like) is not None:
        if other not in grid.cells or other in seen:
            what = "itself" if other in seen else f"{other!r}, and there is no such cell"
            raise InputError(f"cells.{name}.like: it is like {what}")
        seen.append(other)
        chain.append(grid.cells[other])
    values: dict[str, Any] = {"set": [], "axes": {}}
    for cell in reversed(chain):
        own = cell.model_dump(exclude_none=True, exclude={"like"}, exclude_unset=True)
        values |= own | {
            "set": [*values["set"], *own.get("set", [])],
            "axes": own.get("axes", {}),  # a cell of one value is like another by its own words
        }
    return Cell.model_validate(values)


def expanded(name: str, cell: Cell) -> Iterator[tuple[str, dict[str, Scalar]]]:
    """Yield the name of each cell that axes make of one, with the values of the axes."""
    names: list[tuple[str, dict[str, Scalar]]] = [(name, {})]
    for axis, values in cell.axes.items():
        named = values if isinstance(values, dict) else {str(value): value for value in values}
        names = [
            (f"{before}-{called}", {**words, axis: value})
            for before, words in names
            for called, value in named.items()
        ]
    yield from names


def filled(overrides: Sequence[str], words: Mapping[str, Scalar]) -> list[str]:
    """Return overrides with values in place of ``$word``.

    Raises:
        InputError: If a word stands for nothing.
    """
    try:
        return [Template(override).substitute(words) for override in overrides]
    except KeyError as error:
        known = ", ".join(f"${word}" for word in sorted(words)) or "none"
        raise InputError(
            f"${error.args[0]} stands for nothing; known words are {known}"
        ) from error
    except ValueError as error:
        raise InputError(f"{' '.join(overrides)}: {error}; a $ is written $$") from error
