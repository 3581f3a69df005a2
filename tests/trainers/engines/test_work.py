"""Engines that need no cluster: this process, and what is asked of Ray before it starts."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from plstore.errors import InputError
from tests.trainers.engines.given import Failing
from trainers.engines import HERE, Ray, portions


def test_this_process_does_tasks_in_order_and_opens_nothing_for_none() -> None:
    class Counted(Failing):
        opened = 0

        def open(self, on_images: Callable[[int], None]) -> Callable[[int], float]:
            Counted.opened += 1
            return super().open(on_images)

    with HERE.connected():
        none = list(HERE.run(Counted(), [], lambda _: None))
        some = list(HERE.run(Counted(), [4, 2], lambda _: None))

    assert (none, some, Counted.opened) == ([], [0.25, 0.5], 1)


def test_results_are_committed_alone_or_as_many_as_are_counted() -> None:
    assert list(portions(range(3), 0)) == [[0], [1], [2]]
    assert list(map(len, portions(range(600), 3600))) == [256, 256, 88]
    assert list(portions([], 3600)) == []


def test_what_came_before_an_error_is_committed() -> None:
    def results() -> Iterator[int]:
        yield 1
        yield 2
        raise InputError("the third is wrong")

    found: list[list[int]] = []
    with pytest.raises(InputError, match="the third is wrong"):
        found.extend(portions(results(), 3600))

    assert found == [[1, 2]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": (0, 4)}, "workers are 0..4; wanted such as 1..8, at least 1"),
        ({"workers": (4, 2)}, "workers are 4..2; wanted such as 1..8"),
        ({"cpus": 0}, "a worker has 0 CPUs and None GPUs; wanted at least 1 and 0"),
        ({"gpus": -1.0}, "a worker has 1 CPUs and -1.0 GPUs; wanted at least 1 and 0"),
    ],
)
def test_impossible_workers_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Ray(**options)


def test_an_address_where_nothing_listens_is_told_at_once(
    unused_port: Callable[[], int],
) -> None:
    address = f"127.0.0.1:{unused_port()}"
    engine = Ray(address=address)
    words = f"no Ray cluster at {address}: .*refused. Wanted the address of its head"
    with pytest.raises(InputError, match=words), engine.connected():
        pass
