"""What of this machine is ours: cores, and memory, or the smaller share of a container."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_V2 = ("sys/fs/cgroup", "sys/fs/cgroup/unified")
_V1 = "sys/fs/cgroup/memory"


def num_cores() -> int:
    """Return the cores that this process may run on, 1 or more."""
    return len(os.sched_getaffinity(0))


def memory_bytes(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process can have.

    That is the machine's, or the lowest limit of its control group and of all groups above it
    (cgroup v2 `memory.max`, v1 `memory.limit_in_bytes`), where that is less.

    Args:
        root: Below which `proc` and `sys` are.
    """
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    for hierarchy, controllers, group in _groups(root):
        if hierarchy == "0" and not controllers:
            for folder in _V2:
                yield from _going_up(root / folder, group, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _going_up(root / _V1, group, "memory.limit_in_bytes")


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


def _going_up(mount: Path, group: str, name: str) -> Iterator[int]:
    """Yield the limits of a group and of all above it.

    In a container the path may be the host's, of which only the end is seen, if anything: what
    is not there is passed over, up to the mount itself, which is the container's own group.
    """
    inside = PurePosixPath(group.lstrip("/"))
    for part in (inside, *inside.parents):
        if ".." in part.parts:
            continue
        try:
            text = (mount / part / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # else "max": no limit
            yield int(text)
