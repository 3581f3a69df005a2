"""The process that decodes what may be slow: it can be ended, a thread cannot.

It reads requests from its standard input and answers on its standard output, one at a time: a
length, JSON of that length, and the bytes whose number the JSON names. It limits itself by the
system: processor time and address space, for each image anew.
"""

import json
import math
import os
import resource
import signal
import struct
import sys
import time
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from plstore.decoding.decoder import decode, too_many

_LENGTH = struct.Struct("<I")
_SIZE = Path("/proc/self/statm")
_OPENING_BYTES = 1 << 30
"""Address space for what an image needs whatever its size: files, tables, a decoder's own."""

_BYTES_A_PIXEL = 64
"""Four components of 32 bits as JPEG 2000 is decoded, the image, its conversion, its PNG."""


def send(stream: BinaryIO, head: dict[str, Any], body: bytes = b"") -> None:
    """Write one message."""
    encoded = json.dumps(head | {"num_bytes": len(body)}).encode()
    stream.write(_LENGTH.pack(len(encoded)) + encoded)
    stream.write(body)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Read one message.

    Raises:
        EOFError: If the other side is gone.
    """
    head = json.loads(_exactly(stream, *_LENGTH.unpack(_exactly(stream, _LENGTH.size))))
    return head, _exactly(stream, head["num_bytes"])


def serve() -> None:
    """Decode what is asked for until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides
    warnings.simplefilter("ignore")
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is no reply
    _one_thread_each()
    send(replies, {"ready": True})
    while True:
        try:
            head, data = receive(requests)
        except EOFError:
            return
        send(replies, *_reply(data, **head))


def _reply(
    data: bytes, *, name: str, max_pixels: int, max_seconds: float, **_: int
) -> tuple[dict[str, Any], bytes]:

    def admit(pixels: int, scans: int) -> str | None:
        _limit_bytes(_OPENING_BYTES + _BYTES_A_PIXEL * pixels)
        return too_many(scans)

    _limit_seconds(max_seconds)
    _limit_bytes(_OPENING_BYTES)
    try:
        found = decode(data, name, max_pixels=max_pixels, admit=admit)
    except MemoryError:
        return {"refusal": "over_memory_limit"}, b""
    finally:
        _limit_bytes(None)
        _limit_seconds(None)
    head = found._asdict()
    content = head.pop("data")
    if content is data:
        return head | {"content": "same"}, b""
    return head | {"content": None if content is None else "new"}, content or b""


def _limit_seconds(seconds: float | None) -> None:
    """End this process once it has computed for so long from now, rounded up; None: never."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = hard
    if seconds is not None:
        soft = math.ceil(time.process_time() + seconds)
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _limit_bytes(more: int | None) -> None:
    """Let this process take so many bytes of address space more than it has; None: no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = hard
    if more is not None and _SIZE.exists():
        soft = int(_SIZE.read_text().split()[0]) * resource.getpagesize() + more
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _one_thread_each() -> None:
    """Keep decoders from starting threads: there is a process for every core already."""
    from PIL import AvifImagePlugin, Image

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.MAX_IMAGE_PIXELS = None  # `decode` has a limit itself
    Image.init()
    try:
        from pillow_heif import options
    except ImportError:  # then nobody asks for HEIC
        return
    options.DECODE_THREADS = 1


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the other side is gone")
    return data
