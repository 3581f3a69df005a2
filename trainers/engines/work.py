"""What is done shard by shard, and the engine that does it in this process."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import monotonic
from typing import ClassVar, Final, Protocol, TypeVar

from plstore.labels import COUNTED_AT_ONCE

Task = TypeVar("Task")
Result = TypeVar("Result")
Asked = TypeVar("Asked", contravariant=True)  # noqa: PLC0105  what a worker is given
Given = TypeVar("Given", covariant=True)  # noqa: PLC0105  and what it gives back

OnImages = Callable[[int], None]
"""Called with the number of images just finished."""


def uncounted(_: int) -> None:
    """Count nothing."""


class Work(Protocol[Asked, Given]):
    """What a worker does: small, and it can be pickled. Models and stores are opened there."""

    @property
    def device(self) -> str:
        """Where it computes: "auto", "cpu" or a CUDA device."""

    def open(self, on_images: OnImages) -> Callable[[Asked], Given]:
        """Return what is called with each shard, in the worker.

        It may be called twice with the same shard, by two workers, at the same time: what it
        leaves is then there twice over and the same.
        """


class Engine(Protocol):
    """Does work on shards."""

    @property
    def commit_seconds(self) -> float:
        """How long results may wait for others to be committed with."""

    @property
    def is_here(self) -> bool:
        """Whether work is done in this process, which then hears of single images."""

    def connected(self) -> AbstractContextManager[None]:
        """Hold on to what the engine runs on, for several calls of `run`."""

    def run(
        self, work: Work[Task, Result], tasks: Sequence[Task], on_images: OnImages
    ) -> Generator[Result]:
        """Yield what comes of each task, once, in any order.

        Args:
            work: What is done.
            tasks: Shards, or ranges; small, and they can be pickled.
            on_images: Called with the number of images just finished, if work is done here.

        Raises:
            PlstoreError: What a worker raised; that no worker could be had.
        """


@dataclass(frozen=True)
class Here:
    """Does all of it in this process, in order."""

    commit_seconds: ClassVar[float] = 0.0
    is_here: ClassVar[bool] = True

    def connected(self) -> AbstractContextManager[None]:
        """Hold nothing: this process is there."""
        return nullcontext()

    def run(
        self, work: Work[Task, Result], tasks: Sequence[Task], on_images: OnImages
    ) -> Generator[Result]:
        """Yield what comes of each task, in order; see `Engine.run`."""
        if tasks:
            yield from map(work.open(on_images), tasks)


HERE: Final = Here()


def heard(results: Iterable[Result], on_result: Callable[[Result], object]) -> Iterator[Result]:
    """Yield results; each is told of as it comes, before it is committed with others."""
    for result in results:
        on_result(result)
        yield result


def portions(results: Iterable[Result], seconds: float) -> Iterator[list[Result]]:
    """Yield results in portions that are committed together.

    A portion ends with the first result that comes `seconds` after it began, or with as many as
    are counted at a commit. What came before an error is a portion too.

    Args:
        results: As they come.
        seconds: 0 for each alone.
    """
    part: list[Result] = []
    start = monotonic()
    try:
        for result in results:
            part.append(result)
            if monotonic() - start >= seconds or len(part) == COUNTED_AT_ONCE:
                yield part
                part, start = [], monotonic()
    except Exception:
        if part:
            yield part
        raise
    if part:
        yield part
