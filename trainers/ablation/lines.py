"""What is finished of an experiment: one JSON line a cell and seed, never written over."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from plstore.errors import InputError
from plstore.storage import held, write_atomically
from trainers.sections import Section

CELLS: Final = "cells.jsonl"
_LOCK: Final = ".cells.lock"


class Line(Section):
    """A cell that is finished, of one seed."""

    cell: str
    seed: Annotated[int, Field(ge=0)]
    identity: Annotated[str, Field(min_length=1)]
    """Hash of all that the values follow from."""
    values: Annotated[dict[str, float], Field(min_length=1)]
    seconds: Annotated[float, Field(ge=0)]
    """That it took, without what other cells had done before it."""
    lineage: dict[str, Any] = Field(default_factory=dict)
    """Recipe, steps, code and store that it came of."""


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a file, none where there is no file.

    Raises:
        InputError: If a line is damaged; the message names it.
    """
    if not path.is_file():
        return []
    found = []
    for number, text in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        try:
            found.append(Line.model_validate_json(text))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise InputError(
                f"{path}, line {number} is no result of a cell ({where}: "
                f"{first['msg'].lower()}); take that line out, and the cell is run again"
            ) from error
    return found


def by_identity(lines: Iterable[Line]) -> dict[str, Line]:
    """Return lines by identity; of several, the first."""
    found: dict[str, Line] = {}
    for line in lines:
        found.setdefault(line.identity, line)
    return found


def add_lines(home: Path, new: Sequence[Line]) -> int:
    """Keep lines whose identity is not there yet; return how many they are.

    Several processes may do so at once, and each may be killed: the file is whole at any time.
    """
    home.mkdir(parents=True, exist_ok=True)
    path = home / CELLS
    with held(home / _LOCK):
        lines = read_lines(path)
        there = by_identity(lines)
        added = [line for name, line in by_identity(new).items() if name not in there]
        if added:
            text = "".join(line.model_dump_json() + "\n" for line in [*lines, *added])
            write_atomically(path, text.encode())
    return len(added)


def lines_of(files: Sequence[Path]) -> dict[Path, list[Line]]:
    """Return the results of other places, by file.

    Raises:
        InputError: If a file is not there, or a line of it is damaged.
    """
    found = {}
    for path in files:
        if not path.is_file():
            raise InputError(f"--results {path}: no such file; wanted a {CELLS}")
        found[path] = read_lines(path)
    return found
