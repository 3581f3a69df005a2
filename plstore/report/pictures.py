"""An image as a page shows it: drawn small, none decoded over a limit."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image, UnidentifiedImageError

from plstore.images import large_images_are_verdicts
from plstore.schema import ACCEPTED

MOST_PIXELS: Final = 64_000_000
"""More are not decoded: a hundred megapixels take half a gigabyte."""

_TINY_BYTES: Final = 6_000  # such a file goes to the browser as it is
_TINY_SIDE: Final = 128
_KINDS: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image, ready to be shown.

    Attributes:
        data: Encoded; empty where it cannot be shown.
        kind: MIME type of the data.
        is_small: Whether its pixels are to be seen as squares.
        why: Why it cannot be shown.
    """

    data: bytes = b""
    kind: str = "image/png"
    is_small: bool = False
    why: str = ""

    @property
    def uri(self) -> str:
        """The image within a page."""
        return f"data:{self.kind};base64,{base64.b64encode(self.data).decode()}"


def draw(row: Mapping[str, Any], side: int) -> Picture:
    """Return one row of `images`, with its bytes, as a picture."""
    if row["verdict"] != ACCEPTED:
        return Picture(why=str(row["verdict"]).replace("_", " "))
    if row["why"]:
        return Picture(why=row["why"])
    width, height, data = row["width"] or 0, row["height"] or 0, row["bytes"]
    if width * height > MOST_PIXELS:
        return Picture(why=f"{width} x {height} pixels: too large to draw here")
    if not data:
        return Picture(why="no bytes")
    return _drawn(data, side)


def _drawn(data: bytes, side: int) -> Picture:
    try:
        with large_images_are_verdicts(), Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MOST_PIXELS:
                return Picture(why=f"{image.width} x {image.height} pixels: too large to draw")
            kind = _KINDS.get(image.format or "")
            is_small = max(image.size) <= _TINY_SIDE
            fits = max(image.size) <= side and (is_small or len(data) <= _TINY_BYTES)
            if kind is not None and fits:
                return Picture(data=data, kind=kind, is_small=is_small)
            return _shrunk(image, side)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, MemoryError) as error:
        return Picture(why=f"cannot be decoded: {error}")


def _shrunk(image: Image.Image, side: int) -> Picture:
    image.draft("RGB", (side, side))
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=86)
    is_small = max(image.size) <= _TINY_SIDE < side
    return Picture(data=stream.getvalue(), kind="image/jpeg", is_small=is_small)
