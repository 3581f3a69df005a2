"""Rebuild reference.npz: what the official code's operations make of photos, by TensorFlow.

    pip install tensorflow-cpu scikit-image && python tests/data/randaugment/build.py

The formulas are those of google-research/noisystudent, randaugment.py, which needs TensorFlow 1
and its contrib package; here the same kernels are called from TensorFlow 2. Not run by the
tests, which read its result.
"""

from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import tensorflow as tf

SIZE = 64
FILL = 128
CASES = {"astronaut": (4.0, 1.0), "chelsea": (27.0, -1.0)}
TRANSLATE_CONST = 24.0
CUTOUT_CONST = 16.0
CENTRE = (41, 20)


def blend(first: tf.Tensor, second: tf.Tensor, factor: float) -> tf.Tensor:
    if factor == 0.0:
        return first
    if factor == 1.0:
        return second
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    mixed = first + factor * (second - first)
    if 0.0 < factor < 1.0:
        return tf.cast(mixed, tf.uint8)
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def gray(image: tf.Tensor) -> tf.Tensor:
    return tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))


def contrast(image: tf.Tensor, factor: float) -> tf.Tensor:
    counts = tf.histogram_fixed_width(
        tf.cast(tf.image.rgb_to_grayscale(image), tf.int32), [0, 255], nbins=256
    )
    mean = tf.reduce_sum(tf.cast(counts, tf.float32)) / 256.0
    flat = tf.clip_by_value(tf.ones_like(image, tf.float32) * mean, 0.0, 255.0)
    return blend(tf.cast(flat, tf.uint8), image, factor)


def sharpness(image: tf.Tensor, factor: float) -> tf.Tensor:
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32, (3, 3, 1, 1)) / 13.0
    batch = tf.cast(image, tf.float32)[None]
    smooth = tf.nn.depthwise_conv2d(batch, tf.tile(kernel, [1, 1, 3, 1]), [1] * 4, "VALID")
    smooth = tf.cast(tf.clip_by_value(smooth, 0.0, 255.0), tf.uint8)[0]
    inside = tf.pad(tf.ones_like(smooth), [[1, 1], [1, 1], [0, 0]])
    padded = tf.pad(smooth, [[1, 1], [1, 1], [0, 0]])
    return blend(tf.where(tf.equal(inside, 1), padded, image), image, factor)


def auto_contrast(image: tf.Tensor) -> tf.Tensor:
    channels = []
    for channel in tf.unstack(image, axis=2):
        values = tf.cast(channel, tf.float32)
        low, high = tf.reduce_min(values), tf.reduce_max(values)
        if high > low:
            scale = 255.0 / (high - low)
            values = tf.clip_by_value(values * scale - low * scale, 0.0, 255.0)
        channels.append(tf.cast(values, tf.uint8))
    return tf.stack(channels, 2)


def equalize(image: tf.Tensor) -> tf.Tensor:
    channels = []
    for channel in tf.unstack(tf.cast(image, tf.int32), axis=2):
        counts = tf.histogram_fixed_width(channel, [0, 255], nbins=256)
        there = tf.reshape(tf.gather(counts, tf.where(tf.not_equal(counts, 0))), [-1])
        step = (tf.reduce_sum(there) - there[-1]) // 255
        if step != 0:
            table = (tf.cumsum(counts) + step // 2) // step
            table = tf.clip_by_value(tf.concat([[0], table[:-1]], 0), 0, 255)
            channel = tf.gather(table, channel)  # noqa: PLW2901  one channel after another
        channels.append(tf.cast(channel, tf.uint8))
    return tf.stack(channels, 2)


def warp(image: tf.Tensor, transform: list[float]) -> tf.Tensor:
    """Transform with an alpha channel that says what is outside."""
    wrapped = tf.concat([image, tf.ones((*image.shape[:2], 1), tf.uint8)], 2)
    done = tf.raw_ops.ImageProjectiveTransformV2(
        images=wrapped[None],
        transforms=tf.constant([transform], tf.float32),
        output_shape=image.shape[:2],
        interpolation="NEAREST",
    )[0]
    return tf.where(tf.equal(done[:, :, 3:], 0), tf.constant(FILL, tf.uint8), done[:, :, :3])


def rotate(image: tf.Tensor, degrees: float) -> tf.Tensor:
    angle = np.deg2rad(degrees)
    cos, sin, last = np.cos(angle), np.sin(angle), SIZE - 1
    x = (last - (cos * last - sin * last)) / 2
    y = (last - (sin * last + cos * last)) / 2
    return warp(image, [cos, -sin, x, sin, cos, y, 0, 0])


def cutout(image: tf.Tensor, pad: int) -> tf.Tensor:
    x, y = CENTRE
    lower, upper = max(0, y - pad), max(0, SIZE - y - pad)
    left, right = max(0, x - pad), max(0, SIZE - x - pad)
    hole = tf.zeros((SIZE - lower - upper, SIZE - left - right), tf.uint8)
    mask = tf.pad(hole, [[lower, upper], [left, right]], constant_values=1)[:, :, None]
    return tf.where(tf.equal(mask, 0), tf.constant(FILL, tf.uint8), image)


def results(image: tf.Tensor, level: float, sign: float) -> dict[str, tf.Tensor]:
    share = level / 10.0
    factor = share * 1.8 + 0.1
    shift, shear = sign * share * TRANSLATE_CONST, sign * share * 0.3
    threshold, added = int(share * 256), int(share * 110)
    wide = tf.cast(image, tf.int32)
    brighter = tf.cast(tf.clip_by_value(wide + added, 0, 255), tf.uint8)
    found = {
        "AUTO_CONTRAST": auto_contrast(image),
        "EQUALIZE": equalize(image),
        "INVERT": 255 - image,
        "ROTATE": rotate(image, sign * share * 30.0),
        "SOLARIZE": tf.where(wide < threshold, image, 255 - image),
        "SOLARIZE_ADD": tf.where(image < 128, brighter, image),
        "COLOR": blend(gray(image), image, factor),
        "CONTRAST": contrast(image, factor),
        "BRIGHTNESS": blend(tf.zeros_like(image), image, factor),
        "SHARPNESS": sharpness(image, factor),
        "SHEAR_X": warp(image, [1, shear, 0, 0, 1, 0, 0, 0]),
        "SHEAR_Y": warp(image, [1, 0, 0, shear, 1, 0, 0, 0]),
        "TRANSLATE_X": warp(image, [1, 0, shift, 0, 1, 0, 0, 0]),
        "TRANSLATE_Y": warp(image, [1, 0, 0, 0, 1, shift, 0, 0]),
        "CUTOUT": cutout(image, int(share * CUTOUT_CONST)),
    }
    bits = int(share * 4)
    if bits <= 8:
        lost = tf.constant(8 - bits, tf.uint8)
        found["POSTERIZE"] = tf.bitwise.left_shift(tf.bitwise.right_shift(image, lost), lost)
    return found


def main() -> None:
    arrays: dict[str, Any] = {}
    for name, (level, sign) in CASES.items():
        photo = getattr(skimage.data, name)()[:384, :384, :3]
        small = tf.image.resize(photo, (SIZE, SIZE), antialias=True)
        image = tf.cast(tf.clip_by_value(small, 0, 255), tf.uint8)
        arrays[f"{name}/source/{level}/{sign}"] = image.numpy()
        for op, result in results(image, level, sign).items():
            arrays[f"{name}/{op}/{level}/{sign}"] = result.numpy()
    np.savez_compressed(Path(__file__).with_name("reference.npz"), **arrays)


if __name__ == "__main__":
    main()
