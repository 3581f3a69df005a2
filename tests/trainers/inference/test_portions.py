"""Portions for several readers: read once, held while needed, begun again in their middle."""

from collections.abc import Iterator

import pytest

from plstore.loaders import ImageSet, image_table
from trainers.inference.portions import Portions


def image_set(size: int) -> ImageSet:
    return ImageSet(image_table((b"", 1, 1, "") for _ in range(size)), 3)


def coming(sizes: list[int], drawn: list[int]) -> Iterator[ImageSet]:
    for size in sizes:
        drawn.append(size)
        yield image_set(size)


def rows(portions: Portions, reader: int = 0) -> list[tuple[int, list[int]]]:
    return [(len(images), left.tolist()) for images, left in portions.left(reader)]


def test_every_reader_has_all_portions_and_each_is_read_once() -> None:
    drawn: list[int] = []
    portions = Portions(coming([2, 0, 3], drawn), readers=2)
    first = portions.left(0)

    assert drawn == []
    assert [len(next(first)[0]) for _ in range(2)] == [2, 0]
    assert drawn == [2, 0]
    assert rows(portions, 1) == [(2, [0, 1]), (0, []), (3, [0, 1, 2])]
    assert [len(images) for images, _ in first] == [3]
    assert drawn == [2, 0, 3]


def test_what_is_begun_again_goes_on_in_the_middle_of_a_portion() -> None:
    portions = Portions(coming([2, 0, 3], []), readers=2)
    rows(portions, 0)
    portions.done(1)
    after_one = rows(portions)
    portions.done(2)

    assert after_one == [(2, [1]), (0, []), (3, [0, 1, 2])]
    assert rows(portions) == [(3, [1, 2])]
    assert rows(portions, 1) == [(2, [0, 1]), (0, []), (3, [0, 1, 2])]  # held for it
    portions.done(2)
    assert rows(portions) == []


def test_a_portion_is_let_go_of_when_all_are_done_with_it() -> None:
    portions = Portions(coming([2, 3], []), readers=2)
    for reader in (0, 1):
        rows(portions, reader)
    portions.done(2, 0)
    held_for_one = len(portions._held)
    portions.done(2, 1)

    assert (held_for_one, len(portions._held)) == (2, 1)


def test_portions_after_an_error_are_not_lost_in_silence() -> None:
    def failing() -> Iterator[ImageSet]:
        yield image_set(2)
        raise MemoryError("no room")

    portions = Portions(failing(), readers=2)
    for reader in (0, 1, 0):
        with pytest.raises(MemoryError, match="no room"):
            rows(portions, reader)
