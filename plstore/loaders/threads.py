"""The backend `threads`: decoding and noise in a pool of threads, no worker processes.

libjpeg-turbo decodes into a buffer that each thread keeps, torch resizes with antialiasing from
there into the batch itself, and the noise is table lookups and fused warps. All of it runs
without the GIL, so threads scale, and there is nothing to pickle and nobody to kill.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from threading import local
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from plstore.loaders import kernels
from plstore.loaders.noise import ComposedDraw
from plstore.loaders.randaugment import OpDraw, contrast_centre
from plstore.loaders.scaling import decoded, resized
from plstore.loaders.transfer import on_device
from plstore.loaders.work import BackendSpec, Tensors, Work

_BATCHES_AHEAD: Final = 2
_IMAGES_A_TASK: Final = 16
_KEPT_BYTES: Final = 32 << 20
_RESIZE: Final = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,  # noqa: SLF001  into a given place
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,  # noqa: SLF001
}
_buffers = local()


def run(spec: BackendSpec) -> Iterator[Tensors]:
    """Yield images, targets and sample ids by step, made ahead in the background."""
    return on_device(_made(spec), spec.device)


def _made(spec: BackendSpec) -> Iterator[Tensors]:
    painter, steps = _Painter(spec), count(spec.first_step)
    planner = ThreadPoolExecutor(1, thread_name_prefix="plstore-plan")
    pool = ThreadPoolExecutor(spec.num_threads, thread_name_prefix="plstore-pixels")
    begun: deque[Future[_Begun]] = deque()
    try:
        while True:
            while len(begun) <= _BATCHES_AHEAD:
                begun.append(planner.submit(_begin, spec, painter, pool, next(steps)))
            yield begun.popleft().result().finished()  # kept in no name: freed once it is used
    except _EndedError:
        return
    finally:
        planner.shutdown(wait=True, cancel_futures=True)  # it reads from what others will
        pool.shutdown(wait=False, cancel_futures=True)


class _EndedError(Exception):
    """There are no more batches."""


class _Begun:
    """A batch whose images are being made."""

    def __init__(self, work: Work, images: Tensor, tasks: list[Future[None]]) -> None:
        self._work, self._images, self._tasks = work, images, tasks

    def finished(self) -> Tensors:
        for task in self._tasks:
            task.result()
        targets, sample_ids = self._work.targets, self._work.sample_ids
        return self._images, torch.from_numpy(targets), torch.from_numpy(sample_ids)


def _begin(
    spec: BackendSpec, painter: "_Painter", pool: ThreadPoolExecutor, step: int
) -> _Begun:
    try:
        work = spec.work(step)
    except StopIteration:  # which no future may carry
        raise _EndedError from None
    format_ = spec.format
    shape = (len(work.encoded), format_.channels, format_.size, format_.size)
    images = torch.empty(
        shape,
        dtype=torch.uint8,
        memory_format=torch.channels_last,
        pin_memory=spec.device.startswith("cuda"),
    )
    noised, num_images = painter.prepare(work), len(work.encoded)
    tasks = [
        pool.submit(
            painter.paint, work, noised, images, range(n, min(n + _IMAGES_A_TASK, num_images))
        )
        for n in range(0, num_images, _IMAGES_A_TASK)
    ]
    return _Begun(work, images, tasks)


_Noiser = Callable[[kernels.Image, int], kernels.Image]
"""From an image of a batch, and its place there, to the image with its noise."""


class _Painter:
    """Makes images of a batch."""

    def __init__(self, spec: BackendSpec) -> None:
        self._spec = spec
        self._size, self._channels = spec.format.size, spec.format.channels
        self._resize = _RESIZE[spec.format.interpolation]
        self._decoded: dict[int, kernels.Image] = {}
        self._scaled: dict[tuple[int, int], Image.Image] = {}
        self._dialect = spec.dialect
        self._fill = spec.fill
        self._contrast_centre: float | None = None
        if self._dialect is not None:
            self._contrast_centre = contrast_centre(self._dialect, self._size)

    def prepare(self, work: Work) -> "_Noiser":
        """Return what does the noise of a batch."""
        noise = work.noise
        if noise is None:
            return lambda image, _: image
        if isinstance(noise.augment, ComposedDraw):
            return kernels.Composed(noise.augment, self._fill).apply
        draw, maps = noise.augment, kernels.shifted(noise.augment.matrices)

        def noised(image: kernels.Image, slot: int) -> kernels.Image:
            if noise.flips[slot]:
                image = kernels.mirrored(image)
            return self._operated(image, draw, maps[slot], slot)

        return noised

    def paint(self, work: Work, noised: "_Noiser", images: Tensor, slots: range) -> None:
        """Fill some places of a batch."""
        # a view: channels are last in memory
        pixels: kernels.Image = images.permute(0, 2, 3, 1).numpy()
        with torch.inference_mode():
            for slot in slots:
                self._decode(work, slot, images, pixels)
                image: kernels.Image = pixels[slot]
                done = noised(image, slot)
                if done is not image:
                    image[...] = done

    def _decode(self, work: Work, slot: int, images: Tensor, pixels: kernels.Image) -> None:
        """Put the window of an image into its place, resized."""
        if (scale := int(work.scales[slot])) > 1:
            image = self._scaled_image(work, slot, scale)
            pixels[slot] = resized(image, work.windows[slot], scale, self._spec.format)
            return
        top, left, bottom, right = work.windows[slot].tolist()
        window = self._pixels(work, slot)[top:bottom, left:right]
        if window.shape[:2] == (self._size, self._size):
            pixels[slot] = window
            return
        place = images[slot : slot + 1]
        source = torch.from_numpy(window).permute(2, 0, 1).unsqueeze(0)
        self._resize(source, [self._size, self._size], False, None, None, out=place)  # noqa: FBT003  align_corners, by position

    def _pixels(self, work: Work, slot: int) -> kernels.Image:
        if not self._spec.keep_decoded:
            buffer = _buffer(int(work.num_pixels[slot]) * self._channels)
            return kernels.decode(work.encoded[slot], self._channels, buffer)
        row = int(work.rows[slot])
        if row not in self._decoded:
            self._decoded[row] = kernels.decode(work.encoded[slot], self._channels)
        return self._decoded[row]

    def _scaled_image(self, work: Work, slot: int, scale: int) -> Image.Image:
        key = (int(work.rows[slot]), scale)
        if (kept := self._scaled.get(key)) is not None:
            return kept
        image = decoded(work.encoded[slot], scale, self._channels)
        if self._spec.keep_decoded:
            self._scaled[key] = image
        return image

    def _operated(
        self, image: kernels.Image, draw: OpDraw, maps: kernels.Matrices, slot: int
    ) -> kernels.Image:
        if self._dialect is None or self._fill is None:
            return image
        for layer, op in enumerate(draw.ops[slot].tolist()):
            image = kernels.apply(
                image,
                op,
                float(draw.values[slot, layer]),
                maps[layer],
                draw.centres[slot, layer],
                bilinear=self._dialect.bilinear,
                fill=self._fill,
                contrast_centre=self._contrast_centre,
            )
        return image


def _buffer(num_bytes: int) -> npt.NDArray[np.uint8] | None:
    """Return memory of this thread for one decoded image: fresh pages cost a tenth of it.

    None for an image too large to keep the memory of.
    """
    if num_bytes > _KEPT_BYTES:
        return None
    buffer: npt.NDArray[np.uint8] | None = getattr(_buffers, "pixels", None)
    if buffer is None or len(buffer) < num_bytes:
        buffer = np.empty(num_bytes, np.uint8)
        _buffers.pixels = buffer
    return buffer
