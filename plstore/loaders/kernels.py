"""Operations on pixels for the backend `threads`: tables, fused warps, nothing left on the GIL.

Arrays are uint8 [height, width, channels]. Where Pillow truncates, so do these; `_HALF` turns
OpenCV's rounding into that.
"""

from collections.abc import Callable
from typing import Any, Final, cast

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from plstore.errors import StoreError
from plstore.loaders.noise import ComposedDraw
from plstore.loaders.randaugment import Op

Image = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float32]
Matrices = npt.NDArray[np.float64]

cv2.setNumThreads(0)  # one thread an image: the pool is the parallelism

_JPEG: Final = b"\xff\xd8"
_HALF: Final = 0.5 - 1e-3
_VALUES: Final = np.arange(256)
_SMOOTH: Final = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
_MID_GRAY: Final = 128
_NUM_VALUES: Final = 256


def decode(encoded: Image, channels: int, buffer: Image | None = None) -> Image:
    """Return an encoded image as pixels, as libjpeg-turbo, libpng and libwebp decode it.

    Args:
        encoded: The file's bytes.
        channels: 1 or 3.
        buffer: Where to; made if it is not there or too small, for JPEG only.

    Raises:
        StoreError: If it cannot be decoded.
    """
    if encoded[:2].tobytes() == _JPEG:
        colours = "GRAY" if channels == 1 else "RGB"
        try:
            return cast(
                "Image", simplejpeg.decode_jpeg(encoded, colours, buffer=buffer, strict=False)
            )
        except ValueError as error:
            raise StoreError(
                f"an image that import accepted is no JPEG any more: {error}"
            ) from error
    colour = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    image = cv2.imdecode(encoded, colour | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise StoreError("an image that import accepted cannot be decoded any more")
    return cast("Image", np.atleast_3d(image))


def shifted(matrices: Matrix) -> Matrices:
    """Return maps [..., 2, 3] that count from the first pixel's centre, as OpenCV does."""
    maps = matrices.astype(np.float64)
    maps[..., 2] += (maps[..., :2].sum(axis=-1) - 1) / 2
    return maps


def warp(
    image: Image, matrix: Matrices, *, bilinear: bool, fill: tuple[int, ...] | None
) -> Image:
    """Return an image through a `shifted` map of result to image; None repeats the edge."""
    done = cv2.warpAffine(
        image,
        matrix,
        image.shape[1::-1],
        flags=(cv2.INTER_LINEAR if bilinear else cv2.INTER_NEAREST) | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT,
        borderValue=fill or (0,),
    )
    return cast("Image", done.reshape(image.shape))


def mirrored(image: Image) -> Image:
    """Return an image flipped from left to right."""
    return cast("Image", cv2.flip(image, 1).reshape(image.shape))


class Composed:
    """The composed operations of a batch, made ready at once."""

    def __init__(self, draw: ComposedDraw, fill: tuple[int, ...] | None) -> None:
        """Make maps and tables."""
        self._fill = fill
        self._maps = shifted(draw.matrices)
        self._saturation = draw.saturation
        brightness, contrast = draw.brightness[:, None], draw.contrast[:, None]
        values = brightness * (contrast * _VALUES + _MID_GRAY * (1 - contrast))
        self._tables = np.clip(values + 0.5, 0, 255).astype(np.uint8)
        self._same = (draw.brightness == 1) & (draw.contrast == 1)

    def apply(self, image: Image, slot: int) -> Image:
        """Return an image after one warp and one change of colour."""
        image = warp(image, self._maps[slot], bilinear=True, fill=self._fill)
        if image.shape[2] == 3 and self._saturation[slot] != 1:  # noqa: PLR2004  RGB
            image = colour(image, float(self._saturation[slot]))
        if self._same[slot]:
            return image
        return cast("Image", cv2.LUT(image, self._tables[slot]).reshape(image.shape))


def apply(
    image: Image,
    op: int,
    value: float,
    matrix: Matrices,
    centre: npt.NDArray[np.int32],
    *,
    bilinear: bool,
    fill: tuple[int, ...],
    contrast_centre: float | None,
) -> Image:
    """Return an image after one operation, see `Op` and `OpDraw`."""
    if op in _WARPS:
        return warp(image, matrix, bilinear=bilinear, fill=fill)
    if op == Op.CONTRAST:
        return contrast(image, value, contrast_centre)
    if op == Op.CUTOUT:
        return cutout(image, value, centre, fill)
    return _SIMPLE[op](image, value) if op in _SIMPLE else image


def contrast(image: Image, factor: float, centre: float | None) -> Image:
    """Return an image whose distance from a gray is scaled; None for its mean gray, rounded."""
    if centre is None:
        centre = float(int(_gray(image).mean() + 0.5))
    return _map(image, centre + factor * (_VALUES - centre))


def cutout(
    image: Image, reach: float, centre: npt.NDArray[np.int32], fill: tuple[int, ...]
) -> Image:
    """Return an image with a square filled (DeVries and Taylor 2017)."""
    pad, (x, y) = int(reach), centre.tolist()
    done = image.copy()
    done[max(y - pad, 0) : y + pad, max(x - pad, 0) : x + pad] = fill
    return done


def colour(image: Image, factor: float) -> Image:
    """Return an image whose distance from its own gray is scaled."""
    if image.shape[2] == 1:
        return image
    gray = cv2.cvtColor(_gray(image), cv2.COLOR_GRAY2RGB)
    done = cv2.addWeighted(image, factor, gray, 1 - factor, -_HALF)
    return cast("Image", done)


def _gray(image: Image) -> Image:
    if image.shape[2] == 1:
        return image[:, :, 0]
    return cast("Image", cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _map(image: Image, values: npt.NDArray[Any]) -> Image:
    """Return an image with its values mapped by one table."""
    table = np.clip(values, 0, 255).astype(np.uint8)
    return cast("Image", cv2.LUT(image, table).reshape(image.shape))


def _equalize(image: Image) -> Image:
    """Return an image whose channels have flat histograms, as Pillow makes them."""
    channels = image.shape[2]
    tables = np.empty((1, _NUM_VALUES, channels), np.uint8)
    for channel in range(channels):
        counts = cv2.calcHist([image], [channel], None, [_NUM_VALUES], [0, _NUM_VALUES])
        tables[0, :, channel] = _equalized(counts.ravel().astype(np.int64))
    return cast("Image", cv2.LUT(image, tables).reshape(image.shape))


def _auto_contrast(image: Image) -> Image:
    """Return an image whose channels reach from 0 to 255 each."""
    height, width, channels = image.shape
    columns = image.reshape(height, width * channels)
    tables = np.empty((1, _NUM_VALUES, channels), np.uint8)
    lows = columns.min(axis=0).reshape(width, channels).min(axis=0)
    highs = columns.max(axis=0).reshape(width, channels).max(axis=0)
    for channel, (low, high) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
        scale = 255.0 / (high - low) if high > low else 1.0
        stretched = _VALUES * scale - (low * scale if high > low else 0.0)
        tables[0, :, channel] = np.clip(stretched, 0, 255).astype(np.uint8)
    return cast("Image", cv2.LUT(image, tables).reshape(image.shape))


def _equalized(counts: npt.NDArray[np.int64]) -> Image:
    there = counts[counts > 0]
    step = int(there.sum() - there[-1]) // 255
    if len(there) <= 1 or not step:
        return _VALUES.astype(np.uint8)
    before = np.cumsum(counts) - counts
    return cast("Image", np.clip((step // 2 + before) // step, 0, 255).astype(np.uint8))


def _sharpness(image: Image, factor: float) -> Image:
    smooth = image.copy()
    filtered = cv2.filter2D(image, -1, _SMOOTH).reshape(image.shape)
    smooth[1:-1, 1:-1] = filtered[1:-1, 1:-1]
    done = cv2.addWeighted(image, factor, smooth, 1 - factor, -_HALF)
    return cast("Image", done.reshape(image.shape))


def _posterize(image: Image, bits: float) -> Image:
    kept = min(int(bits), 8)
    return np.bitwise_and(image, np.uint8(255 ^ ((1 << (8 - kept)) - 1)))


def _solarize(image: Image, threshold: float) -> Image:
    return _map(image, np.where(threshold > _VALUES, _VALUES, 255 - _VALUES))


def _solarize_add(image: Image, added: float) -> Image:
    brighter = np.minimum(_VALUES + int(added), 255)
    return _map(image, np.where(_VALUES < _MID_GRAY, brighter, _VALUES))


_WARPS: Final = {Op.ROTATE, Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y}
_SIMPLE: Final[dict[int, Callable[[Image, float], Image]]] = {
    Op.AUTO_CONTRAST: lambda image, _: _auto_contrast(image),
    Op.EQUALIZE: lambda image, _: _equalize(image),
    Op.INVERT: lambda image, _: 255 - image,
    Op.POSTERIZE: _posterize,
    Op.SOLARIZE: _solarize,
    Op.SOLARIZE_ADD: _solarize_add,
    Op.COLOR: colour,
    Op.BRIGHTNESS: lambda image, factor: _map(image, factor * _VALUES),
    Op.SHARPNESS: _sharpness,
}
