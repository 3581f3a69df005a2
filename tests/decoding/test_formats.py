import pytest
from PIL import Image

from plstore.decoding import CONVERTED, KEPT, format_of
from plstore.schema import REFUSALS
from tests.decoding.made import RGB, heic, save, tiff

NAMED = [
    (save(RGB, "JPEG"), "jpeg"),
    (save(RGB, "MPO", save_all=True, append_images=[RGB]), "jpeg"),
    (save(RGB, "PNG"), "png"),
    (save(RGB, "WEBP"), "webp"),
    (save(RGB, "GIF"), "gif"),
    (save(RGB, "BMP"), "bmp"),
    (save(RGB, "TIFF"), "tiff"),
    (save(RGB, "TIFF", big_tiff=True), "tiff"),
    (save(RGB, "AVIF"), "avif"),
    (heic(RGB), "heic"),
    (save(RGB, "JPEG2000"), "jp2"),
    (save(RGB, "JPEG2000", no_jp2=True), "jp2"),
    (save(RGB, "PPM"), "ppm"),
    (save(RGB, "TGA"), "tga"),
    (save(RGB, "TGA")[:-26], "tga"),
    (save(RGB.convert("P"), "TGA", compression="tga_rle"), "tga"),
    (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "pdf"),
    (b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "svg"),
    (b"<!-- drawn by hand --><SVG/>", "svg"),
    (b"8BPS\0\1", "psd"),
    (save(Image.new("RGB", (16, 16)), "ICO"), "ico"),
    (b"\xff\x0a\x7a\x44", "jxl"),
    (b"v/1\x01\x02\0\0\0", "exr"),
    (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "video"),
    (b"RIFF\x10\0\0\0AVI LIST", "video"),
]
RAW = [
    b"II*\0\x10\0\0\0CR\x02\0" + bytes(90),
    b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom",
    b"FUJIFILMCCD-RAW 0201",
    b"IIU\0\x18\0\0\0",
    b"IIRO\x08\0\0\0",
    tiff(2, 2, bytes(4), t254=1),  # a thumbnail first: NEF, ARW
    tiff(2, 2, bytes(4), t50706=0x0401),  # DNG
    tiff(2, 2, bytes(8), t258=16, t262=32803),  # a colour filter array
    tiff(2, 2, bytes(4), t259=65535),  # Pentax
]
NONE = [
    b"",
    b"P",
    b"hello, I am no image at all",
    b"<html>404 not found</html>",
    b"<!doctype html><html><svg></svg></html>",
    b"<?xml version='1.0'?><note/>",
    b"BMW is a maker of cars",
    b"RIFF\x10\0\0\0WAVEfmt ",
    b"GIF8",
    bytes(100),
    bytes([0, 0, 2]) + bytes(9) + b"\x1e\0\x28\0\x18\x20" + bytes(100),  # TGA, but short
]


@pytest.mark.parametrize(("data", "name"), NAMED)
def test_a_format_is_known_by_its_first_bytes(data: bytes, name: str) -> None:
    assert format_of(data) == name


@pytest.mark.parametrize("data", RAW)
def test_the_files_of_cameras_are_raw_and_never_their_thumbnails(data: bytes) -> None:
    assert format_of(data) == "raw"


@pytest.mark.parametrize("data", NONE)
def test_what_is_no_image_has_no_name(data: bytes) -> None:
    assert format_of(data) is None


def test_a_tiff_of_a_directory_that_is_cut_is_a_tiff() -> None:
    whole = tiff(2, 2, bytes(4))

    assert {format_of(whole[:size]) for size in range(4, len(whole))} == {"tiff"}


def test_every_name_is_read_or_has_a_refusal_that_says_what_to_do() -> None:
    refused = {name for _, name in NAMED} - {*KEPT, *CONVERTED} | {"raw"}

    assert {f"unsupported_{name}" for name in refused} <= set(REFUSALS)
