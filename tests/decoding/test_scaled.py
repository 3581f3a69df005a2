from typing import Any

import numpy as np
import pytest
import simplejpeg
import skimage.data
from PIL import Image

from plstore.decoding import SCALES, can_scale, decode_scaled
from tests.decoding.made import RGB, jpeg_segment, jpeg_with, lossless_jpeg, save

CAT = Image.fromarray(skimage.data.chelsea())
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("RGB", {"subsampling": 0}),
    ("RGB", {"subsampling": 1}),
    ("RGB", {"subsampling": 2}),
    ("RGB", {"subsampling": 2, "progressive": True}),
    ("RGB", {"restart_marker_rows": 1}),
    ("L", {}),
]


@pytest.mark.parametrize(("mode", "options"), KINDS)
@pytest.mark.parametrize("scale", SCALES)
def test_pixels_are_libjpegs_with_sides_rounded_up(
    scale: int, mode: str, options: dict[str, Any]
) -> None:
    for width, height in ((451, 300), (449, 297), (33, 8), (8, 31)):
        data = save(CAT.resize((width, height)).convert(mode), "JPEG", **options)
        wanted = (-(-width // scale), -(-height // scale))
        sides = {"min_factor": scale, "min_width": wanted[0], "min_height": wanted[1]}
        for colours, gray in (("RGB", False), ("GRAY", True)):
            found = decode_scaled(memoryview(data), scale, gray=gray)
            expected = simplejpeg.decode_jpeg(data, colours, **sides)

            assert found.size == wanted
            assert np.array_equal(np.asarray(found).reshape(expected.shape), expected)


def test_only_jpegs_of_frequencies_are_scaled() -> None:
    jpeg = save(RGB, "JPEG")
    exif = jpeg_segment(0xE1, b"\xff\xc3\xff\xd8" * 9000)

    assert can_scale(jpeg)
    assert can_scale(memoryview(jpeg_with(jpeg, exif)))
    assert can_scale(save(RGB, "JPEG", progressive=True))
    assert not can_scale(lossless_jpeg(np.asarray(RGB.convert("L"))))
    for other in (save(RGB, "PNG"), save(RGB, "WEBP"), b"", b"\xff\xd8", jpeg[:20]):
        assert not can_scale(other)


def test_a_jpeg_that_is_cut_off_is_an_error() -> None:
    data = save(CAT, "JPEG")
    with pytest.raises(OSError, match="truncated"):
        decode_scaled(data[: len(data) // 2], 2, gray=False)
