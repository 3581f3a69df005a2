"""What of this machine is ours: cores, memory, or a container's share; and sparing them."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Final

_V2: Final = ("sys/fs/cgroup", "sys/fs/cgroup/unified")
_V1: Final = "sys/fs/cgroup"
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of glibc's mallopt
_KEEP: Final = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
_USUAL: Final = ((_MMAP_MAX, 65_536), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))
"""As glibc starts, with the thresholds that it comes to by itself once 32 MiB are freed."""


def num_cores(root: Path = Path("/")) -> int:
    """Return the cores that this process may use, 1 or more.

    That is those it may run on, or as many as the lowest limit of its control group and of all
    groups above it is worth (cgroup v2 `cpu.max`, v1 `cpu.cfs_quota_us`), where that is less:
    threads beyond it all stand still once the limit is used up.

    Args:
        root: Below which `proc` and `sys` are.
    """
    return max(min([len(os.sched_getaffinity(0)), *_worth(root)]), 1)


def keep_to_share(place: int, shares: int) -> None:
    """Keep this thread, and those that it begins, to a share of the cores that it may run on.

    Processes side by side of which each computes on all cores wait for one another: on two
    cores the steps of two trainings go at 800 images a second together, where one alone goes at
    1,700 to 1,900 and two that keep to a core each at 2,250 (test_resnet, 64 px, bfloat16).

    Args:
        place: Which share, from 0.
        shares: Of how many, 1 or more; where there are more than cores, some are the same core.
    """
    cores = sorted(os.sched_getaffinity(0))
    first, end = (len(cores) * at // shares for at in (place, place + 1))
    os.sched_setaffinity(0, cores[first : max(end, first + 1)])


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it, memory that is freed stays with the process, for what asks next.

    A network makes large buffers for each batch. glibc takes those above 32 MiB from the system
    every time and gives them back, and the system fills each page with zeros again: on the CPU
    a fifth to a half of the time of a small network. At the end what is free is given back.
    Where the C library is another, or its MALLOC_ settings are in the environment, nothing
    changes.
    """
    options = _mallopt()
    if options is None:
        yield
        return
    with _keeping_lock:
        _keeping.append(None)
        for name, value in _KEEP:
            options(name, value)
    try:
        yield
    finally:
        with _keeping_lock:
            _keeping.pop()
            if not _keeping:
                for name, value in _USUAL:
                    options(name, value)
                ctypes.CDLL(None).malloc_trim(0)


_keeping: list[None] = []
_keeping_lock = Lock()


def _mallopt() -> Callable[[int, int], int] | None:
    """Return glibc's function that sets how it allocates; None where it is not ours to set."""
    if any(name.startswith("MALLOC_") for name in os.environ):
        return None
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # as on Windows
        return None
    has_both = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    return library.mallopt if has_both else None


def memory_bytes(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process can have.

    That is the machine's, or the lowest limit of its control group and of all groups above it
    (cgroup v2 `memory.max`, v1 `memory.limit_in_bytes`), where that is less.

    Args:
        root: Below which `proc` and `sys` are.
    """
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (_said(folder, "memory.max") for folder in _folders_v2(root))
    before = (_said(folder, "memory.limit_in_bytes") for folder in _folders_v1(root, "memory"))
    # "max", or nothing, is no limit
    return min([physical, *(int(text) for text in [*limits, *before] if text.isdigit())])


def _worth(root: Path) -> Iterator[int]:
    """Yield the cores that limits of processor time are worth, rounded up."""
    limits = [_said(folder, "cpu.max").split() for folder in _folders_v2(root)]
    before = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    limits += [[_said(at, name) for name in before] for at in _folders_v1(root, "cpu")]
    for limit in limits:
        if len(limit) == 2 and all(text.isdigit() for text in limit):  # noqa: PLR2004
            quota, period = map(int, limit)  # "max" or -1: no limit
            yield -(-quota // max(period, 1))


def _folders_v2(root: Path) -> Iterator[Path]:
    for hierarchy, controllers, group in _groups(root):
        if hierarchy == "0" and not controllers:
            for folder in _V2:
                yield from _going_up(root / folder, group)


def _folders_v1(root: Path, controller: str) -> Iterator[Path]:
    for _, controllers, group in _groups(root):
        if controller in controllers.split(","):
            for name in dict.fromkeys((controllers, controller)):  # as in cpu,cpuacct
                yield from _going_up(root / _V1 / name, group)


def _groups(root: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the groups that this process is in: hierarchy, controllers and path."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # another system than Linux
        return
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        yield hierarchy, controllers, group


def _going_up(mount: Path, group: str) -> Iterator[Path]:
    """Yield the folder of a group and those of all above it.

    In a container the path may be the host's, of which only the end is seen, if anything: what
    is not there says nothing, up to the mount itself, which is the container's own group.
    """
    inside = PurePosixPath(group.lstrip("/"))
    for part in (inside, *inside.parents):
        if ".." not in part.parts:
            yield mount / part


def _said(folder: Path, name: str) -> str:
    """Return what a group's file says, or nothing where there is none."""
    try:
        return (folder / name).read_text().strip()
    except OSError:
        return ""


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("not needed", name=fullname)


def import_without_pandas() -> None:
    """Import pyarrow.dataset, before anything else does, and nothing of pandas.

    Where pandas is installed, pyarrow.dataset imports it too, to learn whether it is there:
    half of the start-up time of a verb that never uses it, and much of its memory.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow.dataset  # noqa: F401  for its side effect, while pandas is hidden
    finally:
        sys.meta_path.remove(finder)
