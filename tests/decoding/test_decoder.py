import zlib
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps, PngImagePlugin

from plstore.decoding import Decoded, decode, format_of
from tests.decoding.made import (
    PIXELS,
    RGB,
    SIXTEEN,
    heic,
    jpeg_segment,
    jpeg_with,
    pixels_of,
    png_chunk,
    png_with,
    save,
    tiff,
    turned,
    webp_with,
)

LIMIT = 1_000_000
GRAY = RGB.convert("L")
CONTRAST = np.array([[0, 4095], [2048, 255]], np.uint16)


def two() -> dict[str, Any]:
    return {"save_all": True, "append_images": [RGB.rotate(180)]}


def decoded(data: bytes, *, max_pixels: int = LIMIT) -> Decoded:
    name = format_of(data)
    assert name is not None
    return decode(data, name, max_pixels=max_pixels, admit=lambda _pixels, _scans: None)


def twelve_bits() -> bytes:
    """Two pixels of 12 bits a line, packed in three bytes."""
    packed = bytearray()
    for left, right in CONTRAST.tolist():
        packed += bytes([left >> 4, (left & 15) << 4 | right >> 8, right & 255])
    return tiff(2, 2, bytes(packed), t258=12)


PLAIN = [
    (save(RGB, "BMP"), "from_bmp"),
    (save(RGB, "TIFF"), "from_tiff"),
    (save(RGB, "TIFF", compression="tiff_lzw"), "from_tiff"),
    (save(RGB, "TIFF", compression="zstd"), "from_tiff"),
    (save(RGB, "TIFF", **two()), "from_tiff+first_page"),
    (save(RGB, "JPEG2000"), "from_jp2"),
    (save(RGB, "PPM"), "from_ppm"),
    (save(RGB, "TGA"), "from_tga"),
    (save(RGB, "TGA", compression="tga_rle"), "from_tga"),
    (save(RGB.convert("RGBA"), "TIFF"), "from_tiff+alpha"),
    (save(RGB.convert("RGBA"), "JPEG2000"), "from_jp2+alpha"),
    (save(RGB.convert("RGBA"), "TGA"), "from_tga+alpha"),
    (heic(RGB, chroma=444, matrix_coefficients=0), "from_heic"),
]
GRAYS = [
    (save(GRAY, "TIFF"), "from_tiff"),
    (save(GRAY, "PPM"), "from_ppm"),
    (save(GRAY, "TGA"), "from_tga"),
    (save(GRAY, "JPEG2000"), "from_jp2"),
    (save(GRAY, "BMP"), "from_bmp"),
    (save(Image.merge("LA", (GRAY, GRAY)), "TIFF"), "from_tiff+alpha"),
]
SIXTEENS = [
    (save(Image.fromarray(SIXTEEN), "TIFF"), "from_tiff+sixteen_bit"),
    (save(Image.fromarray(SIXTEEN), "TIFF", compression="tiff_lzw"), "from_tiff+sixteen_bit"),
    (save(Image.fromarray(SIXTEEN), "JPEG2000"), "from_jp2+sixteen_bit"),
    (save(Image.fromarray(SIXTEEN), "PPM"), "from_ppm+sixteen_bit"),
    (tiff(30, 40, (~SIXTEEN).tobytes(), t258=16, t262=0), "from_tiff+sixteen_bit"),
    (tiff(30, 40, SIXTEEN.tobytes(), t258=16), "from_tiff+sixteen_bit"),
]


@pytest.mark.parametrize(("data", "conversion"), PLAIN)
def test_other_formats_become_png_with_the_same_pixels(data: bytes, conversion: str) -> None:
    found = decoded(data)

    assert (found.refusal, found.conversion) == (None, conversion)
    assert found.data is not None
    assert format_of(found.data) == "png"
    assert (found.width, found.height) == (30, 40)
    assert (pixels_of(found.data) == PIXELS).all()
    assert decoded(found.data) == Decoded(data=found.data, width=30, height=40)


@pytest.mark.parametrize(("data", "conversion"), GRAYS)
def test_gray_stays_gray(data: bytes, conversion: str) -> None:
    found = decoded(data)

    assert found.conversion == conversion
    assert (pixels_of(found.data) == np.asarray(GRAY)).all()


