"""Work on images in processes of its own, in order, with few batches on the way."""

import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Final, TypeVar

from plstore.errors import InputError, PlstoreError
from trainers.robustness.opencv import opencv

_AHEAD: Final = 2  # tasks a worker has, so that none waits for the one who takes the results

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Task], Result], tasks: Iterator[Task], workers: int
) -> Iterator[Result]:
    """Yield what a function makes of each task, in the order of the tasks.

    At most two tasks a worker, and one, are taken before the first result is. Processes are
    spawned, not forked: a process that has loaded torch has threads, which a fork breaks. They
    end with the generator.

    Args:
        function: Of a module, so that a new process can import it.
        tasks: Each is sent to one process.
        workers: Processes; 0 does the work in this one.

    Raises:
        PlstoreError: If a process is ended from outside, as for a lack of memory.
    """
    if workers == 0:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise PlstoreError(
            f"one of {workers} processes that work on images was ended from outside, as for a "
            "lack of memory, or could not start; use fewer workers or smaller batches, and "
            "start a program that uses workers under: if __name__ == '__main__'"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def check_workers(workers: object) -> None:
    """Check a number of processes.

    Raises:
        InputError: If it is no whole number of 0 or more.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise InputError(f"workers is {workers!r}; wanted a whole number of 0 or more")


def _begin() -> None:
    """Leave an interrupt to the process that began this one, and take one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    opencv().setNumThreads(1)
