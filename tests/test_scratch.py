"""Files that can be made again are put in place whole, whoever else writes them."""

import os
import time
from pathlib import Path

import pytest

from plstore.scratch import put_in_place


def test_writers_of_one_process_id_have_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "twin.arrow"
    with put_in_place(path) as first, put_in_place(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert not path.exists()

    assert first != second
    assert path.read_text() == "first"  # it was put in place last
    assert [p.name for p in path.parent.iterdir()] == ["twin.arrow"]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "twin.arrow"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError), put_in_place(path) as temporary:
        fail(temporary)

    assert [p.name for p in tmp_path.iterdir()] == ["twin.arrow"]
    assert path.read_text() == "old"


def test_what_a_killed_writer_left_goes_after_a_day(tmp_path: Path) -> None:
    path = tmp_path / "twin[1].arrow"
    old, new = (tmp_path / f".twin[1].arrow.{digit * 32}" for digit in "ab")
    other = tmp_path / ".twin[1].arrow.lock"
    for file in (old, new, other):
        file.write_text("half")
    past = time.time() - 2 * 24 * 3600
    os.utime(old, (past, past))
    os.utime(other, (past, past))
    with put_in_place(path) as temporary:
        temporary.write_text("whole")

    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [new.name, other.name, path.name]
    )
