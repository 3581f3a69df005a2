"""Images to look at that are in no store: a folder, a file, a list of paths.

They are named one after the other. Of a folder the names of one folder at a time are in memory,
of a list one line: a million files are no million objects.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plstore.errors import InputError
from plstore.exchange.tables import each_line

Named = tuple[str, str]
"""A file: its name, as it was given or below a folder, and its place, a path or URL."""

_FOLDER = "\0"  # behind a folder's name: sorts what is in it before its longer neighbours


@dataclass(frozen=True, kw_only=True)
class ImagePaths:
    """Files to look at.

    Attributes:
        base: Absolute folder that relative names are below.
        named: Returns them, in their order. Of a stream only once.
        num_files: How many there are; None where only reading tells.
        is_folder: Whether they are all that is below `base`.
    """

    base: str
    named: Callable[[], Iterator[Named]]
    num_files: int | None = None
    is_folder: bool = False


Paths = str | Path | Iterable[str | Path] | ImagePaths
"""A folder, a file, some paths, or what `path_list` makes of a list."""


def image_paths(paths: Paths) -> ImagePaths:
    """Return the files that are meant by a folder, the path of a file, or several paths.

    Of a folder all that is anywhere below it, hidden files and folders left out, in order of
    name; links are followed, each folder once. Several paths may be a stream: one is asked for
    when its turn comes. Relative ones are below the working directory.

    Raises:
        InputError: If there is no such folder or file, a folder cannot be listed, or a name is
            no UTF-8: a row could not name it.
    """
    if isinstance(paths, ImagePaths):
        return paths
    if not isinstance(paths, str | Path):
        return _several(paths)
    place = Path(paths)
    if place.is_dir():
        return _below(str(place))
    if not place.exists() and not _is_url(str(paths)):
        raise InputError(f"{paths} is no folder and no file; wanted images to look at")
    one = [str(paths)]
    return ImagePaths(base=str(Path.cwd()), named=lambda: map(_placed, one), num_files=1)


def path_list(file: str | Path) -> ImagePaths:
    """Return the files that a text names, one path a line; blank lines are passed over.

    Relative paths are below the folder of the text. It is read once to count them.

    Raises:
        InputError: If it cannot be read.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file} is no file; wanted a text of one path a line")
    folder = str(file.resolve().parent)

    def named() -> Iterator[Named]:
        return (_placed(line, folder) for line in each_line(file) if line.strip())

    return ImagePaths(base=folder, named=named, num_files=sum(1 for _ in named()))


def _several(paths: Iterable[str | Path]) -> ImagePaths:
    count = len(paths) if isinstance(paths, list | tuple) else None

    def named() -> Iterator[Named]:
        return (_placed(_utf8(str(path))) for path in paths)

    return ImagePaths(base=str(Path.cwd()), named=named, num_files=count)


def _placed(name: str, folder: str | None = None) -> Named:
    if folder is None or _is_url(name):
        return name, name
    return name, str(Path(folder, name))


def _is_url(path: str) -> bool:
    return "://" in path


def _below(folder: str) -> ImagePaths:
    def named() -> Iterator[Named]:
        return ((_utf8(name), place) for name, place in _walk(folder))

    return ImagePaths(
        base=os.path.realpath(folder),
        named=named,
        num_files=sum(1 for _ in named()),
        is_folder=True,
    )


def _utf8(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name {name!a} is not UTF-8; rename the file") from error
    return name


def _walk(folder: str) -> Iterator[Named]:
    """Yield the files below a folder, in order of the parts of their names."""
    seen = {_identity(folder)}
    waiting = [_entries(folder, "", is_first=True)]
    while waiting:
        name = next(waiting[-1], None)
        if name is None:
            waiting.pop()
            continue
        place = f"{folder}{os.sep}{name.removesuffix(_FOLDER)}"
        if not name.endswith(_FOLDER):
            yield name, place
        elif (one := _identity(place)) not in seen:  # else a link led there before
            seen.add(one)
            waiting.append(_entries(place, f"{name.removesuffix(_FOLDER)}/"))


def _identity(folder: str) -> tuple[int, int] | None:
    """Return what a folder is by whatever name; None of one that is gone."""
    try:
        found = Path(folder).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _entries(folder: str, below: str, *, is_first: bool = False) -> Iterator[str]:
    """Return names in a folder, in order: those of folders end with `_FOLDER`."""
    try:
        with os.scandir(folder) as entries:
            names = [
                f"{entry.name}{_FOLDER if entry.is_dir() else ''}"
                for entry in entries
                if not entry.name.startswith(".")
            ]
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not is_first:
            return iter(())  # gone since it was listed, with all that was in it
        raise InputError(
            f"cannot list the folder {folder}: {error.strerror}; allow reading it, or move it "
            "away"
        ) from error
    names.sort()
    return (below + name for name in names)
