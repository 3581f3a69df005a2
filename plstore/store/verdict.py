"""One decoder, one verdict: what every image gets at import, by written rules.

Decoders disagree on damaged and odd files, and one bad image costs a GPU loader its whole
batch. So an image is decoded in full once, here, and what training reads later is either the
file as it came (8-bit grayscale or RGB; JPEG, PNG or WebP) or a PNG converted in a stated way:

=============== ==================================================================
conversion      how
=============== ==================================================================
exif_rotated    turned upright as its EXIF orientation says
cmyk            to RGB by Pillow's formula, no colour profile
sixteen_bit     the high byte of each value
alpha           transparency dropped, not blended
palette         to RGB
low_bit_depth   1, 2 or 4 bits a pixel, to 8-bit grayscale
=============== ==================================================================
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from plstore.schema import ACCEPTED

DEFAULT_MAX_PIXELS = 64_000_000

_FORMATS = ("JPEG", "PNG", "WEBP")
_KNOWN_FORMATS = (*_FORMATS, "GIF", "BMP", "TIFF")
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8, _END_OF_IMAGE)
_TURNED = range(2, 9)
_ORIENTATION = 0x0112
_PNG_DEPTH_OFFSET = 24
_EIGHT_BITS = 8
_MODES: dict[str, str | None] = {
    "L": None,
    "RGB": None,
    "1": "low_bit_depth",
    "CMYK": "cmyk",
    "P": "palette",
    "PA": "palette",
    "LA": "alpha",
    "RGBA": "alpha",
}
_SIXTEEN_BITS = 16


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

    The limit is the process's, so of several threads the last one to leave puts it back.
    """
    with _limit.lock:
        if not _limit.inside:
            _limit.before = Image.MAX_IMAGE_PIXELS
            Image.MAX_IMAGE_PIXELS = None
        _limit.inside += 1
    try:
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


def judge(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Verdict:
    """Decode an image in full and say what it is.

    Args:
        data: The file's bytes.
        max_pixels: Images of more pixels are refused before they are decoded.
    """
    if not data:
        return Verdict(verdict="empty")
    Image.init()  # all formats, once: a TIFF is named as such
    try:
        with Image.open(io.BytesIO(data), formats=_KNOWN_FORMATS) as image:
            return _judge_opened(image, data, max_pixels)
    except UnidentifiedImageError:
        return Verdict(verdict="not_an_image")
    except Image.DecompressionBombError:
        return Verdict(verdict="over_pixel_limit")
    except Exception as error:  # noqa: BLE001  decoders raise anything on damaged files
        cut = data.startswith(b"RIFF") and _ends_early("WEBP", data)
        cut = cut or "truncated" in str(error)
        return Verdict(verdict="truncated" if cut else "damaged")


def _judge_opened(image: Image.Image, data: bytes, max_pixels: int) -> Verdict:
    width, height = image.size
    kind = "JPEG" if image.format == "MPO" else image.format  # a phone's JPEG with a preview
    refusal = None
    if kind not in _FORMATS:
        refusal = "unsupported_format"
    elif image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        refusal = "animated"
    elif width * height > max_pixels:
        refusal = "over_pixel_limit"
    elif _ends_early(kind, data):
        refusal = "truncated"
    if refusal is not None:
        return Verdict(verdict=refusal, width=width, height=height)
    image.load()
    conversion = _conversion(image, data)
    if conversion is None:
        return Verdict(verdict=ACCEPTED, data=data, width=width, height=height)
    converted = _convert(image, conversion)
    return Verdict(
        verdict=ACCEPTED,
        conversion=conversion,
        data=_png(converted),
        width=converted.width,
        height=converted.height,
    )


def _ends_early(kind: str | None, data: bytes) -> bool:
    """Whether the end marker is missing; Pillow forgives a few missing bytes, others do not."""
    if kind == "PNG":
        end = data.rfind(b"IEND")
        return end < 0 or len(data) < end + 8
    if kind == "JPEG":
        return not _jpeg_ends(data)
    return len(data) < 8 + int.from_bytes(data[4:8], "little")


def _jpeg_ends(data: bytes) -> bool:
    """Whether the image ends properly, walking its markers: whatever follows does not count."""
    position, in_scan = 2, False
    while marker := _JPEG_MARKER.search(data, position):
        code = marker[1][0]
        if code == _END_OF_IMAGE and in_scan:
            return True
        in_scan = in_scan or code == _START_OF_SCAN
        position = marker.end()
        if code not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2])
    return False


def _conversion(image: Image.Image, data: bytes) -> str | None:
    if image.getexif().get(_ORIENTATION, 1) in _TURNED:
        return "exif_rotated"
    depth = data[_PNG_DEPTH_OFFSET] if image.format == "PNG" else _EIGHT_BITS
    if depth == _SIXTEEN_BITS:
        return "sixteen_bit"
    if image.mode in {"L", "RGB"} and "transparency" in image.info:
        return "alpha"
    if depth < _EIGHT_BITS and image.mode == "L":
        return "low_bit_depth"
    return _MODES.get(image.mode, "sixteen_bit")


def _convert(image: Image.Image, conversion: str) -> Image.Image:
    if conversion == "exif_rotated":
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        high_bytes = np.asarray(image).astype(np.uint32) >> _EIGHT_BITS
        return Image.fromarray(high_bytes.astype(np.uint8))
    gray = image.mode in {"1", "L", "LA", "La"}
    return image.convert("L" if gray else "RGB")


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.info = {}
    image.save(stream, format="PNG")
    return stream.getvalue()
