"""Files of a store, in a local folder or an object store: written whole or not at all.

A local place is a `pathlib.Path`. A URL such as ``s3://bucket/store`` is a path of
universal-pathlib over fsspec, which has the same methods; its credentials come from the
environment's standard chain and from nowhere else.
"""

import hashlib
import json
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from plstore import buckets
from plstore.errors import MissingExtraError, PlstoreError, StoreError

if TYPE_CHECKING:
    import pyarrow.fs

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://")
_LOCK_SECONDS = 120.0
_LOCK_POLL_SECONDS = 0.02
_EXTRAS = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3")}


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file below a folder: its path relative to it, bytes, and when it was written."""

    path: str
    size_bytes: int
    modified: datetime


def location(path: str | Path) -> Path:
    """Return a place to read and write: an absolute path, or a URL's path object.

    Raises:
        MissingExtraError: If the URL's kind needs a package that is not installed.
    """
    if isinstance(path, str) and (url := _URL.match(path)):
        if url[1] == "file":
            return Path(path.removeprefix("file://")).resolve()
        from upath import UPath

        options = buckets.fsspec_options(url[1])
        try:
            place = UPath(path.rstrip("/"), **options)
            place.fs  # noqa: B018  makes the file system, or says what is missing
        except (ImportError, ValueError) as error:
            package, extra = _EXTRAS.get(url[1], (f"fsspec's for {url[1]}", "s3"))
            raise MissingExtraError(package, extra, f"a store at {path}") from error
        return cast("Path", place)  # it has the methods of Path that plstore calls
    if isinstance(path, str):
        path = Path(path)
    return path if is_remote(path) else path.resolve()


def is_remote(path: Path) -> bool:
    """Whether a place is in an object store."""
    return not isinstance(path, Path)


def arrow_filesystem(
    path: Path, sizes: Mapping[str, int] | None = None
) -> "pyarrow.fs.FileSystem":
    """Return how pyarrow reads files at a place.

    Args:
        path: The place.
        sizes: Bytes of files by `arrow_path`, if known: a bucket is not asked for them.
    """
    from pyarrow.fs import LocalFileSystem, PyFileSystem

    if not is_remote(path):
        return LocalFileSystem()
    from plstore.objects import ArrowFiles

    return PyFileSystem(ArrowFiles(fsspec_filesystem(path), sizes or {}))


def arrow_path(path: Path | str) -> str:
    """Return a place as pyarrow's file systems spell it: without the scheme."""
    return _URL.sub("", str(path))


def write_atomically(path: Path, data: bytes | memoryview, *, lasting: bool = True) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Args:
        path: The file.
        data: All of it.
        lasting: Whether it is to be on the disk, so that a loss of power leaves it there.

    Raises:
        StoreError: If it cannot be written (permission, read-only, disk full, no bucket).
    """
    try:
        if is_remote(path):
            _upload(path, bytes(data))
        else:
            _write_locally(path, data, once=False, lasting=lasting)
    except Exception as error:
        raise _cannot_write(path, error) from error


def _upload(path: Path, data: bytes) -> None:
    """Write an object: in one request, or in parts that are seen once all are there."""
    files, protocol = fsspec_filesystem(path), str(path).partition("://")[0]
    files.pipe_file(str(path), data, **buckets.upload_options(protocol))


def create_once(path: Path, data: bytes) -> bool:
    """Write a file unless it is there: of several writers exactly one is told True.

    Raises:
        StoreError: If it cannot be written.
    """
    try:
        if is_remote(path):
            with fsspec_filesystem(path).open(str(path), "xb") as file:  # If-None-Match: *
                file.write(data)
        else:
            _write_locally(path, data, once=True)
    except FileExistsError:
        return False
    except Exception as error:
        raise _cannot_write(path, error) from error
    return True


def _write_locally(
    path: Path, data: bytes | memoryview, *, once: bool, lasting: bool = True
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        if once:
            os.link(temporary, path)
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: Exception) -> StoreError:
    if is_remote(path) and (stopped := buckets.stopped(f"cannot write {path}", error)):
        return stopped
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return StoreError(
        f"cannot write {path}: {reason}. Nothing was committed and nothing stored is lost; "
        "make room or allow writing there, then run the same command again"
    )


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a lock that no one else holds: of this machine, or by a network's NFS.

    The system gives it up when its process ends, however that happens. In an object store, and
    where the file system has no locks, there is none.

    Args:
        lock: A file in an existing store; made where it is not there.

    Raises:
        StoreError: If another process holds it for longer than two minutes.
    """
    file = None if is_remote(lock) else _open_lock(lock)
    try:
        if file is not None:
            _wait_for_lock(lock, file)
        yield
    finally:
        if file is not None:
            os.close(file)


def _open_lock(path: Path) -> int | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:  # a store that cannot be written: the write itself says why
        return None


def _wait_for_lock(path: Path, file: int) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise StoreError(
                    f"{path} has been held by another process for {_LOCK_SECONDS:.0f} s: a "
                    "commit or a collection that was stopped and not ended? End it, then run "
                    "the same command again; nothing was written"
                ) from error
            time.sleep(random.uniform(0, _LOCK_POLL_SECONDS))  # noqa: S311  to wait is no secret
        except OSError:  # a file system without locks: the grace of a collection must do
            return
        else:
            return


