"""SQL held to its limits by the system, in a process that may be ended for it.

DuckDB counts the memory of its own operators and looks at the clock between two batches of
rows. One call of a function can take a minute and gigabytes in between, and no other thread can
stop it. So where a process exists for nothing but some SQL, the kernel holds it: an address
space that can grow by the limit of memory and no further, where an allocation fails and DuckDB
says so, and a timer that ends the process where DuckDB did not end the statement.

A process is told that it is such a one by `become_expendable`; in others `held` does nothing.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_STACKS: Final = 96 << 20
"""Bytes for the stacks of threads that start with a statement: address space, hardly memory."""

_GRACE_SECONDS: Final = 0.4
"""DuckDB stops nearly every statement by itself; that is cleaner, so it is first."""

_PR_SET_PDEATHSIG: Final = 1


@dataclass
class _Held:
    expendable: bool = False
    most_bytes: int | None = None
    deadline: float | None = None


_held = _Held()


def become_expendable() -> None:
    """Say that this process may be ended by the system when SQL passes a limit."""
    _held.expendable = True


def end_with(parent: int) -> None:
    """End this process when its parent ends, however that happens (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended before it could be watched
            os._exit(1)


@contextmanager
def held(num_bytes: int, seconds: float | None, *, goes_on: bool = False) -> Iterator[None]:
    """Hold what runs inside to limits, if this process is expendable.

    Args:
        num_bytes: That it may take beyond what the process has now.
        seconds: That it may take; the process is ended by SIGALRM then. None for no limit.
        goes_on: Whether this is more of what was held last: then its limits go on too.

    Raises:
        MemoryError: By whoever asks for more memory, or an error of DuckDB for it.
    """
    if not _held.expendable or sys.platform != "linux":
        yield
        return
    import resource

    import pyarrow as pa

    if not goes_on or _held.most_bytes is None:
        _held.most_bytes = _address_space() + num_bytes + _STACKS
        _held.deadline = None if seconds is None else time.monotonic() + seconds
    before = resource.getrlimit(resource.RLIMIT_AS)
    pool = pa.default_memory_pool()
    if _held.deadline is not None:
        left = _held.deadline + _GRACE_SECONDS - time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))
    resource.setrlimit(resource.RLIMIT_AS, (_lower(_held.most_bytes, before[1]), before[1]))
    # Arrow's own pool has a gigabyte of address space from its start, which no limit counts.
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(pool)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _lower(soft: int, hard: int) -> int:
    """Return a soft limit that the hard one (-1: none) allows."""
    return soft if hard < 0 else min(soft, hard)
