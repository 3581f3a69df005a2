"""Large JPEGs are decoded at the scale that their crop needs, by every backend alike.

A window of 1,792 pixels that becomes 224 is seen as well in an image of an eighth of the size,
which libjpeg makes at a fraction of the work. The scale follows from window and output size
alone, so it is one for all backends; so are the pixels, for one function makes them.
"""

from collections.abc import Sequence
from math import ceil, floor
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from plstore.decoding import SCALES, can_scale, decode_scaled
from plstore.errors import StoreError
from plstore.loaders.work import ImageFormat

Pixels = npt.NDArray[np.uint8]
Windows = npt.NDArray[np.int32]

FILTERS: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
"""Pillow's filters, which are antialiased, by `ImageFormat.interpolation`."""


def decode_scales(
    encoded: Sequence[Pixels], windows: Windows, image_format: ImageFormat
) -> npt.NDArray[np.int32]:
    """Return by what the sides of each image are divided: int32 [images], 1, 2, 4 or 8.

    It is the largest scale at which the window still has as many pixels as the output in both
    directions, so that nothing is magnified. Images that are not JPEGs are decoded whole.

    Args:
        encoded: Encoded images.
        windows: int32 [images, 4]: top, left, bottom, right in source pixels.
        image_format: Of the output.
    """
    scales = np.ones(len(windows), np.int32)
    if not image_format.scaled_decoding:
        return scales
    sides = (windows[:, 2:] - windows[:, :2]).min(axis=1)
    for scale in SCALES:
        scales[sides >= scale * image_format.size] = scale
    for slot in np.flatnonzero(scales > 1).tolist():
        if not can_scale(encoded[slot].data):
            scales[slot] = 1
    return scales


def decoded(encoded: Pixels, scale: int, channels: int) -> Image.Image:
    """Return a JPEG with its sides divided by a scale, and rounded up.

    Raises:
        StoreError: If it cannot be.
    """
    try:
        return decode_scaled(encoded.data, scale, gray=channels == 1)
    except (OSError, SyntaxError) as error:
        raise StoreError(
            f"an image that import accepted is no JPEG any more: {error}"
        ) from error


def resized(
    image: Image.Image, window: npt.NDArray[np.int32], scale: int, image_format: ImageFormat
) -> Pixels:
    """Return the window of a scaled image in the output's size, uint8 [size, size, channels].

    The window stays where it is in the source, to fractions of a scaled pixel; of what is
    around it, less than one scaled pixel is seen at its edges.

    Args:
        image: As `decoded` returns it.
        window: int32 [4]: top, left, bottom, right in source pixels.
        scale: That of the image.
        image_format: Of the output.
    """
    top, left, bottom, right = (window / scale).tolist()
    x, y = floor(left), floor(top)
    image = image.crop((x, y, ceil(right), ceil(bottom)))
    size = image_format.size
    image = image.resize(
        (size, size),
        FILTERS[image_format.interpolation],
        box=(left - x, top - y, right - x, bottom - y),
    )
    return np.asarray(image).reshape(size, size, image_format.channels)
