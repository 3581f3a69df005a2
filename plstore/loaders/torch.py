"""The backend `torch`: Pillow and timm, as training code decodes and augments today.

The one to compare with: it executes the same plan with the same random numbers, through the
libraries that people know, and is the slowest. Pixels differ by rounding and by how libraries
resample.
"""

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance
from timm.data import auto_augment

from plstore.errors import StoreError
from plstore.loaders.noise import ComposedDraw
from plstore.loaders.randaugment import Op, OpDraw, contrast_centre
from plstore.loaders.scaling import FILTERS, decoded, resized
from plstore.loaders.transfer import on_device
from plstore.loaders.work import BackendSpec, Tensors, Work

_BATCHES_AHEAD: Final = 1
_MID_GRAY: Final = 128
_BILINEAR: Final = Image.Resampling.BILINEAR


def run(spec: BackendSpec) -> Iterator[Tensors]:
    """Yield images, targets and sample ids by step, the next batch made in the background."""
    return on_device(_made(spec), spec.device)


def _made(spec: BackendSpec) -> Iterator[Tensors]:
    begun: deque[tuple[Work, list[Future[npt.NDArray[np.uint8]]]]] = deque()
    step, is_last = spec.first_step, False
    pool = ThreadPoolExecutor(spec.num_threads, thread_name_prefix="plstore-pillow")
    try:
        while True:
            while not is_last and len(begun) <= _BATCHES_AHEAD:
                try:
                    work = spec.work(step)
                except StopIteration:
                    is_last = True
                    break
                slots = range(len(work.encoded))
                begun.append((work, [pool.submit(paint, work, slot, spec) for slot in slots]))
                step += 1
            if not begun:
                return
            work, images = begun.popleft()
            pixels = torch.from_numpy(np.stack([image.result() for image in images]))
            targets = torch.from_numpy(work.targets)
            yield pixels.permute(0, 3, 1, 2), targets, torch.from_numpy(work.sample_ids)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def paint(work: Work, slot: int, spec: BackendSpec) -> npt.NDArray[np.uint8]:
    """Return one image of a batch, uint8 [size, size, channels].

    Raises:
        StoreError: If it cannot be decoded.
    """
    image = _cropped(work, slot, spec)
    noise = work.noise
    if noise is not None:
        if noise.flips[slot]:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if isinstance(noise.augment, ComposedDraw):
            image = _warp(image, noise.augment.matrices[slot], _BILINEAR, spec.fill)
            image = _colour(image, noise.augment, slot)
        else:
            image = _operated(image, noise.augment, slot, spec)
    return np.atleast_3d(np.asarray(image))


def _cropped(work: Work, slot: int, spec: BackendSpec) -> Image.Image:
    """Return the window of an image in the size of the result."""
    if (scale := int(work.scales[slot])) > 1:
        image = decoded(work.encoded[slot], scale, spec.format.channels)
        pixels = resized(image, work.windows[slot], scale, spec.format)
        return Image.fromarray(pixels if spec.format.channels > 1 else pixels[:, :, 0])
    image = _decoded(work, slot, spec)
    top, left, bottom, right = work.windows[slot].tolist()
    size = (spec.format.size, spec.format.size)
    return image.crop((left, top, right, bottom)).resize(
        size, FILTERS[spec.format.interpolation]
    )


def _decoded(work: Work, slot: int, spec: BackendSpec) -> Image.Image:
    try:
        with Image.open(io.BytesIO(work.encoded[slot].tobytes())) as file:
            return file.convert("L" if spec.format.channels == 1 else "RGB")
    except OSError as error:
        raise StoreError(
            f"image {work.sample_ids[slot]}, which import accepted, cannot be decoded: {error}"
        ) from error


def _operated(image: Image.Image, draw: OpDraw, slot: int, spec: BackendSpec) -> Image.Image:
    if spec.dialect is None or spec.fill is None:
        return image
    resample = _BILINEAR if spec.dialect.bilinear else Image.Resampling.NEAREST
    for layer, op in enumerate(draw.ops[slot].tolist()):
        value = float(draw.values[slot, layer])
        if op in _WARPS:
            image = _warp(image, draw.matrices[slot, layer], resample, spec.fill)
        elif op == Op.CUTOUT:
            image = _cutout(image, int(value), draw.centres[slot, layer], spec.fill)
        elif op == Op.CONTRAST:
            image = _contrast(image, value, contrast_centre(spec.dialect, spec.format.size))
        elif op in _TIMM:
            name, *_ = _TIMM[op]
            image = auto_augment.NAME_TO_OP[name](image, *_arguments(op, value))
    return image


def _arguments(op: int, value: float) -> list[Any]:
    _, kind = _TIMM[op]
    return [] if kind is None else [kind(value)]


def _warp(
    image: Image.Image,
    matrix: npt.NDArray[np.float32],
    resample: Image.Resampling,
    fill: tuple[int, ...] | None,
) -> Image.Image:
    if fill is not None:
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            data=matrix.ravel().tolist(),
            resample=resample,
            fillcolor=_value(fill),
        )
    pad = max(image.size)  # the edge, repeated far enough for any map of a recipe
    pixels = np.atleast_3d(np.asarray(image))
    padded = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    shifted = matrix.astype(np.float64)
    shifted[:, 2] += pad
    source = Image.fromarray(padded[:, :, 0] if padded.shape[2] == 1 else padded)
    return source.transform(
        image.size, Image.Transform.AFFINE, data=shifted.ravel().tolist(), resample=resample
    )


def _value(fill: tuple[int, ...]) -> Any:  # noqa: ANN401  Pillow takes a number or a tuple
    return fill[0] if len(fill) == 1 else fill


def _cutout(
    image: Image.Image, pad: int, centre: npt.NDArray[np.int32], fill: tuple[int, ...]
) -> Image.Image:
    x, y = centre.tolist()
    left, top = max(x - pad, 0), max(y - pad, 0)
    right, bottom = min(x + pad, image.width), min(y + pad, image.height)
    image = image.copy()
    if right > left and bottom > top:
        image.paste(_value(fill), (left, top, right, bottom))
    return image


def _contrast(image: Image.Image, factor: float, centre: float | None) -> Image.Image:
    if centre is None:
        return ImageEnhance.Contrast(image).enhance(factor)
    bands = len(image.getbands())
    gray = Image.new(image.mode, image.size, _value((int(centre),) * bands))
    return Image.blend(gray, image, factor)


def _colour(image: Image.Image, draw: ComposedDraw, slot: int) -> Image.Image:
    saturation = float(draw.saturation[slot])
    if saturation != 1 and image.mode == "RGB":
        image = ImageEnhance.Color(image).enhance(saturation)
    brightness, contrast = float(draw.brightness[slot]), float(draw.contrast[slot])
    if brightness == contrast == 1:
        return image
    offset = _MID_GRAY * (1 - contrast)
    return image.point(lambda value: cast("int", brightness * (contrast * value + offset)))


_WARPS: Final = {Op.ROTATE, Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y}
_TIMM: Final[dict[int, tuple[str, type | None]]] = {
    Op.AUTO_CONTRAST: ("AutoContrast", None),
    Op.EQUALIZE: ("Equalize", None),
    Op.INVERT: ("Invert", None),
    Op.POSTERIZE: ("Posterize", int),
    Op.SOLARIZE: ("Solarize", int),
    Op.SOLARIZE_ADD: ("SolarizeAdd", int),
    Op.COLOR: ("Color", float),
    Op.BRIGHTNESS: ("Brightness", float),
    Op.SHARPNESS: ("Sharpness", float),
}
