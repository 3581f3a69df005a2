"""What the bytes of a file are, by their first few: names of formats, never a guess of content.

Names are what verdicts (`unsupported_pdf`) and conversions (`from_tiff`) are made of. Only the
head of a file is looked at, so this takes the same time for every file.
"""

import struct
from typing import Final

KEPT: Final = ("jpeg", "png", "webp")
"""Formats that every loader decodes: such a file is stored as it came, where it can be."""

CONVERTED: Final[dict[str, str]] = {
    "gif": "GIF",
    "bmp": "BMP",
    "tiff": "TIFF",
    "avif": "AVIF",
    "heic": "HEIC",
    "jp2": "JPEG2000",
    "ppm": "PPM",
    "tga": "TGA",
}
"""Formats that are decoded once, to PNG, by the name that Pillow has for them."""

WEAK: Final = ("bmp", "ppm", "tga")
"""Formats of so short a signature that what cannot be opened as one is likely none."""

_HEAD = 4096
_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\xff\x4f\xff\x51", "jp2"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x0a", "jxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jxl"),
    (b"8BPS", "psd"),
    (b"v/1\x01", "exr"),
    (b"\x00\x00\x01\x00", "ico"),
    (b"%PDF-", "pdf"),
    (b"IIRO", "raw"),  # Olympus
    (b"IIRS", "raw"),
    (b"MMOR", "raw"),
    (b"IIU\x00", "raw"),  # Panasonic
    (b"FUJIFILMCCD-RAW", "raw"),
    (b"FOVb", "raw"),  # Sigma
    (b"\x00MRM", "raw"),  # Minolta
    (b"\x1aE\xdf\xa3", "video"),  # Matroska
)
_TIFF = {
    b"II*\x00": "<",
    b"MM\x00*": ">",
    b"MM*\x00": ">",  # wrong, and Pillow reads it
    b"II\x00*": "<",
    b"II+\x00": "",  # BigTIFF: no camera writes it
    b"MM\x00+": "",
}
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_HEIF_BRANDS = {b"mif1", b"msf1", b"mif2"}

_SUBFILE_TYPE, _COMPRESSION, _PHOTOMETRIC, _DNG_VERSION = 254, 259, 262, 50706
_CAMERA_PHOTOMETRIC = (32803, 34892)  # colour filter array, linear raw
_CAMERA_COMPRESSION = (32767, 32769, 32770, 32867, 34713, 65535)  # Sony to Pentax
_SHORT, _LONG = 3, 4

_TGA_HEADER, _TGA_FOOTER = 18, b"TRUEVISION-XFILE.\x00"
_TGA_FIELDS = struct.Struct("<3B2xHB4xHHBB")
_TGA_DEPTHS = {1: (8,), 2: (16, 24, 32), 3: (8, 16), 9: (8,), 10: (24, 32), 11: (8, 16)}
_TGA_COLOR_MAPPED, _TGA_PACKED = (1, 9), 8


def format_of(data: bytes) -> str | None:
    """Return the name of a file's format: lower case, None where it is none of an image's.

    Args:
        data: The whole file: TGA is known by its end alone, or by its exact size.
    """
    if data.startswith(b"RIFF"):
        return {b"WEBP": "webp", b"AVI ": "video"}.get(data[8:12])
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] in _TIFF:
        return "raw" if _is_camera_raw(data) else "tiff"
    if data[4:8] == b"ftyp":
        return _brand(data[:_HEAD])
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    return _text_like(data[:_HEAD]) or ("tga" if _is_tga(data) else None)


def _brand(head: bytes) -> str:
    """Return what a file of ISO boxes is, by the brands that it names."""
    box = head[: int.from_bytes(head[:4])]
    brands = {box[8:12], *(box[at : at + 4] for at in range(16, len(box), 4))}
    for known, name in (
        (_AVIF_BRANDS, "avif"),
        (_HEIC_BRANDS | _HEIF_BRANDS, "heic"),
        ({b"crx "}, "raw"),
        ({b"jxl "}, "jxl"),
    ):
        if brands & known:
            return name
    return "video"


def _is_camera_raw(data: bytes) -> bool:
    """Whether a TIFF is a camera's: its first picture is the sensor's values or a thumbnail."""
    order = _TIFF[data[:4]]
    if not order:
        return False
    if data[8:10] == b"CR":  # Canon
        return True
    tags = _first_tags(data, order)
    return (
        _DNG_VERSION in tags
        or tags.get(_SUBFILE_TYPE, 0) & 1 == 1
        or tags.get(_PHOTOMETRIC) in _CAMERA_PHOTOMETRIC
        or tags.get(_COMPRESSION) in _CAMERA_COMPRESSION
    )


def _first_tags(data: bytes, order: str) -> dict[int, int]:
    """Return the first directory of a TIFF: numbers that are written in place, by tag."""
    start = int.from_bytes(data[4:8], "little" if order == "<" else "big")
    size = data[start : start + 2]
    count = struct.unpack(order + "H", size)[0] if len(size) == 2 else 0  # noqa: PLR2004
    tags = {}
    for at in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHII", data, at)
        if kind == _SHORT and order == ">":
            value >>= 16
        tags[tag] = value & 0xFFFF if kind == _SHORT else value
    return tags


def _text_like(head: bytes) -> str | None:
    """Return what a file is that begins with words: PPM, SVG, or a PDF after some junk."""
    if head[:1] == b"P" and head[1:2] in b"123456f" and head[2:3].isspace():
        return "ppm"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    starts = (b"<svg", b"<?xml", b"<!--", b"<!doctype svg")
    if text.startswith(starts) and b"<svg" in text and b"<html" not in text:
        return "svg"
    return "pdf" if b"%PDF-" in head[:1024] else None


def _is_tga(data: bytes) -> bool:
    """Whether a file is a TGA, which has no signature: by its footer, or by header and size."""
    if len(data) < _TGA_HEADER:
        return False
    id_size, mapped, kind, map_size, map_depth, width, height, depth, flags = (
        _TGA_FIELDS.unpack_from(data)
    )
    if depth not in _TGA_DEPTHS.get(kind, ()) or mapped != (kind in _TGA_COLOR_MAPPED):
        return False
    if not width or not height or flags & 0xC0:
        return False
    if data.endswith(_TGA_FOOTER):
        return True
    pixels = _TGA_HEADER + id_size + mapped * map_size * ((map_depth + 7) // 8)
    ends = pixels + width * height * depth // 8
    return bool(len(data) > pixels if kind & _TGA_PACKED else len(data) == ends)
