import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plstore
from plstore.images import ImageFile, import_images
from plstore.report import shown as pictures
from plstore.report.pictures import draw
from plstore.report.shown import read_images
from plstore.report.snapshot import Snapshot
from tests.conftest import encode


def row(data: bytes, **more: object) -> dict[str, Any]:
    found: dict[str, Any] = {"sample_id": 1, "verdict": "accepted", "why": "", "bytes": data}
    return {**found, "width": 1, "height": 1, **more}


def noise(height: int, width: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encode(pixels, kind)


def huge_png(side: int) -> bytes:
    """Return a PNG whose header says side x side, and whose body says nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_images_of_a_page_are_read_at_once_and_are_those_of_the_store(
    snapshot: Snapshot,
) -> None:
    ids = [70, 3, 12, 40, 3]
    found = pictures.pictures(snapshot).of(ids)
    rows = snapshot.store.table("images").read(columns=["sample_id", "image"]).to_pylist()
    stored = {r["sample_id"]: r["image"]["bytes"] for r in rows}

    assert list(found) == [70, 3, 12, 40]
    assert all(found[i].data == stored[i] for i in ids)
    assert all(found[i].is_small for i in ids)
    assert found[3].uri.startswith("data:image/png;base64,")
    assert pictures.pictures(snapshot).of([3])[3] is found[3]


def test_an_image_that_is_not_there_says_so(snapshot: Snapshot) -> None:
    found = pictures.pictures(snapshot).of([9999])

    assert found[9999].why == "not in the store"
    assert list(read_images(snapshot, [])) == []


def test_one_pixel_is_shown_as_a_square() -> None:
    shot = draw(row(noise(1, 1)), 176)

    assert shot.is_small
    assert shot.kind == "image/png"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_large_images_are_drawn_small(kind: str) -> None:
    shot = draw(row(noise(300, 900, kind), width=900, height=300), 176)

    with Image.open(io.BytesIO(shot.data)) as image:
        assert image.format == "JPEG"
        assert image.width == 176
        assert 58 <= image.height <= 59
    assert not shot.is_small


def test_a_hundred_megapixels_are_never_decoded() -> None:
    told = draw(row(b"not even looked at", width=10_000, height=10_000), 176)
    untold = draw(row(huge_png(10_000), width=1, height=1), 176)

    assert told.why == "10000 x 10000 pixels: too large to draw here"
    assert untold.why == "10000 x 10000 pixels: too large to draw"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"verdict": "over_pixel_limit"}, "over pixel limit"),
        ({"why": "its file is gone"}, "its file is gone"),
        ({"bytes": None}, "no bytes"),
        ({"bytes": b"no image"}, "cannot be decoded"),
        ({"bytes": noise(300, 300)[:2000]}, "cannot be decoded"),
    ],
)
def test_what_cannot_be_shown_says_why(given: dict[str, Any], why: str) -> None:
    shot = draw(row(noise(2, 2), **given), 176)

    assert why in shot.why
    assert not shot.data


def test_files_left_in_place_are_shown_and_those_that_are_gone_or_changed_say_so(
    tmp_path: Path,
) -> None:
    store = plstore.create(tmp_path / "store")
    records = []
    for number in range(4):
        place = tmp_path / f"{number}.png"
        place.write_bytes(noise(20 + number, 20))
        records.append(ImageFile(key=place.name, split="unlabeled", place=str(place)))
    import_images(store, records, dataset="pets", class_names=("cat",), in_place=True)
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").write_bytes(noise(9, 9))
    found = pictures.pictures(Snapshot(store)).of([0, 1, 2, 3])

    assert [bool(found[i].data) for i in range(4)] == [True, False, False, True]
    assert found[1].why == found[2].why == "its file is gone"


def test_little_is_kept_in_memory(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_CACHE_BYTES", 5000)
    some = pictures.Pictures(snapshot)
    found = some.of(list(range(30)))

    assert all(shot.data for shot in found.values())
    assert 0 < sum(len(shot.data) for shot, _ in some._kept.values()) <= 5000
