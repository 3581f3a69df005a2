"""Files looked at ahead of their turn: read, hashed and judged, in order, in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Condition
from typing import Final

from plstore.fingerprint import content_hash
from plstore.images.records import (
    DEFAULT_MAX_BYTES,
    UNSTORED,
    Fault,
    ImageFile,
    ImageRecord,
    file_size,
    read_file,
)
from plstore.images.verdict import DEFAULT_MAX_PIXELS, Verdict, judge
from plstore.schema import ACCEPTED

IN_FLIGHT_BYTES: Final = 64 << 20
"""Bytes of files that are held at once, read and not yet written: one larger file alone."""

_IN_FLIGHT_FILES = 256
_UNKNOWN_SIZE = 1 << 20  # of a remote file, until it is read
_REMEMBERED = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What was seen of an image.

    Attributes:
        record: Which.
        content: Hash of its bytes in hexadecimal digits, None where there were none to read.
        num_bytes: How many there are; 0 where nothing tells.
        verdict: None where nobody asked for it.
    """

    record: ImageRecord
    content: str | None
    num_bytes: int
    verdict: Verdict | None

    @property
    def num_held(self) -> int:
        """Bytes that were read."""
        return 0 if self.content is None else self.num_bytes


class Looking:
    """Reads and judges images; what was judged before, and is as it was, is not decoded again.

    Each of its threads, four more than there are processors, decodes one image at a time.
    """

    def __init__(
        self, *, max_pixels: int = DEFAULT_MAX_PIXELS, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> None:
        """Set the limits above which an image is refused."""
        self.max_pixels = max_pixels
        self.max_bytes = max_bytes
        self._judged: dict[str, Verdict] = {}

    def all(
        self, records: Iterable[ImageRecord], asks: Callable[[ImageRecord, str | None], bool]
    ) -> Iterator[Looked]:
        """Yield what is seen of each record, in their order.

        Args:
            records: Which; those that are files are read in threads.
            asks: Whether a record with these contents is to be judged; called in threads.

        Raises:
            UnreachableError: If a remote store does not answer.
        """
        window = _Window()

        def look(record: ImageRecord, number: int) -> Looked:
            if isinstance(record, ImageFile):
                window.enter(number, self._expected(record))
            seen = self._look(record, asks)
            window.entered(number, seen.num_held)
            return seen

        with ThreadPoolExecutor() as pool:
            try:
                for number, record in enumerate(records):
                    size = 0 if isinstance(record, ImageFile) else len(record.data)
                    while window.is_full(size):
                        yield from window.first()
                    window.add(number, size)
                    window.waiting.append(pool.submit(look, record, number))
                while window.waiting:
                    yield from window.first()
            finally:
                window.close()
                pool.shutdown(wait=True, cancel_futures=True)

    def verdicts(self, records: Iterable[ImageRecord]) -> Iterator[str]:
        """Yield the verdict on each record before it is imported, and remember it."""
        for seen in self.all(records, lambda _, __: True):
            verdict = seen.verdict
            has_room = len(self._judged) < _REMEMBERED
            if has_room and seen.content and verdict and verdict.conversion is None:
                self._judged[seen.content] = replace(verdict, data=None)
            yield "" if verdict is None else verdict.verdict

    def _expected(self, record: ImageFile) -> int:
        """Return how many bytes a file will take, or a guess of it; called in threads."""
        size = _num_bytes(record)
        return _UNKNOWN_SIZE if size is None else size if size <= self.max_bytes else 0

    def _look(
        self, record: ImageRecord, asks: Callable[[ImageRecord, str | None], bool]
    ) -> Looked:
        data = self._read(record)
        if isinstance(data, str):
            asked = asks(record, None) or data in UNSTORED
            return Looked(
                record=record,
                content=None,
                num_bytes=_num_bytes(record) or 0,
                verdict=Verdict(verdict=data) if asked else None,
            )
        content = content_hash(data)
        verdict = self._judge(data, content) if asks(record, content) else None
        return Looked(record=record, content=content, num_bytes=len(data), verdict=verdict)

    def _read(self, record: ImageRecord) -> bytes | Fault:
        if isinstance(record, ImageFile):
            return read_file(str(record.place), self.max_bytes)
        return record.data if len(record.data) <= self.max_bytes else "over_byte_limit"

    def _judge(self, data: bytes, content: str) -> Verdict:
        before = self._judged.get(content)
        if before is not None:
            return replace(before, data=data if before.verdict == ACCEPTED else None)
        return judge(data, max_pixels=self.max_pixels)


def _num_bytes(record: ImageRecord) -> int | None:
    """Return the bytes of an image, None of a remote file that was not read."""
    if not isinstance(record, ImageFile):
        return len(record.data)
    return file_size(str(record.place)) if record.num_bytes is None else record.num_bytes


class _Window:
    """What is on its way, in order, and how many bytes of it are held.

    A file is read once there is room for it, or it is the first of those on their way: so it
    never waits for others that wait for it, and one file at most is above the limit.
    """

    def __init__(self) -> None:
        self.waiting: deque[Future[Looked]] = deque()
        self._changed = Condition()
        self._sizes: dict[int, int] = {}
        self._held = 0
        self._first = 0
        self._num_stopped = 0
        self._closed = False

    def is_full(self, size: int) -> bool:
        too_many = len(self.waiting) >= _IN_FLIGHT_FILES
        return bool(self.waiting) and (too_many or self._held + size > IN_FLIGHT_BYTES)

    def add(self, number: int, size: int) -> None:
        """Count bytes that are held already."""
        self.entered(number, size)

    def enter(self, number: int, size: int) -> None:
        """Wait until a file of this size may be read."""
        with self._changed:
            if not self._has_room(number, size):
                self._num_stopped += 1
                self._changed.wait_for(lambda: self._has_room(number, size))
                self._num_stopped -= 1
            self._hold(number, size)

    def _has_room(self, number: int, size: int) -> bool:
        is_due = self._closed or number == self._first
        return is_due or self._held + size <= IN_FLIGHT_BYTES

    def entered(self, number: int, size: int) -> None:
        """Count the bytes that a file has, now that it is read."""
        with self._changed:
            self._hold(number, size)
            if self._num_stopped:  # it may be less than was expected
                self._changed.notify_all()

    def _hold(self, number: int, size: int) -> None:
        self._held += size - self._sizes.get(number, 0)
        self._sizes[number] = size

    def first(self) -> Iterator[Looked]:
        """Yield what comes first, and let go of it."""
        yield self.waiting.popleft().result()
        with self._changed:
            self._hold(self._first, 0)
            del self._sizes[self._first]
            self._first += 1
            if self._num_stopped:
                self._changed.notify_all()

    def close(self) -> None:
        """Let those that wait go: nobody takes what they read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
