"""Finished cells: kept, told apart, never written over."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plstore.errors import InputError
from trainers.ablation.lines import CELLS, Line, add_lines, by_identity, lines_of, read_lines


def line(identity: str, value: float = 1.0, seed: int = 0) -> Line:
    return Line(
        cell="a", seed=seed, identity=identity, values={"test_accuracy": value}, seconds=1
    )


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    assert add_lines(tmp_path, [line("x", 1), line("y", 2)]) == 2
    before = (tmp_path / CELLS).read_text()
    assert add_lines(tmp_path, [line("x", 9), line("z", 3)]) == 1
    assert (tmp_path / CELLS).read_text().startswith(before)
    assert by_identity(read_lines(tmp_path / CELLS))["x"].values == {"test_accuracy": 1}
    assert add_lines(tmp_path, []) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"cell": "a", "seed": 0', "the line: invalid json"),
        ('{"cell": "a"}', "seed: field required"),
        ("", "the line: invalid json"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, text: str, words: str) -> None:
    add_lines(tmp_path, [line("x")])
    path = tmp_path / CELLS
    path.write_text(path.read_text() + text + "\n")

    with pytest.raises(InputError, match=re.escape(words)) as told:
        read_lines(path)
    assert f"{path}, line 2 is no result of a cell" in str(told.value)
    with pytest.raises(InputError, match="line 2"):
        add_lines(tmp_path, [line("y")])
    assert path.read_text().endswith(text + "\n")


def test_results_of_another_place_are_taken_over(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    add_lines(there, [line("x", 5), line("y", 6)])
    add_lines(here, [line("x", 1)])

    found = lines_of([there / CELLS])[there / CELLS]
    assert add_lines(here, found) == 1
    assert [found.values["test_accuracy"] for found in read_lines(here / CELLS)] == [1, 6]
    with pytest.raises(InputError, match=r"no such file; wanted a cells\.jsonl"):
        lines_of([tmp_path / "none.jsonl"])


def test_several_add_lines_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as writers:
        list(writers.map(lambda n: add_lines(tmp_path, [line(str(n), n)]), range(60)))

    assert {n.identity for n in read_lines(tmp_path / CELLS)} == {str(n) for n in range(60)}
