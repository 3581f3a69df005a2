"""Decoding in processes of its own: an image that hangs, crashes or eats memory ends alone.

A process takes a fifth of a second to start, so it serves many images, and there are no more
than cores. They are kept while somebody is inside `kept_processes`.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Lock
from typing import Any, BinaryIO, cast

from plstore.decoding.decoder import Decoded
from plstore.decoding.worker import receive, send
from plstore.errors import StoreError

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from plstore.decoding.worker import serve; serve()"
)
_SECONDS_TO_START = 60.0
_WAITING = 4
"""Times the seconds of work that are waited for: other programs may have the cores."""

_ATTEMPTS = 2
"""A process may be ended from outside, by the system or a person: once is no proof."""

_ENDED_BY: dict[int, str] = {signal.SIGXCPU: "too_slow", signal.SIGKILL: "over_memory_limit"}
"""What a signal says of an image; the system kills where memory is gone."""


class _LateError(Exception):
    """No answer within the time."""


class _Process:
    """One process that decodes."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as complaints:
            self._popen = subprocess.Popen(  # noqa: S603  this interpreter, this package
                [sys.executable, "-c", _START, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
            )
            self._requests = cast("BinaryIO", self._popen.stdin)
            self._replies = cast("BinaryIO", self._popen.stdout)
            self._poll = select.poll()
            self._poll.register(self._replies, select.POLLIN)
            try:
                self._receive(_SECONDS_TO_START)
            except (EOFError, _LateError) as error:
                self.end()
                complaints.seek(0)
                last = complaints.read().decode(errors="replace").strip().splitlines()[-1:]
                raise StoreError(
                    "the process that decodes images did not start"
                    f"{': ' if last else ''}{''.join(last)}. It runs {sys.executable}"
                ) from error

    def ask(self, data: bytes, seconds: float, request: dict[str, Any]) -> Decoded:
        """Return what came of an image.

        Raises:
            EOFError: If the process died of it.
            _LateError: If it took too long.
        """
        try:
            send(self._requests, request | {"max_seconds": seconds}, data)
        except BrokenPipeError as error:
            raise EOFError from error
        head, body = self._receive(_WAITING * seconds)
        kinds = {"same": data, "new": body, None: None}
        content = kinds[head.pop("content", None)]
        return Decoded(data=content, **{k: v for k, v in head.items() if k != "num_bytes"})

    def end(self) -> int:
        """End the process; return its exit status, negative for a signal."""
        self._popen.kill()
        status = self._popen.wait()
        self._replies.close()
        with suppress(BrokenPipeError):  # bytes that it did not live to read
            self._requests.close()
        return status

    def _receive(self, seconds: float) -> tuple[dict[str, Any], bytes]:
        if not self._poll.poll(1000 * seconds):
            raise _LateError
        return receive(self._replies)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class _Pool:
    """Processes that wait for work, and how many are inside `kept_processes`."""

    idle: list[_Process] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)
    room: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(_cores()))
    inside: int = 0

    def take(self, *, new: bool) -> _Process:
        with self.lock:
            if self.idle and not new:
                return self.idle.pop()
        return _Process()

    def give(self, process: _Process) -> None:
        with self.lock:
            if self.inside:
                self.idle.append(process)
                return
        process.end()


_pool = _Pool()


def _forget() -> None:
    """Leave the processes to the parent, whose they are."""
    global _pool  # noqa: PLW0603  a fork has its own
    _pool = _Pool()


os.register_at_fork(after_in_child=_forget)


@contextmanager
def kept_processes() -> Iterator[None]:
    """Keep the processes from one image to the next, until the last thread inside has left."""
    pool = _pool
    with pool.lock:
        pool.inside += 1
    try:
        yield
    finally:
        with pool.lock:
            pool.inside -= 1
            ended = [] if pool.inside else pool.idle
            pool.idle = pool.idle if pool.inside else []
        for process in ended:
            process.end()


def decode_apart(data: bytes, name: str, *, max_pixels: int, max_seconds: float) -> Decoded:
    """Decode an image as `decode` does, in another process, within limits.

    Args:
        data: The file's bytes.
        name: Its format, as `format_of` names it.
        max_pixels: Images of more pixels are refused before they are decoded.
        max_seconds: Processor time it may take, rounded up to a second; it is waited for four
            times as long.

    Returns:
        What came of it; the refusal is `too_slow`, `over_memory_limit` or, where a decoder
        crashes, `damaged`.

    Raises:
        StoreError: If no process can be started.
    """
    request = {"name": name, "max_pixels": max_pixels}
    pool = _pool
    status = 0
    with pool.room:
        for attempt in range(_ATTEMPTS):
            process = pool.take(new=attempt > 0)
            try:
                found = process.ask(data, max_seconds, request)
            except _LateError:
                process.end()
                return Decoded(refusal="too_slow")
            except EOFError:
                status = process.end()
                if status == -signal.SIGXCPU:
                    break
            except BaseException:
                process.end()
                raise
            else:
                pool.give(process)
                return found
    return Decoded(refusal=_ENDED_BY.get(-status, "damaged"))
