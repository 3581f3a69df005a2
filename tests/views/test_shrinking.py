"""Views whose images are shrunk: what is in them, and that all else works on them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image

import plstore
from plstore.errors import InputError, StoreError
from plstore.exchange import export_view
from plstore.exchange.exports import Kind
from plstore.fingerprint import content_hash
from plstore.images import ImageRecord, import_images
from plstore.selection import Balance, Selection, select, select_labeled
from plstore.store import Store
from plstore.upkeep import collect, erase, verify
from plstore.views import Shrink, Shrinking, View, open_view, shrink_image
from tests.conftest import CLASS_NAMES, give_labels
from tests.loaders.conftest import BACKENDS, loader_of

CAT = Image.fromarray(skimage.data.chelsea())
SIZES = ((451, 300), (64, 48), (120, 161), (48, 64), (65, 20), (7, 400))
NUM_LARGE = 4  # of these, more than 64 pixels
KINDS = ("JPEG", "PNG", "WEBP")
OF_IMAGE = ("width", "height", "image_hash", "image")


def photo(size: tuple[int, int], kind: str = "JPEG", mode: str = "RGB", left: int = 0) -> bytes:
    stream = io.BytesIO()
    CAT.resize(size, box=(left, 0, 451, 300)).convert(mode).save(stream, kind, quality=92)
    return stream.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.fixture
def photos(tmp_path: Path) -> Store:
    """A store of images of 7 to 451 pixels in three formats, some of them gray."""
    records = []
    for index in range(36):
        split = ("labeled", "unlabeled", "unlabeled")[index // 6 % 3]
        kind, mode = KINDS[(index + index // 6) % 3], "L" if index % 7 == 0 else "RGB"
        records.append(
            ImageRecord(
                key=f"{index:02d}",
                split=split,
                data=photo(SIZES[index % 6], kind, mode, index),
                label=CLASS_NAMES[index % 3] if split == "labeled" else None,
            )
        )
    store = plstore.create(tmp_path / "store")
    import_images(store, records, dataset="photos", class_names=CLASS_NAMES)
    give_labels(store)
    return store


def selected(store: Store, **changes: Any) -> View:  # noqa: ANN401
    balance = Balance(policy="none", min_confidence=0.0)
    values: dict[str, Any] = {"view": "small", "balance": balance, "max_side": 64}
    return select(store, Selection(**{**values, "teachers": ["t0@1"], **changes}))


def rows_of(view: View) -> list[dict[str, Any]]:
    return [row for batch in view.batches() for row in batch.to_pylist()]


def test_larger_images_are_shrunk_and_all_else_is_as_it_was(photos: Store) -> None:
    small = rows_of(view := selected(photos))
    whole = rows_of(selected(photos, view="whole", max_side=None, mode="packed"))
    num_shrunk = 0
    for row, before in zip(small, whole, strict=True):
        assert row.keys() == before.keys()
        kept = set(row)
        if max(before["width"], before["height"]) > 64:
            kept -= set(OF_IMAGE)
            num_shrunk += 1
            image = opened(row["image"])
            assert (image.format, image.mode) == ("JPEG", opened(before["image"]).mode)
            assert image.size == (row["width"], row["height"])
            assert max(image.size) == 64
            assert row["image_hash"] == content_hash(row["image"])
        assert all(row[name] == before[name] for name in kept - {"view"})

    assert view.record.mode == "packed"
    assert view.record.counts["shrunk"] == num_shrunk == 24 == 36 * NUM_LARGE // 6


def test_the_record_and_the_lineage_say_what_was_done(photos: Store) -> None:
    view = open_view(photos, selected(photos, quality=70).record.view)
    lineage = next(iter(photos.table("view_rows").history())).lineage
    given = {"max_side": 64, "quality": 70}

    assert given.items() <= dict(view.record.parameters).items()
    assert {**given, "shrunk": view.record.counts["shrunk"]}.items() <= lineage.items()
    assert Shrink.of(view.record) == Shrink(max_side=64, quality=70)
    assert Shrink.of(select_labeled(photos, "all").record) is None


def test_the_same_images_give_the_same_bytes(photos: Store) -> None:
    once, again = selected(photos), selected(photos)

    assert rows_of(once) == [{**row, "version": 1} for row in rows_of(again)]
    assert once.shards()[0].size_bytes == again.shards()[0].size_bytes


def test_labeled_images_alone_are_shrunk_too(photos: Store) -> None:
    view = select_labeled(photos, "all", shrink=Shrink(max_side=64))

    assert view.record.counts["shrunk"] == 12 * NUM_LARGE // 6
    assert max(max(row["width"], row["height"]) for row in rows_of(view)) == 64


def test_a_deletion_and_verification_reach_shrunk_images(photos: Store) -> None:
    view = selected(photos)
    gone = next(row for row in rows_of(view) if row["image"][:2] == b"\xff\xd8")
    assert verify(photos) == []
    erase(photos, [gone["sample_id"]], reason="asked for")
    collect(photos)

    left = open_view(photos, "small")
    assert (left.num_deleted, len(rows_of(left))) == (1, 35)
    assert verify(photos) == []
    for path in photos.root.rglob("*.parquet"):
        assert gone["image"] not in path.read_bytes()


def test_verification_finds_packed_bytes_of_another_hash(photos: Store) -> None:
    view = selected(photos)
    table = photos.table("view_rows")
    shard = view.shards()[0]
    rows = pq.ParquetFile(table.root / shard.path).read()
    images = [rows["image"][0].as_py()[:-9] + b"\0" * 9, *rows["image"].to_pylist()[1:]]
    column = pa.array(images, pa.binary())
    rows = rows.set_column(rows.column_names.index("image"), "image", column)
    wrong = table.write_shard("wrong", rows, shard.partition)
    table.commit([wrong], lineage={}, transaction="wrong", remove=[shard])
    found = verify(photos)

    assert [problem.what for problem in found] == ["image_hash"]
    assert f"image {rows['sample_id'][0]} " in found[0].detail


@pytest.mark.parametrize("kind", ["folder", "parquet", "webdataset"])
def test_an_export_holds_the_shrunk_images(photos: Store, tmp_path: Path, kind: Kind) -> None:
    view = selected(photos)
    done = export_view(view, tmp_path / "out", kind)
    files = b"".join(path.read_bytes() for path in done.folder.rglob("*") if path.is_file())

    assert done.num_images == 36
    assert all(row["image"] in files for row in rows_of(view))
    assert '"max_side": 64' in (done.folder / "README.md").read_text()


@pytest.mark.parametrize("shuffle", ["global", "windowed"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_loaders_feed_and_verify_shrunk_images(
    photos: Store, backend: str, shuffle: str
) -> None:
    loader = loader_of(selected(photos), backend=backend, shuffle=shuffle)
    found = loader.verify(2)

    assert found.ok, found.errors
    assert found.samples == 64
    assert next(iter(loader)).images.shape == (32, 3, 32, 32)


@pytest.mark.parametrize(
    ("width", "height", "side", "size"),
    [
        (4032, 3024, 512, (512, 384)),
        (3024, 4032, 512, (384, 512)),
        (1000, 999, 100, (100, 100)),
        (1000, 994, 100, (100, 99)),
        (400, 7, 64, (64, 1)),
        (4000, 1, 64, (64, 1)),
    ],
)
def test_the_longer_side_becomes_what_was_asked_for(
    width: int, height: int, side: int, size: tuple[int, int]
) -> None:
    assert Shrink(max_side=side).size_of(width, height) == size


@pytest.mark.parametrize("side", [20, 37, 75, 112, 150, 299])
def test_shrunk_pixels_are_those_of_the_whole_image(side: int) -> None:
    data, shrink = photo((451, 300)), Shrink(max_side=side, quality=95)
    found = opened(shrink_image(data, 451, 300, shrink).data)
    size = shrink.size_of(451, 300)
    expected = opened(data).resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    expected.save(stream, "JPEG", quality=95)
    difference = np.asarray(found, np.int16) - np.asarray(opened(stream.getvalue()), np.int16)

    assert found.size == size
    assert np.abs(difference).mean() < 2.5


def test_an_image_that_cannot_be_decoded_is_named() -> None:
    columns = {"sample_id": [7], "width": [900], "height": [9], "image_hash": [""]}
    rows = pa.record_batch({**columns, "image": [photo((900, 9))[:300]]})
    with pytest.raises(StoreError, match="image 7, which import accepted, cannot be shrunk"):
        list(Shrinking(Shrink(max_side=64)).of([rows]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_side": 0}, "max_side is 0; wanted a whole number from 1 to 65,500"),
        ({"max_side": 70_000}, "max_side is 70000; wanted"),
        ({"max_side": 512.0}, r"max_side is 512\.0; wanted"),
        ({"quality": 0}, "quality is 0; wanted a whole number from 1 to 100"),
        ({"quality": True}, "quality is True; wanted"),
        ({"max_side": None, "quality": 90}, "quality without max_side"),
        ({"mode": "reference"}, "mode is 'reference' with max_side"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Selection(**{"view": "v", "teachers": ["t0"], "max_side": 64, **changes})


def test_a_query_with_a_parameter_of_that_name_is_refused(
    photos: Store, tmp_path: Path
) -> None:
    path = tmp_path / "mine.sql"
    path.write_text("""-- Labels of images that are not large.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar: whose labels
-- param iteration integer: of which iteration
-- param max_side integer: pixels of the width at most
-- column sample_id bigint: the image
-- column class_id integer: the predicted class
-- column confidence float: of the label
-- column outcome varchar: kept or large
-- column copies integer: 1
select
    soft_labels.sample_id,
    class_id,
    confidence,
    if(width <= $max_side, 'kept', 'large') as outcome,
    1 as copies
from soft_labels inner join images on soft_labels.sample_id = images.sample_id
where teacher_id = $teacher_id and iteration = $iteration
""")
    values = {"query": str(path), "parameters": {"max_side": 100}, "balance": Balance()}
    with pytest.raises(InputError, match="the query has a parameter 'max_side'"):
        selected(photos, **values)
    assert selected(photos, **values, max_side=None).record.counts["kept"] > 0
