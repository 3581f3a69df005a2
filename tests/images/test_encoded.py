"""Images that stay in place: read again, checked, and converted as at import."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plstore.errors import StoreError
from plstore.images import (
    IMAGE_COLUMNS,
    ImageRecord,
    image_bytes,
    import_images,
    large_images_are_verdicts,
)
from plstore.loaders.imageset import open_split
from plstore.loaders.kernels import decode
from plstore.store import Store, create
from tests.decoding.made import RGB, heic, png_chunk, png_with, save

FILES = {
    "plain.png": save(RGB, "PNG"),
    "text.png": png_with(save(RGB, "PNG"), png_chunk(b"eXIf", b"no TIFF file")),
    "drawn.bmp": save(RGB.convert("P"), "BMP"),
    "scan.tif": save(RGB, "TIFF", compression="tiff_lzw"),
    "old.gif": save(RGB, "GIF"),
    "new.avif": save(RGB, "AVIF"),
    "phone.heic": heic(RGB),
    "archive.jp2": save(RGB, "JPEG2000"),
    "text.ppm": save(RGB, "PPM"),
    "game.tga": save(RGB, "TGA"),
}


def imported(folder: Path, *, in_place: bool) -> Store:
    store = create(folder / f"store-{in_place}")
    records = []
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
        place = str(folder / name)
        records.append(
            ImageRecord(key=name, split="labeled", data=data, label="cat", place=place)
        )
    counts = import_images(
        store, records, dataset="mixed", class_names=["cat"], in_place=in_place
    )
    assert counts.verdicts == {"accepted": len(FILES)}
    return store


def contents(store: Store, *, tolerant: bool = False) -> list[bytes | None]:
    rows = store.table("images").read(columns=list(IMAGE_COLUMNS)).combine_chunks()
    found: list[bytes | None] = image_bytes(rows.to_batches()[0], tolerant=tolerant).to_pylist()
    return found


def test_every_format_in_place_is_converted_as_at_import(tmp_path: Path) -> None:
    with large_images_are_verdicts():
        stored, placed = (imported(tmp_path, in_place=kept) for kept in (False, True))
    bytes_of_placed = placed.table("images").read(columns=["image"])["image"].to_pylist()

    assert [image["bytes"] for image in bytes_of_placed] == [None] * len(FILES)
    assert contents(placed) == contents(stored)


def test_loaders_read_every_format(tmp_path: Path) -> None:
    store = imported(tmp_path, in_place=True)
    images = open_split(store, "labeled")
    encoded, intact = images.read(np.arange(len(FILES)))

    assert intact.all()
    for data in encoded:
        with Image.open(io.BytesIO(data.tobytes())) as image:
            expected = np.asarray(image.convert("RGB"))
        assert (decode(data, 3) == expected).all()


def test_a_format_that_cannot_be_read_here_is_an_error_and_never_an_empty_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = imported(tmp_path, in_place=True)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)

    for tolerant in (False, True):
        with pytest.raises(StoreError, match=r"from_heic.*unsupported_heic.*plstore\[heic\]"):
            contents(store, tolerant=tolerant)


def test_a_converted_image_whose_file_is_gone_is_null_where_that_is_tolerated(
    tmp_path: Path,
) -> None:
    store = imported(tmp_path, in_place=True)
    (tmp_path / "old.gif").unlink()
    (tmp_path / "scan.tif").write_bytes(FILES["drawn.bmp"])
    found = zip(FILES, contents(store, tolerant=True), strict=True)
    lost = [name for name, data in found if data is None]

    assert lost == ["scan.tif", "old.gif"]
    with pytest.raises(StoreError, match="holds other bytes now"):
        contents(store)
