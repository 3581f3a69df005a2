import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plstore.schema import REFUSALS
from plstore.store.verdict import judge, large_images_are_verdicts

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


RGB = Image.fromarray(PIXELS)
PNG = save(RGB, "PNG")
JPEG = save(RGB, "JPEG")
WEBP = save(RGB, "WEBP")
SIXTEEN = Image.fromarray((PIXELS[:, :, 0].astype(np.uint16) << 8) + 7)


@pytest.mark.parametrize("data", [PNG, JPEG, WEBP, save(RGB.convert("L"), "JPEG")])
def test_a_plain_image_is_kept_as_it_came(data: bytes) -> None:
    verdict = judge(data)

    assert (verdict.verdict, verdict.conversion) == ("accepted", None)
    assert verdict.data == data
    assert (verdict.width, verdict.height) == (30, 40)


@pytest.mark.parametrize("tail", [b"tail", bytes([0, 18, 0xFF, 0xDA, 0]), b"\xff\xd8\xff\xda"])
def test_bytes_after_the_end_do_no_harm(tail: bytes) -> None:
    assert judge(JPEG + tail).verdict == "accepted"
    assert judge(save(RGB, "JPEG", progressive=True) + tail).verdict == "accepted"
    assert judge(PNG + tail).verdict == "accepted"


def test_files_broken_at_random_get_a_verdict_and_never_an_error() -> None:
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [PNG, JPEG, WEBP, save(RGB, "GIF"), save(RGB, "TIFF"), save(RGB, "JPEG", exif=exif)]
    verdicts = set()
    for data in kinds:
        for _ in range(150):
            broken = bytearray(data[: random.integers(8, len(data) + 1)])
            for position in random.integers(0, len(broken), 3):
                broken[position] = random.integers(0, 256)
            verdicts.add(judge(bytes(broken)).verdict)

    assert verdicts <= {"accepted", *REFUSALS}
    assert {"truncated", "damaged", "not_an_image"} <= verdicts


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am no image at all", "not_an_image"),
        (save(RGB, "GIF"), "unsupported_format"),
        (save(RGB, "BMP"), "unsupported_format"),
        (save(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90)]), "unsupported_format"),
        (save(RGB, "PNG", save_all=True, append_images=[RGB.rotate(90)]), "animated"),
        (PNG[:-5], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (JPEG[:-2], "truncated"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (WEBP[:-9], "truncated"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    verdict = judge(data)

    assert verdict.verdict == reason
    assert reason in REFUSALS
    assert verdict.data is None


def test_a_png_broken_inside_is_damaged() -> None:
    middle = len(PNG) // 2
    broken = (
        PNG[:middle] + bytes(b ^ 0xFF for b in PNG[middle : middle + 40]) + PNG[middle + 40 :]
    )

    assert judge(broken).verdict in {"damaged", "truncated"}


def test_bytes_between_header_segments_do_no_harm() -> None:
    assert JPEG[2:4] == b"\xff\xe0"
    end = 4 + int.from_bytes(JPEG[4:6])

    assert judge(JPEG[:end] + b"\x00\x00" + JPEG[end:]).verdict == "accepted"


def test_an_image_over_pillows_own_limit_keeps_its_size() -> None:
    huge = save(Image.new("1", (20_000, 10_000)), "PNG")
    with large_images_are_verdicts():
        verdict = judge(huge)

    assert (verdict.verdict, verdict.width, verdict.height) == (
        "over_pixel_limit",
        20_000,
        10_000,
    )


def test_an_image_of_100_megapixels_is_refused_before_it_is_decoded() -> None:
    huge = save(Image.new("L", (10_000, 10_000)), "PNG")
    with large_images_are_verdicts():
        verdict = judge(huge)

    assert (verdict.verdict, verdict.width) == ("over_pixel_limit", 10_000)


@pytest.mark.parametrize(
    ("data", "conversion"),
    [
        (save(RGB.convert("CMYK"), "JPEG"), "cmyk"),
        (save(SIXTEEN, "PNG"), "sixteen_bit"),
        (save(RGB.convert("RGBA"), "PNG"), "alpha"),
        (save(RGB.convert("P"), "PNG"), "palette"),
        (save(RGB.convert("1"), "PNG"), "low_bit_depth"),
    ],
)
def test_an_odd_image_is_converted_in_a_stated_way(data: bytes, conversion: str) -> None:
    verdict = judge(data)

    assert (verdict.verdict, verdict.conversion) == ("accepted", conversion)
    assert verdict.data is not None
    again = judge(verdict.data)
    assert (again.conversion, again.width, again.height) == (None, 30, 40)


def test_sixteen_bits_keep_their_high_byte() -> None:
    verdict = judge(save(SIXTEEN, "PNG"))
    assert verdict.data is not None
    with Image.open(io.BytesIO(verdict.data)) as image:
        pixels = np.asarray(image)

    assert (pixels == PIXELS[:, :, 0]).all()


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    verdict = judge(save(RGB, "JPEG", exif=exif, quality=95))
    assert verdict.data is not None
    with Image.open(io.BytesIO(verdict.data)) as image:
        turned = np.asarray(image).astype(int)

    assert (verdict.conversion, verdict.width, verdict.height) == ("exif_rotated", 40, 30)
    expected = np.rot90(PIXELS, -1).astype(int)
    assert np.corrcoef(turned.ravel(), expected.ravel())[0, 1] > 0.5


def test_every_accepted_image_decodes_alike_in_dali(tmp_path: Path) -> None:
    from nvidia.dali import Pipeline, fn, types

    files = [PNG, JPEG, WEBP]
    for index, data in enumerate(files):
        (tmp_path / f"{index}").write_bytes(data)
    pipeline = Pipeline(batch_size=3, num_threads=1, device_id=None)
    with pipeline:
        encoded, _ = fn.readers.file(files=[str(tmp_path / str(i)) for i in range(3)])
        pipeline.set_outputs(fn.decoders.image(encoded, output_type=types.RGB))
    (decoded,) = pipeline.run()

    for index, data in enumerate(files):
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("RGB"))
        assert (np.asarray(decoded.at(index)) == expected).all()
