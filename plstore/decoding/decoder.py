"""One image decoded in full: what it is, how it was converted, or why it is refused."""

import io
import struct
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageFile, UnidentifiedImageError

from plstore.decoding import conversion
from plstore.decoding.formats import CONVERTED, KEPT, WEAK
from plstore.decoding.markers import scans_to_end, without_metadata

Admit = Callable[[int, int], str | None]
"""Asked with an image's pixels and scans before it is decoded: why not to, None to go on."""

MAX_SCANS = 100
"""More scans of a JPEG than any camera or program writes: ten are many. Each goes over all
pixels, in every epoch too, so that a file of 100 KB would take minutes."""

_PILLOW_NAMES = {name: name.upper() for name in KEPT} | CONVERTED
_NO_MEMORY = ("out of memory", "decoder error -9")  # as Pillow says it
_BROKEN = ("damaged", "truncated")
_ANIMATED = ("gif", "avif")
_PAGED = ("tiff", "heic")


class Decoded(NamedTuple):
    """What came of one image; a dataclass would take a microsecond of a small one's thirty.

    Attributes:
        refusal: Why it is not taken, None if it is.
        conversion: How `data` differs from the file, None if it does not.
        data: JPEG, PNG or WebP of 8-bit grayscale or RGB; None where it is refused.
        width: Pixels after conversion; 0 where unknown.
        height: Pixels after conversion; 0 where unknown.
    """

    refusal: str | None = None
    conversion: str | None = None
    data: bytes | None = None
    width: int = 0
    height: int = 0


def decode(data: bytes, name: str, *, max_pixels: int, admit: Admit) -> Decoded:
    """Decode an image of a format in `KEPT` or `CONVERTED`.

    Metadata is no damage: an image that fails is tried again without its profiles and texts,
    then without what might say how it is turned, and is taken so if its pixels are sound.

    Args:
        data: The file's bytes.
        name: Its format, as `format_of` names it.
        max_pixels: Images of more pixels are refused before they are decoded.
        admit: Asked before pixels are decoded; what it says is the refusal.

    Raises:
        MemoryError: If a decoder asked for more memory than there is.
    """
    first = _attempt(data, name, max_pixels, admit)
    if first.refusal not in _BROKEN or (name in KEPT and not scans_to_end(name, data)):
        return first
    tried = data
    for turning in (True, False):
        bare = without_metadata(name, data, turning=turning)
        if bare == tried:
            continue
        tried = bare
        again = _attempt(bare, name, max_pixels, admit)
        if again.refusal is None:
            word = conversion.joined("metadata_dropped", again.conversion)
            return again._replace(conversion=word)
        if again.refusal not in _BROKEN:
            return again
    return first


def too_many(scans: int) -> str | None:
    """Return the refusal of an image of so many scans, if it is one."""
    return "too_slow" if scans > MAX_SCANS else None


def _attempt(data: bytes, name: str, max_pixels: int, admit: Admit) -> Decoded:
    try:
        with open_image(data, name) as image:
            if name in KEPT:
                return _kept(image, data, name, max_pixels, admit)
            return _converted(image, name, max_pixels, admit)
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        return Decoded(refusal="over_pixel_limit")
    except conversion.UnreadableKindError:
        return Decoded(refusal=f"unsupported_{name}")
    except UnidentifiedImageError as error:
        return Decoded(refusal=_why_unopened(data, name, error))
    except Exception as error:  # decoders raise anything on damaged files
        if any(words in str(error) for words in _NO_MEMORY):
            raise MemoryError(str(error)) from error
        cut = name == "webp" and not scans_to_end(name, data)
        cut = cut or "truncated" in str(error)
        return Decoded(refusal="truncated" if cut else "damaged")


def open_image(data: bytes, name: str) -> ImageFile.ImageFile:
    """Read an image's head, whatever its size.

    Pillow's own `open` would look at the signature, which is known already: for a small image
    that is a tenth of all the time.

    Args:
        data: The file's bytes.
        name: Its format, as `format_of` names it.

    Raises:
        UnidentifiedImageError: If it is no image of that format.
    """
    try:
        if name == "heic":
            from pillow_heif import HeifImageFile  # the extra `heic`

            return HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
        if _PILLOW_NAMES[name] not in Image.OPEN:
            Image.init()
        return Image.OPEN[_PILLOW_NAMES[name]][0](io.BytesIO(data), "")
    except (SyntaxError, IndexError, TypeError, struct.error) as error:
        raise UnidentifiedImageError(str(error)) from error


def _why_unopened(data: bytes, name: str, error: UnidentifiedImageError) -> str:
    """Say what a file is that begins like an image and cannot be opened as one."""
    if name in WEAK:
        return "not_an_image"
    if name in KEPT:
        return "damaged" if scans_to_end(name, data) else "truncated"
    unread = name == "tiff" and "unknown pixel mode" in str(error)
    return "unsupported_tiff" if unread else "damaged"


def _kept(image: Image.Image, data: bytes, name: str, max_pixels: int, admit: Admit) -> Decoded:
    """Decode a JPEG, PNG or WebP."""
    width, height = image.size
    refusal: str | None
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a phone's preview
        refusal = "animated"
    elif width * height > max_pixels:
        refusal = "over_pixel_limit"
    else:
        scans = scans_to_end(name, data)
        refusal = admit(width * height, scans) if scans else "truncated"
    if refusal is not None:
        return Decoded(refusal=refusal, width=width, height=height)
    image.load()
    word = conversion.pixel_word(image, data)
    if word is None:
        return Decoded(data=data, width=width, height=height)
    turned = conversion.turned_jpeg(image) if word == "exif_rotated" else None
    if turned is None:
        return _as_png(conversion.plain(image), word)
    wide, high = conversion.upright(image).size
    return Decoded(conversion=word, data=turned, width=wide, height=high)


def _converted(image: ImageFile.ImageFile, name: str, max_pixels: int, admit: Admit) -> Decoded:
    """Decode an image of another format, to PNG."""
    width, height = image.size
    refusal: str | None
    if name in _ANIMATED and getattr(image, "is_animated", False):
        refusal = "animated"
    elif width * height > max_pixels:
        refusal = "over_pixel_limit"
    else:
        refusal = admit(width * height, 1)
    if refusal is not None:
        return Decoded(refusal=refusal, width=width, height=height)
    paged = "first_page" if name in _PAGED and getattr(image, "is_animated", False) else None
    turned = conversion.orientation(image) != 1  # asked first: loading turns a TIFF
    image.load()
    pixels, word = conversion.plain_from(image)
    rotated = "exif_rotated" if turned else None
    return _as_png(pixels, conversion.joined(f"from_{name}", paged, rotated, word))


def _as_png(pixels: Image.Image, word: str | None) -> Decoded:
    return Decoded(
        conversion=word,
        data=conversion.png(pixels),
        width=pixels.width,
        height=pixels.height,
    )
