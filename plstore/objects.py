"""Objects of a bucket, looked at with as few requests as answer the question.

fsspec asks more than once whether a path is a file or a folder, and reads ahead. Of S3, which
has no folders, one request is enough.
"""

import io
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow.fs

_Listed = tuple[str, int, datetime]


def _is_s3(files: Any) -> bool:  # noqa: ANN401  untyped there
    return "s3" in files.protocol


def written(files: Any, path: str) -> datetime | None:  # noqa: ANN401
    """Return when an object was written, None where there is none: one HEAD.

    Args:
        files: fsspec's file system.
        path: URL or path of the object.
    """
    try:
        if _is_s3(files):
            bucket, key, _ = files.split_path(path)
            status = files.call_s3("head_object", Bucket=bucket, Key=key)
        else:
            status = files.info(path, refresh=True)
    except FileNotFoundError:
        return None
    found: datetime = status.get("LastModified") or datetime.now(UTC)
    return found


def below(files: Any, prefix: str) -> Iterator[_Listed]:  # noqa: ANN401
    """Yield path below a prefix, bytes and time of every object: one LIST for a thousand.

    Args:
        files: fsspec's file system.
        prefix: Path without scheme, ending in a slash.
    """
    if not _is_s3(files):
        files.invalidate_cache()
        for name, status in files.find(prefix, detail=True).items():
            time = status.get("LastModified") or status.get("mtime") or datetime.now(UTC)
            yield str(name).removeprefix(prefix), int(status["size"]), time
        return
    bucket, _, start = prefix.partition("/")
    more: dict[str, str] = {}
    while True:
        page = files.call_s3("list_objects_v2", Bucket=bucket, Prefix=start, **more)
        for found in page.get("Contents", ()):
            if name := found["Key"].removeprefix(start):
                yield name, int(found["Size"]), found["LastModified"]
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


class _Ranges(io.RawIOBase):
    """An object whose every read is one GET."""

    def __init__(self, files: Any, path: str, size: int) -> None:  # noqa: ANN401
        super().__init__()
        self._files, self._path, self._size, self._at = files, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        data: bytes = self._files.cat_file(self._path, start=self._at, end=end)
        self._at += len(data)
        return data


class ArrowFiles(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]  # untyped there
    """How pyarrow reads objects: just the bytes that it asks for, and sizes that are known."""

    def __init__(self, files: Any, sizes: Mapping[str, int]) -> None:  # noqa: ANN401
        """Take fsspec's file system, and bytes of files by path, as far as they are known."""
        super().__init__(files)
        self._sizes = sizes

    def get_file_info(self, paths: list[str]) -> list[Any]:
        """Return what paths are; one whose size is known is a file."""
        from pyarrow.fs import FileInfo, FileType

        unknown = [path for path in paths if path not in self._sizes]
        asked = dict(zip(unknown, super().get_file_info(unknown), strict=True))
        return [
            asked[path] if path in asked else FileInfo(path, FileType.File, size=size)
            for path in paths
            for size in [self._sizes.get(path)]
        ]

    def open_input_file(self, path: str) -> Any:  # noqa: ANN401
        """Open an object; its size is asked for only where it is not known."""
        size = self._sizes.get(path)
        if size is None:
            size = int(self.fs.info(path)["size"])
        return pyarrow.PythonFile(_Ranges(self.fs, path, size), mode="r")
