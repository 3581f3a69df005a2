"""Where an encoded image ends, how many scans it has, and what of it is no pixel.

Each function goes once over the bytes: its work grows with their number alone, whatever they
are. A search never looks for a run of bytes, for runs are what a hostile file is made of.
"""

import re
from collections.abc import Iterator

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_JPEG_START = 2
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8, _END_OF_IMAGE)
_APP0, _APP1, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_COLOUR = {_APP0: 18, _APP14: 16}  # JFIF, Adobe: bytes below which libjpeg looks at neither

_PNG_START = 8
_PNG_FRAME = 12  # length, name, check sum
_PNG_PIXELS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")  # ancillary by name, and yet no metadata
_PNG_TURNING = (b"XML:com.adobe.xmp\x00", b"Raw profile type exif\x00")

_RIFF_START = 12
_RIFF_FRAME = 8
_WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}

_EXIF_ITEM = re.compile(rb"(infe[\x02\x03].{7}(?:..)?)Exif", re.DOTALL)


def scans_to_end(name: str, data: bytes) -> int:
    """Return how often a JPEG, PNG or WebP goes over its pixels until its end, which is once.

    A progressive JPEG does for each scan. 0 where the end is missing: Pillow forgives a few
    missing bytes, others do not.
    """
    if name == "png":
        return int(0 <= data.rfind(b"IEND") <= len(data) - 8)
    if name == "jpeg":
        return _jpeg_scans(data)
    return int(len(data) >= _RIFF_FRAME + int.from_bytes(data[4:8], "little"))


def jpeg_markers(data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield (code, start, end) of each marker and its segment; the end may lie beyond the data.

    At most one for every two bytes. Entropy-coded bytes and junk lie between them.
    """
    position = _JPEG_START
    while found := _JPEG_MARKER.search(data, position):
        code, position = found[0][1], found.end()
        if code not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2])
        yield code, found.start(), position


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of each chunk that is there in full, up to the image's end."""
    position = _PNG_START
    while position + _PNG_FRAME <= len(data):
        name = data[position + 4 : position + 8]
        end = position + _PNG_FRAME + int.from_bytes(data[position : position + 4])
        if end > len(data):
            return
        yield name, position, end
        if name == b"IEND":
            return
        position = end


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of each chunk of a WebP that is there, its padding included."""
    position = _RIFF_START
    size_of_all = _RIFF_FRAME + int.from_bytes(data[4:8], "little")
    while position + _RIFF_FRAME <= min(size_of_all, len(data)):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + _RIFF_FRAME + size + size % 2
        yield data[position : position + 4], position, end
        position = end


def without_metadata(name: str, data: bytes, *, turning: bool) -> bytes:
    """Return an image with the same pixels and no metadata that may keep it from being read.

    What is left is copied, not encoded again. Profiles, comments and texts go.

    Args:
        name: Its format; those without such metadata come back as they are.
        data: The file.
        turning: Keep EXIF and XMP, which may say how the image is turned.
    """
    if name == "jpeg":
        return _bare_jpeg(data, turning=turning)
    if name == "png":
        return _bare_png(data, turning=turning)
    if name == "webp":
        return _bare_webp(data, turning=turning)
    if name in {"avif", "heic"} and not turning:
        return _EXIF_ITEM.sub(rb"\1skip", data)  # an item of a kind that nobody looks for
    return data


def _jpeg_scans(data: bytes) -> int:
    """Walk to the end of the image: what follows, such as a phone's second one, is no part."""
    scans = 0
    for code, _, _ in jpeg_markers(data):
        if code == _END_OF_IMAGE and scans:
            return scans
        scans += code == _START_OF_SCAN
    return 0


def _bare_jpeg(data: bytes, *, turning: bool) -> bytes:
    kept, position = bytearray(), 0
    for code, start, end in jpeg_markers(data):
        if code == _START_OF_SCAN:
            break
        colour = end - start >= _COLOUR.get(code, len(data) + 1)
        if turning and code == _APP1:
            continue
        if (_APP0 <= code <= _APP15 or code == _COMMENT) and not colour:
            kept += data[position:start]
            position = end
    return bytes(kept + data[position:])


def _bare_png(data: bytes, *, turning: bool) -> bytes:
    kept = bytearray(data[:_PNG_START])
    for name, start, end in png_chunks(data):
        critical = not name[0] & 0x20
        texts = name in {b"tEXt", b"zTXt", b"iTXt"}
        turned = name == b"eXIf" or (texts and data.startswith(_PNG_TURNING, start + 8))
        if critical or name in _PNG_PIXELS or (turning and turned):
            kept += data[start:end]
    return bytes(kept)


def _bare_webp(data: bytes, *, turning: bool) -> bytes:
    kept, flags = bytearray(b"WEBP"), 0
    for name, start, end in riff_chunks(data):
        if name == b"ICCP" or (name in _WEBP_FLAGS and not turning):
            flags |= _WEBP_FLAGS[name]
        else:
            kept += data[start:end]
    if kept.startswith(b"WEBPVP8X") and len(kept) > _RIFF_START:
        kept[_RIFF_START] &= ~flags
    return b"RIFF" + len(kept).to_bytes(4, "little") + kept
