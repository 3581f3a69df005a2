"""The portable backend: Pillow in a thread pool, where DALI is not installed.

It executes the same plan, with the same random numbers, as the DALI backend; pixels differ by
rounding and by how the two libraries resample.
"""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from plstore.loaders.batches import BackendSpec, Work

_MID_GRAY = 128
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def run(spec: BackendSpec) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (images uint8 [batch, channels, size, size], targets, sample ids) by step."""
    step = spec.first_step
    with ThreadPoolExecutor(spec.num_threads) as pool:
        while True:
            try:
                work = spec.work(step)
            except StopIteration:
                return

            def image(slot: int, work: Work = work) -> npt.NDArray[np.uint8]:
                return _image(work, slot, spec)

            pixels = np.stack(list(pool.map(image, range(len(work.encoded)))))
            images = torch.from_numpy(pixels).to(spec.device).permute(0, 3, 1, 2)
            targets = torch.from_numpy(work.targets).to(spec.device)
            yield images, targets, torch.from_numpy(work.sample_ids)
            step += 1


def _image(work: Work, slot: int, spec: BackendSpec) -> npt.NDArray[np.uint8]:
    size = (spec.format.size, spec.format.size)
    with Image.open(io.BytesIO(work.encoded[slot].tobytes())) as file:
        image = file.convert("L" if spec.format.channels == 1 else "RGB")
    top, left, bottom, right = work.windows[slot].tolist()
    box = (left, top, min(right, image.width), min(bottom, image.height))
    image = image.resize(size, _FILTERS[spec.format.interpolation], box=box)
    if work.noise is not None:
        image = _warp(image, work.noise.matrices[slot], spec.fill)
        image = _colour(image, work, slot)
    return np.atleast_3d(np.asarray(image))


def _warp(image: Image.Image, matrix: npt.NDArray[np.float32], fill: int | None) -> Image.Image:
    bands = len(image.getbands())
    if fill is not None:
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            data=matrix.ravel().tolist(),
            resample=Image.Resampling.BILINEAR,
            fillcolor=fill if bands == 1 else (fill,) * bands,
        )
    pad = max(image.size)  # the edge, repeated far enough for any map of a recipe
    pixels = np.atleast_3d(np.asarray(image))
    padded = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    shifted = matrix.astype(np.float64)
    shifted[:, 2] += pad
    source = Image.fromarray(padded[:, :, 0] if bands == 1 else padded)
    return source.transform(
        image.size,
        Image.Transform.AFFINE,
        data=shifted.ravel().tolist(),
        resample=Image.Resampling.BILINEAR,
    )


def _colour(image: Image.Image, work: Work, slot: int) -> Image.Image:
    if work.noise is None:
        return image
    saturation = float(work.noise.saturation[slot])
    if saturation != 1 and image.mode == "RGB":
        image = ImageEnhance.Color(image).enhance(saturation)
    brightness = float(work.noise.brightness[slot])
    contrast = float(work.noise.contrast[slot])
    if brightness == contrast == 1:
        return image
    offset = _MID_GRAY * (1 - contrast)
    return image.point(lambda value: brightness * (contrast * value + offset))
