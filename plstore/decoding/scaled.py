"""JPEGs decoded at a half, a quarter or an eighth of their size.

libjpeg makes the smaller image from the low frequencies of each block of 8 x 8 pixels alone. It
still reads every code of the file, but transforms, upsamples and converts a fraction of the
pixels.
"""

import io
from typing import Final

from PIL import Image, JpegImagePlugin

from plstore.decoding.markers import jpeg_markers

SCALES: Final = (2, 4, 8)
"""By what the sides of an image are divided, and rounded up."""

_START: Final = b"\xff\xd8"
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_OF_FREQUENCIES: Final = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; Huffman codes
_START_OF_SCAN: Final = 0xDA


def can_scale(data: bytes | memoryview) -> bool:
    """Whether a file is a JPEG that libjpeg scales; a lossless one has no frequencies."""
    if data[:2] != _START:
        return False
    for code, _, _ in jpeg_markers(data):
        if code in _FRAMES or code == _START_OF_SCAN:
            return code in _OF_FREQUENCIES
    return False


def decode_scaled(
    data: bytes | memoryview, scale: int, *, gray: bool | None = None
) -> Image.Image:
    """Return a JPEG that `can_scale` with its sides divided by a scale, and rounded up.

    Args:
        data: The file.
        scale: One of `SCALES`, at most the shorter side.
        gray: Whether to 8-bit grayscale (the luma, as it is in the file), else to RGB; as the
            file is unless given.

    Raises:
        OSError: If it cannot be decoded.
    """
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    wanted = (-(-image.width // scale), -(-image.height // scale))
    image.draft("L" if gray else None, (image.width // scale, image.height // scale))
    if image.size != wanted:
        raise OSError(f"a JPEG decodes to {image.size}, and {wanted} was asked for")
    image.load()
    if gray is None:
        gray = image.mode == "L"
    mode = "L" if gray else "RGB"
    return image if image.mode == mode else image.convert(mode)
