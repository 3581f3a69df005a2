"""Images to judge, made here: of every format, sound, odd and hostile."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)
SIXTEEN = (PIXELS[:, :, 0].astype(np.uint16) << 8) + 7


def save(image: Image.Image, kind: str, **options: Any) -> bytes:  # noqa: ANN401  Pillow's own
    stream = io.BytesIO()
    image.copy().save(stream, format=kind, **options)  # saving leaves its settings in the image
    return stream.getvalue()


def heic(image: Image.Image, **options: Any) -> bytes:  # noqa: ANN401
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=-1, **options)
    return stream.getvalue()


def pixels_of(data: bytes | None) -> np.ndarray:
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def turned(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_chunk(name: bytes, content: bytes) -> bytes:
    size, check = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(name + content))
    return size + name + content + check


def png_with(png: bytes, *chunks: bytes) -> bytes:
    """Put chunks behind the header."""
    return png[:33] + b"".join(chunks) + png[33:]


def jpeg_with(jpeg: bytes, *segments: bytes) -> bytes:
    """Put segments behind the start."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def jpeg_segment(code: int, content: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(content) + 2) + content


def lossless_jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a lossless JPEG (ITU-T T.81, annex H) of grayscale [height, width].

    Each value is predicted by its left neighbour; categories 0 to 8 have codes of four bits.
    """
    height, width = pixels.shape
    values = pixels.astype(int)
    before = np.concatenate([np.full((height, 1), 128), values[:, :-1]], axis=1)
    before[1:, 0] = values[:-1, 0]
    bits = ""
    for found in (values - before).ravel().tolist():
        size = abs(found).bit_length()
        bits += f"{size:04b}"
        bits += f"{found if found > 0 else found + (1 << size) - 1:0{size}b}" if size else ""
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\x00")
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    codes = b"\x00" + bytes([0, 0, 0, 9, *[0] * 12]) + bytes(range(9))
    parts = [(0xC3, frame), (0xC4, codes), (0xDA, b"\x01\x01\x00\x01\x00\x00")]
    segments = b"".join(jpeg_segment(code, content) for code, content in parts)
    return b"\xff\xd8" + segments + coded + b"\xff\xd9"


def webp_with(webp: bytes, *chunks: tuple[bytes, bytes], flags: int) -> bytes:
    """Put chunks behind the pixels of a simple WebP of 30 x 40 pixels."""
    head = bytes([flags, 0, 0, 0]) + struct.pack("<I", 29)[:3] + struct.pack("<I", 39)[:3]
    parts = [(b"VP8X", head), (webp[12:16], webp[20:]), *chunks]
    body = b"WEBP"
    for name, content in parts:
        body += name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(width: int, height: int, pixels: bytes, **tags: int) -> bytes:
    """Return a grayscale TIFF of one strip; tags by their number, as t258=16."""
    found = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 278: height}
    found |= {279: len(pixels)} | {int(name[1:]): value for name, value in tags.items()}
    start = 8 + 2 + 12 * (len(found) + 1) + 4
    entries = sorted((found | {273: start}).items())
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    lines = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return head + lines + bytes(4) + pixels


def many_scans(number: int, size: int) -> bytes:
    """Return a flat progressive JPEG that goes over its pixels so many times."""
    from plstore.decoding.markers import jpeg_markers

    jpeg = save(Image.new("RGB", (size, size), (200, 100, 50)), "JPEG", progressive=True)
    scans = [start for code, start, _ in jpeg_markers(jpeg) if code == 0xDA]
    return jpeg[:-2] + jpeg[scans[-1] : -2] * (number - len(scans)) + jpeg[-2:]
