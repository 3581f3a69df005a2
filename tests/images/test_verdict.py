import io
import os
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plstore.decoding import apart
from plstore.errors import InputError
from plstore.images.verdict import Verdict, judge, large_images_are_verdicts
from plstore.schema import ACCEPTED, REFUSALS
from tests.decoding.made import PIXELS, RGB, heic, many_scans, png_chunk, png_with, save

PNG = save(RGB, "PNG")
JPEG = save(RGB, "JPEG")
WEBP = save(RGB, "WEBP")
SIXTEEN = Image.fromarray((PIXELS[:, :, 0].astype(np.uint16) << 8) + 7)


@pytest.fixture(autouse=True, scope="module")
def _kept() -> Iterator[None]:
    """Keep the processes that decode from one test to the next."""
    with large_images_are_verdicts():
        yield


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
    kinds = [PNG, JPEG, WEBP, save(RGB, "JPEG", exif=exif)]
    kinds += [save(RGB, kind) for kind in ("GIF", "TIFF", "BMP", "AVIF", "JPEG2000")]
    verdicts = set()
    for data in kinds:
        for _ in range(100):
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
        (b"%PDF-1.7", "unsupported_pdf"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_svg"),
        (b"FUJIFILMCCD-RAW 0201", "unsupported_raw"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "unsupported_video"),
        (save(Image.new("F", (3, 4)), "TIFF"), "unsupported_tiff"),
        (save(RGB, "GIF", save_all=True, append_images=[RGB.rotate(180)]), "animated"),
        (save(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)]), "animated"),
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


def test_every_verdict_is_in_the_description_of_the_format() -> None:
    text = resources.files("plstore").joinpath("FORMAT.md").read_text()
    listed = text[text.index("`verdict` is `accepted`") : text.index("Hashes are XXH3-128")]

    for reason in REFUSALS:
        assert f"`{reason}`" in listed or f"`{reason.removeprefix('unsupported_')}`" in listed


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
    verdict = judge(save(Image.new("1", (20_000, 10_000)), "PNG"))

    assert (verdict.verdict, verdict.width, verdict.height) == (
        "over_pixel_limit",
        20_000,
        10_000,
    )


def test_an_image_of_100_megapixels_is_refused_before_it_is_decoded() -> None:
    verdict = judge(save(Image.new("L", (10_000, 10_000)), "PNG"))

    assert (verdict.verdict, verdict.width) == ("over_pixel_limit", 10_000)


@pytest.mark.parametrize(
    ("data", "conversion"),
    [
        (save(RGB.convert("CMYK"), "JPEG"), "cmyk"),
        (save(SIXTEEN, "PNG"), "sixteen_bit"),
        (save(RGB.convert("RGBA"), "PNG"), "alpha"),
        (save(RGB.convert("P"), "PNG"), "palette"),
        (save(RGB.convert("1"), "PNG"), "low_bit_depth"),
        (save(RGB, "BMP"), "from_bmp"),
        (save(RGB, "GIF"), "from_gif+palette"),
        (save(RGB, "TIFF", compression="tiff_lzw"), "from_tiff"),
        (save(RGB, "AVIF"), "from_avif"),
        (save(RGB, "JPEG2000"), "from_jp2"),
        (save(RGB, "PPM"), "from_ppm"),
        (save(RGB, "TGA"), "from_tga"),
        (heic(RGB), "from_heic"),
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


FILL = 1 << 20
HOSTILE = {
    "0xFF from the start": (b"\xff\xd8\xff" + b"\xff" * FILL, "truncated"),
    "0xFF before the pixels": (JPEG[:2] + b"\xff" * FILL + JPEG[2:], ACCEPTED),
    "0xFF instead of an end": (JPEG[:-2] + b"\xff" * FILL, "truncated"),
    "0xFF of 4 MB": (JPEG[:-2] + b"\xff" * (4 << 20), "truncated"),
    "scans of no size": (JPEG[:-2] + b"\xff\xda\0\0" * (FILL // 4), "truncated"),
    "ends without an end": (PNG[:-12] + b"IEND" * (FILL // 4), "truncated"),
    "ends of 4 MB": (PNG[:-12] + b"IENDIEN" * (FILL * 4 // 7), "truncated"),
    "empty chunks": (png_with(PNG, png_chunk(b"teXt", b"") * (FILL // 12)), ACCEPTED),
    "sizes of 4 GB": (PNG[:33] + b"\xff\xff\xff\xffIDAT" * (FILL // 8), "truncated"),
    "a RIFF of nothing": (b"RIFF\0\0\0\0WEBP" + b"EXIF\0\0\0\0" * (FILL // 8), "damaged"),
    "a RIFF of 4 GB": (b"RIFF\xff\xff\xff\xffWEBP" + b"EXIF" * (FILL // 4), "truncated"),
    "comments of a GIF": (save(RGB, "GIF")[:-1] + b"!\xfe\1a\0" * (FILL // 5), ACCEPTED),
    "brands": (b"\0\x10\0\0ftypavif" + b"avif" * (FILL // 4), "damaged"),
    "blanks": (b" " * FILL, "not_an_image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gets_its_verdict(name: str) -> None:
    data, verdict = HOSTILE[name]

    assert judge(data).verdict == verdict


def started(data: bytes, **limits: float | None) -> tuple[Verdict, bool]:
    """Judge an image, and say whether a process decoded it."""
    while apart._pool.idle:
        apart._pool.idle.pop().end()
    verdict = judge(data, **limits)  # type: ignore[arg-type]
    return verdict, bool(apart._pool.idle)


def test_what_might_take_long_is_decoded_in_a_process_and_all_else_here() -> None:
    large = save(Image.new("L", (4000, 4001)), "PNG", compress_level=1)
    long = png_with(PNG, png_chunk(b"teXt", bytes(1 << 20)))
    odd, bmp = save(RGB.convert("P"), "PNG"), save(RGB, "BMP")
    kept = Verdict(verdict=ACCEPTED, data=large, width=4000, height=4001)

    assert [started(data)[1] for data in (PNG, JPEG, WEBP, odd)] == [False] * 4
    assert started(large) == (kept, True)
    assert started(long) == (Verdict(verdict=ACCEPTED, data=long, width=30, height=40), True)
    assert started(many_scans(100, 450))[1]
    assert started(bmp) == (judge(bmp), True)
    assert started(bmp, max_seconds=None) == (judge(bmp), False)


def test_the_limit_of_time_is_a_verdict_of_its_own() -> None:
    slow = many_scans(100, 6000)

    assert judge(slow, max_seconds=0.2) == Verdict(verdict="too_slow")
    assert judge(many_scans(101, 16)).verdict == "too_slow"
    assert judge(many_scans(101, 16), max_seconds=None).verdict == ACCEPTED
    assert {"too_slow", "over_memory_limit"} <= set(REFUSALS)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_no_time_is_an_error(seconds: float) -> None:
    with pytest.raises(
        InputError, match=f"limit of {seconds} seconds; wanted a number above 0"
    ):
        judge(PNG, max_seconds=seconds)


def test_a_format_that_needs_a_library_is_named_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)

    assert judge(heic(RGB)).verdict == "unsupported_heic"
    assert "plstore[heic]" in REFUSALS["unsupported_heic"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_has_processes_of_its_own() -> None:
    expected = judge(save(RGB, "BMP"))
    child = os.fork()
    if not child:
        os._exit(0 if judge(save(RGB, "BMP")) == expected else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert judge(save(RGB, "BMP")) == expected


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