@pytest.mark.parametrize(("data", "conversion"), SIXTEENS)
def test_sixteen_bits_keep_their_high_byte(data: bytes, conversion: str) -> None:
    found = decoded(data)

    assert found.conversion == conversion
    assert (pixels_of(found.data) == PIXELS[:, :, 0]).all()


def test_colour_of_sixteen_bits_keeps_its_high_byte() -> None:
    values = (PIXELS.astype(np.uint16) << 8) + 200
    found = decoded(cv2.imencode(".tiff", values[:, :, ::-1])[1].tobytes())

    assert found.conversion == "from_tiff+sixteen_bit"
    assert (pixels_of(found.data) == PIXELS).all()


def test_twelve_bits_keep_their_highest_eight() -> None:
    found = decoded(twelve_bits())

    assert (pixels_of(found.data) == CONTRAST >> 4).all()


def test_values_of_a_pgm_are_scaled_by_the_largest_it_names() -> None:
    found = decoded(b"P5 2 2 4095\n" + CONTRAST.astype(">u2").tobytes())

    assert np.abs(pixels_of(found.data).astype(int) - CONTRAST / 4095 * 255).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "TGA"])
def test_a_palette_becomes_the_colours_that_it_stands_for(kind: str) -> None:
    drawn = RGB.convert("P", palette=Image.Palette.ADAPTIVE)
    found = decoded(save(drawn, kind))

    assert found.conversion == f"from_{kind.lower()}+palette"
    assert (pixels_of(found.data) == np.asarray(drawn.convert("RGB"))).all()


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM"])
def test_one_bit_becomes_black_and_white(kind: str) -> None:
    found = decoded(save(RGB.convert("1"), kind))

    assert found.conversion == f"from_{kind.lower()}+low_bit_depth"
    assert (pixels_of(found.data) == np.asarray(RGB.convert("1").convert("L"))).all()


@pytest.mark.parametrize("kind", ["TIFF", "AVIF", "HEIC"])
@pytest.mark.parametrize("orientation", [3, 5, 6])
def test_an_image_of_another_format_is_turned_upright(kind: str, orientation: int) -> None:
    photo = RGB.resize((90, 120), Image.Resampling.BICUBIC)
    exif = turned(orientation)
    if kind == "HEIC":
        data = heic(photo, exif=exif.tobytes())  # which its own transformation repeats
    else:
        data = save(photo, kind, exif=exif, quality=95)
    found = decoded(data)
    photo.getexif()[0x0112] = orientation
    got, wanted = pixels_of(found.data), np.asarray(ImageOps.exif_transpose(photo))

    assert got.shape == wanted.shape == (found.height, found.width, 3)
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.9
    assert (
        found.conversion
        == {
            "TIFF": "from_tiff+exif_rotated",
            "AVIF": "from_avif+exif_rotated",
            "HEIC": "from_heic",
        }[kind]
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_more_than_one_frame_is_animated(kind: str) -> None:
    assert decoded(save(RGB, kind, **two())).refusal == "animated"


def test_a_phones_second_picture_is_left_where_it_is() -> None:
    data = save(RGB, "MPO", **two())

    assert decoded(data) == Decoded(data=data, width=30, height=40)


@pytest.mark.parametrize(
    "kind", ["BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM", "TGA", "HEIC"]
)
def test_the_limit_of_pixels_comes_before_decoding(kind: str) -> None:
    data = heic(RGB) if kind == "HEIC" else save(RGB, kind)
    asked: list[int] = []
    found = decode(
        data,
        format_of(data) or "",
        max_pixels=1199,
        admit=lambda pixels, _scans: asked.append(pixels),
    )

    assert found == Decoded(refusal="over_pixel_limit", width=30, height=40)
    assert not asked
    assert decoded(data, max_pixels=1200).refusal is None


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (save(Image.fromarray(PIXELS[:, :, 0].astype(np.float32)), "TIFF"), "unsupported_tiff"),
        (save(Image.new("I", (3, 4), 70_000), "TIFF"), "unsupported_tiff"),
        (save(Image.merge("LAB", RGB.split()), "TIFF"), "unsupported_tiff"),
        (tiff(2, 2, bytes(16), t258=24), "unsupported_tiff"),
        (tiff(2, 2, bytes(8), t258=16, t339=2), "unsupported_tiff"),  # signed
        (save(Image.fromarray(PIXELS[:, :, 0].astype(np.float32)), "PPM"), "unsupported_ppm"),
    ],
)
def test_values_without_a_stated_meaning_are_refused_by_format(
    data: bytes, refusal: str
) -> None:
    assert decoded(data).refusal == refusal


