"""A JPEG that its EXIF turns becomes an upright JPEG of the same quality, not a large PNG."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from skimage.data import astronaut
from skimage.metrics import peak_signal_noise_ratio

from plstore.images import judge
from tests.decoding.made import turned

PHOTO = Image.fromarray(astronaut()[:304, :400])
SIDEWAYS = (5, 6, 7, 8)


def photo(orientation: int, *, mode: str = "RGB", subsampling: int = 2) -> bytes:
    stream = io.BytesIO()
    options = {"quality": 85, "exif": turned(orientation)}
    if mode != "L":
        options["subsampling"] = subsampling
    PHOTO.convert(mode).save(stream, format="JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize(
    ("mode", "subsampling"), [("RGB", 0), ("RGB", 1), ("RGB", 2), ("L", 0)]
)
def test_it_is_upright_as_good_and_hardly_larger(
    orientation: int, mode: str, subsampling: int
) -> None:
    data = photo(orientation, mode=mode, subsampling=subsampling)
    found = judge(data)
    assert found.data is not None
    image = Image.open(io.BytesIO(found.data))
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))

    assert isinstance(image, JpegImageFile)
    assert (found.conversion, image.mode, image.size) == ("exif_rotated", mode, wanted.size)
    assert (found.width, found.height) == wanted.size
    assert (image.size == PHOTO.size) == (orientation not in SIDEWAYS)
    assert not image.getexif()
    psnr = peak_signal_noise_ratio(np.asarray(wanted), np.asarray(image))
    assert psnr > (35 if subsampling == 1 else 45)  # 4:2:2 on its side is 4:4:4
    assert len(found.data) < (1.3 if subsampling == 1 else 1.02) * len(data)
    assert get_sampling(image) == {("RGB", 2): 2, ("L", 0): -1}.get((mode, subsampling), 0)


def test_one_of_four_inks_becomes_a_png() -> None:
    found = judge(photo(6, mode="CMYK", subsampling=0))
    assert found.data is not None
    image = Image.open(io.BytesIO(found.data))

    assert (image.format, image.mode, found.conversion) == ("PNG", "RGB", "exif_rotated")
