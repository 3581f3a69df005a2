"""Members of a tar, one after the other, in bounded memory.

The archive is read forwards and never unpacked: names are names, wherever they seem to lead.
Python's `tarfile` takes a damaged header for the end of an archive, so the end is looked at
here: what is cut off, damaged or followed by more is an error and no shorter archive.
"""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from plstore.errors import InputError

_BLOCK: Final = tarfile.BLOCKSIZE
_BUFFER: Final = 128 * _BLOCK
_HEADER_BYTES: Final = 1 << 20  # of one member: long names, attributes
_PACKED: Final[dict[bytes, Callable[..., Any]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A member of a tar; its bytes can be read until the next one is asked for.

    Attributes:
        name: Its path in the archive.
        size: In bytes.
        is_file: Whether it is a file, and no folder, link or device.
        is_folder: Whether it is a folder.
        read: Returns its bytes, or so many of them.
    """

    name: str
    size: int
    is_file: bool
    is_folder: bool
    read: Callable[[int], bytes]


def tar_members(path: Path) -> Iterator[Member]:
    """Yield the members of a tar, plain or packed with gzip, bzip2 or xz.

    Raises:
        InputError: If it is no tar, or is cut off or damaged; members of before were yielded.
    """
    with _as_input_error(path), _unpacked(path) as stream:
        forward = _Forward(stream)
        with tarfile.open(fileobj=forward, mode="r|", bufsize=_BUFFER) as tar:  # type: ignore[call-overload]  # it reads, and that is all that is asked of it
            while (member := tar.next()) is not None:
                tar.members.clear()  # else it keeps every one
                if member.issparse():
                    raise InputError(
                        f"{path}: {member.name!a} is a sparse file; write it whole"
                    )
                data_blocks = -(-member.size // _BLOCK)
                forward.end = member.offset_data + data_blocks * _BLOCK
                yield Member(
                    name=_name(path, member.name),
                    size=member.size,
                    is_file=member.isfile(),
                    is_folder=member.isdir(),
                    read=partial(_read, path, tar, member),
                )
            forward.check_end(tar.offset)


class _Forward:
    """A stream that is read forwards, and no further than there is something to read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._position = self.end = 0
        self._num_ends = 0
        self._last = b""

    def read(self, size: int) -> bytes:
        """Return the next bytes, for `tarfile`."""
        data = self._stream.read(size)
        self._position += len(data)
        self._last = (self._last + data)[-2 * _BUFFER :]
        self._num_ends += not data
        if self._num_ends > 1:  # it would ask for all that a header promises
            raise EOFError("it ends inside of a member: it is cut off")
        if self._position > self.end + _HEADER_BYTES + _BUFFER:
            raise tarfile.ReadError(f"a header of more than {_HEADER_BYTES} bytes")
        return data

    def check_end(self, offset: int) -> None:
        """Refuse an archive that stops at an offset for another reason than its end."""
        rest = self._last[offset - (self._position - len(self._last)) :]
        if len(rest) < _BLOCK:
            raise EOFError(
                "it has no end (two blocks of zeros): it is cut off, or was not closed when it "
                "was written"
            )
        if rest[:_BLOCK].strip(b"\0"):
            raise tarfile.ReadError(f"no header of a member at byte {offset}: it is damaged")
        while rest:
            if rest.strip(b"\0"):
                raise tarfile.ReadError(
                    f"more after its end at byte {offset}: several tars in one file are to be "
                    "given as several files"
                )
            rest = self._stream.read(_BUFFER)


@contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as a tar: {error}. Wanted a "
            "whole tar, plain or packed with gzip, bzip2 or xz: copy or write it again"
        ) from error


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        head = file.read(6)
        file.seek(0)
        for magic, open_packed in _PACKED.items():
            if head.startswith(magic):
                with open_packed(file) as stream:
                    yield stream
                return
        yield file


def _read(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, size: int) -> bytes:
    with _as_input_error(path):
        stream = tar.extractfile(member)
        return b"" if stream is None else stream.read(size)


def _name(path: Path, name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path}: the name {name!a} is not UTF-8; rename the member"
        ) from error
    return name