def read_range(path: Path, start: int, end: int) -> bytes:
    """Return the bytes of a file from `start` up to `end`."""
    if not is_remote(path):
        with path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
    with reached(path):
        found: bytes = fsspec_filesystem(path).cat_file(str(path), start=start, end=end)
        return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, indented for people."""
    write_atomically(path, _json_bytes(value))


def create_json(path: Path, value: Mapping[str, Any]) -> bool:
    """Write a JSON file unless it is there; return whether it was written."""
    return create_once(path, _json_bytes(value))


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None where there is no file.

    Raises:
        StoreError: If the file is there and does not hold a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise StoreError(f"{path} holds no JSON ({error}); restore or delete it") from error
    except Exception as error:  # an object store raises its own
        stopped = buckets.stopped(f"cannot read {path}", error) if is_remote(path) else None
        raise stopped or StoreError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} holds {type(value).__name__}; wanted a JSON object")
    return value


def files_below(folder: Path) -> Iterator[FileEntry]:
    """Yield every file anywhere below a folder, in no order; none where there is no folder."""
    if is_remote(folder):
        yield from _objects_below(folder)
        return
    for name, _, names in os.walk(folder):
        for file in names:
            path = Path(name, file)
            try:
                status = path.stat()
            except FileNotFoundError:  # a writer's temporary file, renamed since
                continue
            yield FileEntry(
                path=path.relative_to(folder).as_posix(),
                size_bytes=status.st_size,
                modified=datetime.fromtimestamp(status.st_mtime, tz=UTC),
            )


def names_in(folder: Path) -> list[str]:
    """Return the names of what is in a folder, in no order; none where there is no folder.

    In a tenth of the time that `files_below` takes: nothing is asked about the files.
    """
    if is_remote(folder):
        return [entry.path for entry in _objects_below(folder)]
    try:
        return os.listdir(folder)  # noqa: PTH208  names alone
    except FileNotFoundError:
        return []


def _objects_below(folder: Path) -> Iterator[FileEntry]:
    from plstore.objects import below

    prefix = arrow_path(folder).rstrip("/") + "/"
    with reached(folder):
        found = list(below(fsspec_filesystem(folder), prefix))
    for name, size_bytes, written in found:
        yield FileEntry(path=name, size_bytes=size_bytes, modified=written)


@contextmanager
def reached(path: Path) -> Iterator[None]:
    """Turn what an object store's own libraries raise, such as time-outs, into a StoreError."""
    try:
        yield
    except (PlstoreError, FileNotFoundError):
        raise
    except Exception as error:
        if is_remote(path) and (stopped := buckets.stopped(f"cannot reach {path}", error)):
            raise stopped from error
        raise StoreError(
            f"cannot reach {path}: {str(error) or type(error).__name__}. What was committed "
            "stays; run the same command again"
        ) from error


def folder_bytes(path: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.size_bytes for file in files_below(path))


def modified(path: Path) -> datetime | None:
    """Return when a file was written, None where there is none."""
    try:
        if is_remote(path):
            from plstore.objects import written

            with reached(path):
                return written(fsspec_filesystem(path), str(path))
        return datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)
    except FileNotFoundError:
        return None


def delete_file(path: Path) -> None:
    """Delete a file; one that is gone already is no error."""
    with reached(path):
        path.unlink(missing_ok=True)


def cache_folder(path: Path) -> Path:
    """Return the local folder for what can be made again: by the store, or on this machine.

    For a store in an object store it is below ``$PLSTORE_CACHE``, or ``~/.cache/plstore``.
    """
    if not is_remote(path):
        return path / "_plstore" / "cache"
    home = os.environ.get("PLSTORE_CACHE") or Path.home() / ".cache" / "plstore"
    return Path(home, hashlib.sha256(str(path).encode()).hexdigest()[:16])


def put_folder(local: Path, target: Path) -> None:
    """Keep a local folder's files at a place, in one rename where that is possible.

    Raises:
        StoreError: If it cannot be written.
    """
    if is_remote(target):
        for file in sorted(path for path in local.rglob("*") if path.is_file()):
            write_atomically(target / file.relative_to(local).as_posix(), file.read_bytes())
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
        shutil.copytree(local, staging)
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
    except OSError as error:
        raise _cannot_write(target, error) from error


def get_folder(source: Path, cache: Path) -> Path:
    """Return a folder's files as a local folder: itself, or a copy in a cache."""
    if not is_remote(source):
        return source
    local = cache / source.name
    for entry in files_below(source):
        target = local / entry.path
        if not target.is_file() or target.stat().st_size != entry.size_bytes:
            with reached(source):
                data = (source / entry.path).read_bytes()
            write_atomically(target, data)
    return local


def fsspec_filesystem(path: Path) -> Any:  # noqa: ANN401  untyped there
    """Return the fsspec file system of a place in an object store."""
    return cast("Any", path).fs
