"""Images for tests of robustness."""

import numpy as np
import numpy.typing as npt

from trainers.robustness.batches import ImageBatch


def make_images(count: int, size: int, channels: int) -> npt.NDArray[np.uint8]:
    """Return uint8 [count, size, size, channels]: smooth, with an edge, all different."""
    ramp = np.linspace(0, 1, size)
    rows, columns = np.meshgrid(ramp, ramp, indexing="ij")
    waves = np.sin(6 * rows + np.arange(count * channels)[:, None, None]) * np.cos(4 * columns)
    waves += rows > columns
    scaled = (waves - waves.min()) / (waves.max() - waves.min()) * 255
    by_channel = scaled.reshape(count, channels, size, size).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(by_channel).astype(np.uint8)


def make_batches(count: int, size: int, channels: int, batch: int) -> list[ImageBatch]:
    """Return images with ids from 100, in batches."""
    ids, pixels = np.arange(100, 100 + count), make_images(count, size, channels)
    return [(ids[n : n + batch], pixels[n : n + batch]) for n in range(0, count, batch)]
