import pytest

from plstore.decoding.markers import (
    jpeg_markers,
    png_chunks,
    riff_chunks,
    scans_to_end,
    without_metadata,
)
from tests.decoding.made import RGB, jpeg_segment, jpeg_with, many_scans, save

JPEG, PNG, WEBP = (save(RGB, kind) for kind in ("JPEG", "PNG", "WEBP"))


def filled(head: bytes, unit: bytes, megabytes: int) -> bytes:
    size = megabytes << 20
    return (head + unit * (size // len(unit) + 1))[:size]


HOSTILE = {
    "jpeg": [
        (JPEG[:3], b"\xff"),
        (JPEG[:-2], b"\xff"),
        (JPEG[:-2], b"\xff\x00"),
        (JPEG[:-2], b"\xff\xff\x00"),
        (JPEG[:-2], b"\xff\x01"),
        (JPEG[:-2], b"\xff\xd8"),
        (JPEG[:-2], b"\xff\xda\x00\x00"),
        (JPEG[:2], b"\xff\xfe\x00\x02"),
        (JPEG[:2], b"\xff\xe1\x00\x00"),
    ],
    "png": [
        (PNG[:-12], b"IEND"),
        (PNG[:-12], b"IENIEN"),
        (PNG[:33], b"\x00\x00\x00\x00teXt1234"),
        (PNG[:33], b"\xff\xff\xff\xffIDAT"),
    ],
    "webp": [
        (WEBP[:12], b"EXIF\x00\x00\x00\x00"),
        (WEBP[:12], b"EXIF\xff\xff\xff\xff"),
        (b"RIFF\xff\xff\xff\xffWEBP", b"EXIF\x00\x00\x00\x00"),
        (b"RIFF\x00\x00\x00\x00WEBP", b"RIFF"),
    ],
}
WALKS = {"jpeg": (jpeg_markers, 2), "png": (png_chunks, 12), "webp": (riff_chunks, 8)}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_walk_takes_no_more_steps_than_bytes_allow(name: str) -> None:
    walk, bytes_a_step = WALKS[name]
    for head, unit in HOSTILE[name]:
        data = filled(head, unit, 1)
        steps, shortest = 0, bytes_a_step
        for _, start, end in walk(data):
            steps, shortest = steps + 1, min(shortest, end - start)

        assert steps <= len(data) / bytes_a_step, unit
        assert shortest >= bytes_a_step, unit  # it always moves on


@pytest.mark.parametrize("megabytes", [1, 4])
@pytest.mark.parametrize("unit", [b"\xff", b"\xff\x00", b"\xff\xff\x00", b"\xff\xda\xff\xff"])
def test_runs_in_a_jpeg_are_passed_in_one_go(unit: bytes, megabytes: int) -> None:
    data = filled(JPEG[:-2], unit, megabytes)  # a search that is quadratic would not come back

    assert scans_to_end("jpeg", data) == 0
    assert sum(1 for _ in jpeg_markers(data)) < 10 + len(data) // 0xFFFF
    assert without_metadata("jpeg", data, turning=False) == data


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_left_without_metadata_is_never_more(name: str) -> None:
    for head, unit in HOSTILE[name]:
        data = filled(head, unit, 1)

        assert len(without_metadata(name, data, turning=False)) <= len(data)


def test_scans_are_counted_up_to_the_end_of_the_image() -> None:
    assert scans_to_end("jpeg", JPEG) == 1
    assert scans_to_end("jpeg", many_scans(77, 16)) == 77
    assert scans_to_end("jpeg", JPEG + many_scans(77, 16)) == 1
    assert scans_to_end("jpeg", JPEG[:-2]) == 0
    assert scans_to_end("png", PNG[:-9]) == scans_to_end("webp", WEBP[:-1]) == 0


@pytest.mark.parametrize(("name", "data"), [("jpeg", JPEG), ("png", PNG), ("webp", WEBP)])
def test_an_image_without_metadata_stays_as_it_is(name: str, data: bytes) -> None:
    assert without_metadata(name, data, turning=False) == data


def test_what_says_how_colours_are_coded_stays() -> None:
    adobe = jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
    photo = jpeg_with(JPEG, jpeg_segment(0xFE, b"a comment"), adobe)

    assert without_metadata("jpeg", photo, turning=False) == jpeg_with(JPEG, adobe)
