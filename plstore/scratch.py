"""Files that can be made again, such as caches: written beside their place, then moved in."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from uuid import uuid4

_ABANDONED_SECONDS = 24 * 3600.0


@contextmanager
def put_in_place(path: Path) -> Iterator[Path]:
    """Give a name to write to; what was written takes the place of `path` at once.

    The name is no other writer's, of whatever machine or container: process ids repeat between
    those that share a disk. What writers that were killed left beside it is removed after a
    day.

    Args:
        path: In a local folder, which is made where there is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    for other in path.parent.glob(f".{escape(path.name)}.{'[0-9a-f]' * 32}"):
        try:
            age = time.time() - other.stat().st_mtime
        except FileNotFoundError:  # its writer has just moved it
            continue
        if age > _ABANDONED_SECONDS:
            other.unlink(missing_ok=True)
