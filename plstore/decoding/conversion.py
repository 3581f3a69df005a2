"""How an image becomes one that every loader reads alike: 8-bit grayscale or RGB, upright.

A conversion is written as one word, or as several joined with "+", in the order in which they
are done:

================ =================================================================
word             how
================ =================================================================
metadata_dropped metadata that cannot be read is cut out; what is encoded stays
from_FORMAT      decoded once and stored as PNG
first_page       the first page of several; of HEIC, the primary image
exif_rotated     turned upright as its EXIF orientation says; a JPEG becomes one again, with
                 its own quantisation, anything else PNG
cmyk             to RGB by Pillow's formula, no colour profile
sixteen_bit      the high byte of each value
alpha            transparency dropped, not blended
palette          to RGB
low_bit_depth    1, 2 or 4 bits a pixel, to 8-bit grayscale
================ =================================================================

A JPEG, PNG or WebP has one word for its pixels: `exif_rotated` stands for what else was needed.
"""

import io

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from PIL.TiffImagePlugin import TiffImageFile

_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_FIRST_SIDEWAYS = 5
_HALVED = 2  # 4:2:0, as Pillow numbers it
_PNG_DEPTH_OFFSET = 24
_EIGHT_BITS = 8
_SIXTEEN_BITS = 16
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
_OTHER_MODES = {
    "La": "alpha",
    "RGBX": "alpha",
    "YCbCr": None,
    "I;16": "sixteen_bit",
    "I;16B": "sixteen_bit",
    "I;16L": "sixteen_bit",
    "I;16N": "sixteen_bit",
}
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0


class UnreadableKindError(Exception):
    """An image whose values have no stated meaning as 8-bit grayscale or RGB."""


def joined(*words: str | None) -> str | None:
    """Return conversions as one word, None where there is none."""
    return "+".join(word for word in words if word) or None


def orientation(image: Image.Image) -> int:
    """Return how an image says that it is turned: 2 to 8, or 1 where it is upright.

    Raises:
        Exception: Whatever Pillow raises where the EXIF cannot be read.
    """
    found = image.getexif().get(_ORIENTATION, 1)
    return found if found in _TURN else 1


def pixel_word(image: Image.Image, data: bytes) -> str | None:
    """Return how a JPEG, PNG or WebP must be converted, None if it is fine as it came."""
    if orientation(image) != 1:
        return "exif_rotated"
    depth = data[_PNG_DEPTH_OFFSET] if image.format == "PNG" else _EIGHT_BITS
    if depth == _SIXTEEN_BITS:
        return "sixteen_bit"
    if image.mode in {"L", "RGB"} and "transparency" in image.info:
        return "alpha"
    if depth < _EIGHT_BITS and image.mode == "L":
        return "low_bit_depth"
    return _MODES.get(image.mode, "sixteen_bit")


def plain(image: Image.Image) -> Image.Image:
    """Return a decoded JPEG, PNG or WebP as upright 8-bit grayscale or RGB."""
    image = upright(image)
    if image.mode.startswith("I"):
        return _high_bytes(np.asarray(image), _EIGHT_BITS)
    return _eight_bits(image)


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF says."""
    turn = orientation(image)
    return image if turn == 1 else image.transpose(_TURN[turn])


def plain_from(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Return a decoded image of any other format as `plain` does, and what was done to pixels.

    Values of 12 bits keep their highest eight. 16-bit grayscale whose zero is white is turned
    round, as 8-bit is by Pillow. A PPM's values are scaled by the largest that it names.

    Raises:
        UnreadableKindError: If its values are floats, 32-bit or of a colour space such as Lab.
    """
    bits, white_is_zero = _values(image)
    kind, image = image.format, upright(image)
    if image.mode == "I" and kind == "PPM":
        return _high_bytes(np.asarray(image), _EIGHT_BITS), "sixteen_bit"
    if image.mode not in _MODES | _OTHER_MODES:
        raise UnreadableKindError(f"{kind} of mode {image.mode}")
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        values = ~values if white_is_zero else values
        return _high_bytes(values, bits - _EIGHT_BITS), "sixteen_bit"
    word = (_MODES | _OTHER_MODES)[image.mode]
    if word is None and bits != _EIGHT_BITS:
        word = "sixteen_bit" if bits > _EIGHT_BITS else "low_bit_depth"
    if word is None and "transparency" in image.info:
        word = "alpha"
    if image.mode == "La":
        image = image.convert("LA")
    return _eight_bits(image), word


def turned_jpeg(image: Image.Image) -> bytes | None:
    """Return a JPEG turned upright as a JPEG of its own quantisation, without metadata.

    A photo as PNG would be many times as large, and could not be decoded at a part of its size.
    None where it is no grayscale or RGB JPEG, which are turned into PNG.
    """
    if not isinstance(image, JpegImageFile) or image.mode not in {"L", "RGB"}:
        return None
    sideways = orientation(image) >= _FIRST_SIDEWAYS
    tables = [
        _transposed(table) if sideways else table for table in image.quantization.values()
    ]
    halved = get_sampling(image) == _HALVED  # in both directions: the same when it is turned
    turned = upright(image)
    turned.info = {}
    stream = io.BytesIO()
    turned.save(stream, format="JPEG", qtables=tables, subsampling=_HALVED if halved else 0)
    return stream.getvalue()


def _transposed(table: list[int]) -> list[int]:
    """Return a quantisation table of 8 x 8 values for an image turned on its side."""
    return [table[8 * column + row] for row in range(8) for column in range(8)]


def png(image: Image.Image) -> bytes:
    """Encode an image as PNG, without metadata."""
    stream = io.BytesIO()
    image.info = {}
    image.save(stream, format="PNG")
    return stream.getvalue()


def _eight_bits(image: Image.Image) -> Image.Image:
    return image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB")


def _high_bytes(values: np.ndarray, shift: int) -> Image.Image:
    return Image.fromarray((values.astype(np.uint32) >> shift).astype(np.uint8))


def _values(image: Image.Image) -> tuple[int, bool]:
    """Return bits a value and whether zero is white: Pillow's mode hides both of a TIFF."""
    if not isinstance(image, TiffImageFile):
        return _SIXTEEN_BITS if image.mode.startswith("I;16") else _EIGHT_BITS, False
    bits = max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    return bits, image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