@pytest.mark.parametrize(
    ("data", "_"), [*PLAIN, *GRAYS, (save(RGB, "GIF"), ""), (save(RGB, "AVIF"), "")]
)
def test_a_file_that_was_cut_is_refused_or_has_all_its_pixels(data: bytes, _: str) -> None:
    whole = pixels_of(decoded(data).data)
    for size in np.random.default_rng(0).integers(4, len(data), 12).tolist():
        if format_of(data[:size]) not in {None, "video"}:
            found = decoded(data[:size])
            assert found.refusal or (pixels_of(found.data) == whole).all()


BAD_EXIF = b"Exif\0\0this is no TIFF file, and no EXIF"
BOMB = zlib.compress(bytes(2_000_000))
PNG, JPEG, WEBP = save(RGB, "PNG"), save(RGB, "JPEG"), save(RGB, "WEBP")
BAD_JPEG_EXIF = jpeg_segment(0xE1, BAD_EXIF)
BAD_CHECK_SUM = png_chunk(b"tEXt", b"by\0nobody")[:-4] + b"sum?"


def png_texts(number: int) -> bytes:
    texts = PngImagePlugin.PngInfo()
    for index in range(number):
        texts.add_text(f"text {index}", "word " * 190_000, zip=True)
    return save(RGB, "PNG", pnginfo=texts)


