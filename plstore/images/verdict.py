"""One decoder, one verdict: what every image gets at import, by written rules.

Decoders disagree on damaged and odd files, and one bad image costs a GPU loader its whole
batch. So an image is decoded in full once, here, and what training reads later is either the
file as it came (8-bit grayscale or RGB; JPEG, PNG or WebP) or one converted in a stated way,
which `plstore.decoding.conversion` lists.

A thread that hangs in a decoder cannot be ended, so what might take long is decoded in a
process that can: files of more than 4 MB (PNG: 1 MB, for its profiles inflate), of more than 16
million pixels (a progressive JPEG goes over them once a scan), and every format that is
converted. All else is decoded in the thread that asks. It takes a few seconds at worst, since
no decoder of JPEG, PNG or WebP does more than a fixed amount of work for each byte, and for
each pixel and scan; and for a small file a process would cost more than the decoding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import inf
from threading import Lock

from PIL import Image, features

from plstore.decoding import (
    CONVERTED,
    KEPT,
    Decoded,
    decode,
    decode_apart,
    format_of,
    kept_processes,
    too_many,
)
from plstore.errors import InputError
from plstore.schema import ACCEPTED

DEFAULT_MAX_PIXELS = 64_000_000
DEFAULT_MAX_SECONDS = 60.0

_MAX_BYTES_HERE = {"jpeg": 4 << 20, "webp": 4 << 20, "png": 1 << 20}
_MAX_WORK_HERE = 16_000_000  # pixels times scans
_ELSEWHERE = "elsewhere"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one image is.

    Attributes:
        verdict: "accepted", or a key of `plstore.schema.REFUSALS`.
        conversion: How the stored bytes differ from the file, or None if they do not.
        data: The bytes to store; None where the image is refused.
        width: Pixels after conversion; 0 where unknown.
        height: Pixels after conversion; 0 where unknown.
    """

    verdict: str
    conversion: str | None = None
    data: bytes | None = None
    width: int = 0
    height: int = 0


@contextmanager
def large_images_are_verdicts() -> Iterator[None]:
    """Lift Pillow's own limit: `judge` reads an image's size first and has a limit itself.

    The limit is the process's, so of several threads the last one to leave puts it back. Until
    then the processes that decode what might take long are kept, too.
    """
    with _limit.lock:
        if not _limit.inside:
            _limit.before = Image.MAX_IMAGE_PIXELS
            Image.MAX_IMAGE_PIXELS = None
        _limit.inside += 1
    try:
        with kept_processes():
            yield
    finally:
        with _limit.lock:
            _limit.inside -= 1
            if not _limit.inside:
                Image.MAX_IMAGE_PIXELS = _limit.before


@dataclass
class _Limit:
    """Who is inside `large_images_are_verdicts`, and what Pillow's limit was before."""

    lock: Lock = field(default_factory=Lock)
    inside: int = 0
    before: int | None = None


_limit = _Limit()


def judge(
    data: bytes,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_seconds: float | None = DEFAULT_MAX_SECONDS,
) -> Verdict:
    """Decode an image in full and say what it is.

    Args:
        data: The file's bytes.
        max_pixels: Images of more pixels are refused before they are decoded.
        max_seconds: Processor time that an image may take, above 0; one that takes more is
            `too_slow`. None for no such limit, and none of memory: for an image that was
            judged before.

    Raises:
        InputError: If `max_seconds` is no time.
        MemoryError: If there is not the memory to decode an ordinary image.
        StoreError: If no process can be started to decode what might take long.
    """
    if not data:
        return Verdict(verdict="empty")
    name = format_of(data)
    if name is None:
        return Verdict(verdict="not_an_image")
    if name not in KEPT and not _is_read(name):
        return Verdict(verdict=f"unsupported_{name}")
    if max_seconds is None:
        return _verdict(decode(data, name, max_pixels=max_pixels, admit=_any))
    if not 0 < max_seconds < inf:
        raise InputError(
            f"an image has a limit of {max_seconds} seconds; wanted a number above 0, or None "
            "for no limit"
        )
    if len(data) <= _MAX_BYTES_HERE.get(name, -1):
        found = decode(data, name, max_pixels=max_pixels, admit=_small_ones)
        if found.refusal != _ELSEWHERE:
            return _verdict(found)
    return _verdict(decode_apart(data, name, max_pixels=max_pixels, max_seconds=max_seconds))


def _verdict(found: Decoded) -> Verdict:
    return Verdict(
        verdict=found.refusal or ACCEPTED,
        conversion=found.conversion,
        data=found.data,
        width=found.width,
        height=found.height,
    )


def _any(_pixels: int, _scans: int) -> None:
    """Admit every image."""


def _small_ones(pixels: int, scans: int) -> str | None:
    if pixels * scans > _MAX_WORK_HERE:
        return _ELSEWHERE
    return too_many(scans)


def _is_read(name: str) -> bool:
    """Whether an image of a format that is converted can be: some need a library."""
    if name == "heic":
        return find_spec("pillow_heif") is not None
    if name in {"avif", "jp2"}:
        return features.check({"avif": "avif", "jp2": "jpg_2000"}[name]) is True
    return name in CONVERTED
