"""One image to import: with its bytes, or a file that is read when its turn comes."""

import errno
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from plstore import storage
from plstore.errors import InputError

DEFAULT_MAX_BYTES: Final = 256 << 20
"""Larger files are refused unread: 64 megapixels of four bytes each, uncompressed."""

Fault = Literal["missing", "unreadable", "over_byte_limit"]
"""Why there are no bytes of a file."""

UNSTORED: Final = ("missing", "unreadable")
"""Faults that leave no row: the file may be there, and readable, at the next import."""

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}
_OUT_OF_REACH = {errno.ETIMEDOUT, errno.ESTALE, errno.EHOSTDOWN, errno.EHOSTUNREACH}
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image to import.

    Attributes:
        key: Its name in the dataset: unique there, such as a path below the folder.
        split: One of `plstore.schema.SPLITS`.
        data: The file's bytes.
        label: Class name, where it is known to training and evaluation.
        truth: Class name that only evaluation queries may read.
        place: Where the file is, as an absolute path or URL: for imports in place.
    """

    key: str
    split: str
    data: bytes
    label: str | None = None
    truth: str | None = None
    place: str | None = None


class ImageFile(ImageRecord):
    """An image that is a file of its own: `data` reads it, each time, and nothing is kept.

    An import reads no more of them ahead than it may hold.
    """

    def __init__(
        self,
        *,
        key: str,
        split: str,
        place: str,
        label: str | None = None,
        num_bytes: int | None = None,
    ) -> None:
        """Name a file; it need not be there.

        Args:
            key: As of an `ImageRecord`.
            split: The same.
            place: Absolute path or URL.
            label: Class name, if it is known.
            num_bytes: Its size, if that was looked at.
        """
        values = {"key": key, "split": split, "place": place, "label": label, "truth": None}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "num_bytes", num_bytes)

    num_bytes: int | None

    @property
    def data(self) -> bytes:
        """The file's bytes.

        Raises:
            InputError: If they cannot be read.
        """
        found = read_file(str(self.place))
        if isinstance(found, str):
            raise InputError(f"cannot read the image {self.place}: {found}")
        return found


@dataclass(kw_only=True)
class ImportCounts:
    """What became of the images of one import.

    Every image is counted once, in `verdicts`, `already_there`, `deleted`, `deleted_copies` or
    `elsewhere`: one that was deleted from the store, by its name or its contents, does not come
    back.

    Attributes:
        already_there: By dataset and key.
        deleted: Deleted before under the same name, so not imported.
        deleted_copies: Of another name, with the very bytes of one that was deleted.
        first_deleted: Key of the first of `deleted`.
        first_copy: Key of the first of `deleted_copies`, and that of the deleted image.
        elsewhere: Labeled images that another dataset of the store has, with the same label.
        contradicting: Of those imported, images whose very bytes have another label too.
        verdicts: Accepted, or why not. Files that are missing or unreadable leave no row.
        conversions: Of accepted images, by how they were converted.
        splits: Of those imported.
    """

    already_there: int = 0
    deleted: int = 0
    deleted_copies: int = 0
    first_deleted: str = ""
    first_copy: tuple[str, str] = ("", "")
    elsewhere: int = 0
    contradicting: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    conversions: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)


class UnreachableError(InputError):
    """Files that may be there cannot be reached now; what was imported before stays."""


def file_size(place: str) -> int | None:
    """Return the bytes of a local file, None where only reading tells."""
    if _is_remote(place):
        return None
    try:
        return Path(place.removeprefix("file://")).stat().st_size
    except (OSError, ValueError):  # reading it says why
        return 0


def read_file(place: str, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes | Fault:
    """Return a file's bytes, or why there are none.

    Args:
        place: Absolute path or URL.
        max_bytes: Larger files are not read.

    Raises:
        UnreachableError: If a remote store or network file system does not answer.
    """
    if _is_remote(place):
        return _read_remote(place, max_bytes)
    try:
        return _read_local(Path(place.removeprefix("file://")), max_bytes)
    except ValueError:  # a name with a null byte
        return "missing"
    except OSError as error:
        if error.errno in _NOT_THERE:
            return "missing"
        if error.errno in _OUT_OF_REACH:
            raise _unreachable(place, error) from error
        if error.errno in _OURS:
            raise
        return "unreadable"


def _is_remote(place: str) -> bool:
    return "://" in place and not place.startswith("file://")


def _read_local(path: Path, max_bytes: int) -> bytes | Fault:
    found = path.stat()  # before it is opened: a pipe would wait for a writer
    if not stat.S_ISREG(found.st_mode):
        return "unreadable"
    return "over_byte_limit" if found.st_size > max_bytes else path.read_bytes()


def _read_remote(place: str, max_bytes: int) -> bytes | Fault:
    path = storage.location(place)
    try:
        with storage.fsspec_filesystem(path).open(str(path), "rb") as file:
            if (getattr(file, "size", None) or 0) > max_bytes:
                return "over_byte_limit"
            data: bytes = file.read(max_bytes + 1)
    except FileNotFoundError:
        return "missing"
    except (PermissionError, IsADirectoryError):
        return "unreadable"
    except Exception as error:  # each client raises its own
        raise _unreachable(place, error) from error
    return "over_byte_limit" if len(data) > max_bytes else data


def _unreachable(place: str, error: Exception) -> UnreachableError:
    reason = str(error) or type(error).__name__
    return UnreachableError(
        f"cannot reach the image {place} now: {reason}; what is imported stays. Run the same "
        "command again, and it goes on from there"
    )