UNREADABLE = {
    "png text of 2 MB": png_with(PNG, png_chunk(b"zTXt", b"notes\0\0" + BOMB)),
    "png texts of 71 MB": png_texts(75),
    "png international text": png_with(PNG, png_chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
    "png profile of 2 MB": png_with(PNG, png_chunk(b"iCCP", b"mine\0\0" + BOMB)),
    "png EXIF": png_with(PNG, png_chunk(b"eXIf", BAD_EXIF)),
    "png check sum": png_with(PNG, BAD_CHECK_SUM),
    "png size in metres": png_with(PNG, png_chunk(b"pHYs", b"1")),
    "png behind the pixels": PNG[:-12] + png_chunk(b"zTXt", b"a\0\0" + BOMB) + PNG[-12:],
    "jpeg profile": jpeg_with(JPEG, jpeg_segment(0xE2, b"ICC_PROFILE\0")),
    "jpeg several": jpeg_with(
        JPEG, jpeg_segment(0xFE, b"hi"), BAD_JPEG_EXIF, jpeg_segment(0xE2, b"ICC_PROFILE\0\1")
    ),
    "jpeg version": jpeg_with(JPEG, jpeg_segment(0xE0, b"JFIF\0")),
    "jpeg colours": jpeg_with(JPEG, jpeg_segment(0xEE, b"Adobe\0")),
    "webp EXIF": webp_with(WEBP, (b"EXIF", BAD_EXIF), flags=0x08),
    "webp EXIF, profile": webp_with(
        WEBP, (b"XMP ", b"<x/>"), (b"EXIF", BAD_EXIF[6:]), flags=0x0C
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_metadata_is_no_damage(name: str) -> None:
    data = UNREADABLE[name]
    plain = {"png": PNG, "jpe": JPEG, "web": WEBP}[name[:3]]
    found = decoded(data)

    assert (found.refusal, found.conversion) == (None, "metadata_dropped")
    assert found.data is not None
    assert format_of(found.data) == format_of(data)  # cut, not encoded again
    assert (pixels_of(found.data) == pixels_of(plain)).all()
    assert decoded(found.data) == found._replace(conversion=None)
    opened = cv2.imdecode(np.frombuffer(found.data, np.uint8), cv2.IMREAD_COLOR)
    assert opened is not None
    assert (opened[:, :, ::-1] == pixels_of(plain)).all()
    if name.startswith("jpeg"):
        assert (simplejpeg.decode_jpeg(found.data) == simplejpeg.decode_jpeg(plain)).all()


def test_dali_reads_what_is_left_without_metadata() -> None:
    from nvidia.dali import Pipeline, fn, types

    files = [decoded(data).data for data in UNREADABLE.values()]
    pipeline = Pipeline(batch_size=len(files), num_threads=1, device_id=None)
    with pipeline:
        encoded = fn.external_source(
            [[np.frombuffer(data or b"", np.uint8) for data in files]], dtype=types.UINT8
        )
        pipeline.set_outputs(fn.decoders.image(encoded, output_type=types.RGB))
    (images,) = pipeline.run()

    for index, data in enumerate(files):
        assert (np.asarray(images.at(index)) == pixels_of(data)).all()


def test_exif_that_no_decoder_of_a_jpeg_minds_stays() -> None:
    data = jpeg_with(JPEG, BAD_JPEG_EXIF)

    assert decoded(data) == Decoded(data=data, width=30, height=40)


def test_metadata_that_can_be_read_stays() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("notes", "word " * 100_000, zip=True)
    data = save(RGB, "PNG", pnginfo=texts, exif=turned(1), icc_profile=b"colours" * 99)

    assert decoded(data).data == data


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (save(RGB, "PNG", exif=turned()), "exif_rotated"),
        (save(RGB.convert("RGBA"), "PNG"), "alpha"),
        (save(RGB.convert("P"), "PNG"), "palette"),
        (save(Image.fromarray(SIXTEEN), "PNG"), "sixteen_bit"),
    ],
)
def test_an_image_is_converted_as_it_would_be_without_its_bad_metadata(
    data: bytes, word: str
) -> None:
    bad = png_with(data, png_chunk(b"zTXt", b"notes\0\0" + BOMB))

    assert decoded(bad) == decoded(data)._replace(conversion=f"metadata_dropped+{word}")


@pytest.mark.parametrize("kind", ["AVIF", "HEIC"])
def test_exif_that_cannot_be_read_is_no_damage_in_files_of_boxes(kind: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    data = heic(RGB, exif=exif.tobytes()) if kind == "HEIC" else save(RGB, "AVIF", exif=exif)
    at = data.index(b"maker") - 26  # a header, a directory of one line, its value
    bad = data[:at] + b"no TIFF!" + data[at + 8 :]
    plain, found = decoded(data), decoded(bad)

    assert data[at : at + 4] == b"MM\0*"
    assert found.refusal is None
    assert (pixels_of(found.data) == pixels_of(plain.data)).all()
    assert found.conversion == f"metadata_dropped+{plain.conversion}"


def test_pixels_that_are_broken_are_damage_whatever_the_metadata() -> None:
    middle = len(PNG) // 2
    broken = PNG[:middle] + bytes(40) + PNG[middle + 40 :]
    found = decoded(png_with(broken, png_chunk(b"eXIf", BAD_EXIF)))

    assert found.refusal == "damaged"


def test_an_image_of_many_pages_with_a_broken_second_is_its_first() -> None:
    data = save(RGB, "TIFF", **two())
    found = decoded(data[: len(data) * 2 // 3])

    assert found.conversion == "from_tiff+first_page"
    assert (pixels_of(found.data) == PIXELS).all()


def test_what_is_asked_before_decoding_is_pixels_and_scans() -> None:
    asked: list[Any] = []
    jpeg = save(RGB, "JPEG", progressive=True)
    decode(jpeg, "jpeg", max_pixels=LIMIT, admit=lambda *work: asked.append(work))

    assert asked == [(1200, jpeg.count(b"\xff\xda"))]
    refused = decode(jpeg, "jpeg", max_pixels=LIMIT, admit=lambda _pixels, _scans: "no")
    assert refused == Decoded(refusal="no", width=30, height=40)
