"""Listings, data sets, tars, images in place, predictions, near-duplicates."""

import io
import json
import tarfile
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter
from skimage import data as photos

import plstore
from plstore.errors import InputError, StoreError
from plstore.exchange import ListingColumns, Source, image_listing, tar_files
from plstore.exchange.datasets import datasets_splits
from plstore.exchange.duplicates import find_duplicates
from plstore.images import ImageRecord, import_images
from plstore.loaders.imageset import open_split
from plstore.store import Store
from plstore.upkeep import verify
from tests.conftest import CLASS_NAMES, encode, make_records


def into(path: Path, source: Source, *, in_place: bool = False) -> Store:
    store = plstore.create(path)
    import_images(
        store,
        source.records(),
        dataset=source.dataset,
        class_names=source.class_names,
        in_place=in_place,
    )
    return store


def splits(store: Store) -> dict[str, int]:
    values = store.table("images").read()["split"].to_pylist()
    return {name: values.count(name) for name in sorted(set(values))}


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    rows = []
    for record in make_records():
        path = tmp_path / "pool" / record.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.data)
        split = "" if record.split in {"labeled", "unlabeled"} else record.split
        rows.append({"path": f"pool/{record.key}", "label": record.label or "", "split": split})
    listing = tmp_path / "pool.csv"
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), listing)
    return listing


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_listing_of_paths_is_imported(listed: Path, tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pq.write_table(pyarrow.csv.read_csv(listed), listed.with_suffix(".parquet"))
        listed = listed.with_suffix(".parquet")
    source = image_listing(listed)
    store = into(tmp_path / "store", source)

    assert source.class_names == list(CLASS_NAMES)
    assert splits(store) == {"labeled": 12, "test": 6, "unlabeled": 60, "validation": 6}
    assert source.splits == splits(store)


def test_images_in_place_keep_no_bytes_and_are_used_from_where_they_are(
    listed: Path, tmp_path: Path
) -> None:
    gray = np.arange(64, dtype=np.uint16).reshape(8, 8) * 900
    Image.fromarray(gray).save(listed.parent / "pool/unlabeled/0012.png")  # to be converted
    store = into(tmp_path / "store", image_listing(listed), in_place=True)
    images = open_split(store, "unlabeled")
    rows = store.table("images").read().sort_by("sample_id").to_pylist()
    row = next(r for r in rows if r["key"].endswith("0013.png"))
    data = (listed.parent / row["key"]).read_bytes()

    assert {r["image"]["bytes"] for r in rows} == {None}
    assert row["num_bytes"] == len(data)
    encoded, intact = images.read(np.arange(2))
    assert intact.all()
    assert encoded[1].tobytes() == data
    with Image.open(io.BytesIO(encoded[0].tobytes())) as first:
        assert (first.mode, np.asarray(first).max()) == ("L", 63 * 900 >> 8)
    assert verify(store) == []


def test_an_image_in_place_that_changed_is_not_used(listed: Path, tmp_path: Path) -> None:
    store = into(tmp_path / "store", image_listing(listed), in_place=True)
    path = listed.parent / "pool/unlabeled/0012.png"
    path.write_bytes(make_records()[0].data)
    with pytest.raises(StoreError, match="holds other bytes now"):
        open_split(store, "unlabeled")
    path.unlink()
    with pytest.raises(StoreError, match="cannot be read now"):
        open_split(store, "unlabeled")


def test_a_listing_that_is_wrong_is_refused(listed: Path) -> None:
    text = listed.read_text()
    listed.write_text(text.replace('"path"', '"file"'))
    with pytest.raises(InputError, match="no column 'path'; it has file, label, split"):
        image_listing(listed)
    listed.write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(InputError, match=r"names 'pool/labeled/0000\.png' 2 times"):
        image_listing(listed)
    listed.write_text(text.replace('"validation"', '"dev"'))
    with pytest.raises(InputError, match="the split 'dev'; wanted one of"):
        image_listing(listed)


def hub_folder(folder: Path) -> Path:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASS_NAMES))}
    )
    parts = {}
    for ours, theirs in (("labeled", "train"), ("test", "test")):
        records = [r for r in make_records() if r.split == ours]
        rows = {
            "image": [{"bytes": r.data, "path": None} for r in records],
            "label": [CLASS_NAMES.index(str(r.label)) for r in records],
        }
        parts[theirs] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(parts).save_to_disk(folder)
    return folder


def test_a_data_set_is_imported_from_disk(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "pets")
    source = datasets_splits(
        str(folder), {"labeled": "train", "unlabeled": "test", "test": "test"}
    )
    store = into(tmp_path / "store", source)
    rows = store.table("images").read().sort_by("sample_id").to_pylist()

    assert splits(store) == {"labeled": 12, "test": 6, "unlabeled": 6}
    assert list(source.keys()) == [row["key"] for row in rows]
    assert rows[0]["image"]["bytes"] == make_records()[0].data
    assert [row["label"] for row in rows][12:18] == [None] * 6


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_of_parquet_files_is_imported_streamed_or_not(
    tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = hub_folder(tmp_path / "pets")
    data = datasets.load_from_disk(folder)
    (tmp_path / "hub").mkdir()
    for name in ("train", "test"):
        data[name].to_parquet(tmp_path / "hub" / f"{name}.parquet")
    source = datasets_splits(
        str(tmp_path / "hub"), {"labeled": "train", "test": "test"}, streaming=streaming
    )
    store = into(tmp_path / "store", source)

    assert splits(store) == {"labeled": 12, "test": 6}
    assert store.class_names == CLASS_NAMES


def test_a_data_set_without_the_column_is_refused(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "pets")
    with pytest.raises(InputError, match="lacks img; it has image, label"):
        datasets_splits(str(folder), {"labeled": "train"}, image_column="img")
    with pytest.raises(InputError, match="cannot open split 'dev'"):
        datasets_splits(str(folder), {"labeled": "dev"})


def tar_of(path: Path, split: str, kind: str) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for index, record in enumerate(r for r in make_records() if r.split == split):
            name = str(record.label)
            files = {"png": record.data}
            if split != "unlabeled" and kind == "cls":
                files["cls"] = str(CLASS_NAMES.index(name)).encode()
            if split != "unlabeled" and kind == "json":
                files["json"] = json.dumps({"label": name}).encode()
            for ending, data in files.items():
                member = tarfile.TarInfo(f"{index:04d}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_tars_are_imported(tmp_path: Path, kind: str) -> None:
    shards = {
        split: [tar_of(tmp_path / f"{split}.tar", split, kind)]
        for split in ("labeled", "unlabeled", "test")
    }
    source = tar_files(shards, class_names=CLASS_NAMES if kind == "cls" else None)
    store = into(tmp_path / "store", source)
    rows = store.table("images").read().sort_by("sample_id").to_pylist()

    assert splits(store) == {"labeled": 12, "test": 6, "unlabeled": 60}
    assert list(source.keys()) == [row["key"] for row in rows]
    assert [row["label"] for row in rows][:12] == [0, 1, 2] * 4
    assert rows[20]["image"]["bytes"] == make_records()[20].data


def test_tars_that_are_wrong_are_refused(tmp_path: Path) -> None:
    plain = tar_of(tmp_path / "labeled.tar", "labeled", "none")
    with pytest.raises(InputError, match="0000 of split 'labeled' has no class"):
        tar_files({"labeled": [plain]})
    with pytest.raises(InputError, match=r"gone\.tar; wanted tars that are there"):
        tar_files({"labeled": [tmp_path / "gone.tar"]})
    with pytest.raises(InputError, match="'0000' of split 'unlabeled' is there 2 times"):
        tar_files({"unlabeled": [plain, plain]})


Floats = npt.NDArray[np.float32]


def test_labels_that_say_unknown_are_refused_not_guessed(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASS_NAMES))}
    )
    rows = {"image": [{"bytes": make_records()[0].data, "path": None}], "label": [-1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "hidden")
    source = datasets_splits(str(tmp_path / "hidden"), {"test": "None"})

    with pytest.raises(InputError, match="test row 0 has the label -1"):
        list(source.records())
    with pytest.raises(InputError, match="holds one split, None; found 'train"):
        datasets_splits(str(tmp_path / "hidden"), {"labeled": "train[:50%]"})


def test_a_column_that_was_named_must_be_there(listed: Path) -> None:
    with pytest.raises(InputError, match="has no column 'clas'"):
        image_listing(listed, columns=ListingColumns(label="clas"))


def test_near_duplicates_of_held_out_images_are_found(tmp_path: Path) -> None:
    cat, coffee = (Image.fromarray(p).resize((96, 96)) for p in (photos.cat(), photos.coffee()))
    rocket = Image.fromarray(photos.rocket()).resize((96, 96))

    def record(key: str, split: str, image: Image.Image, kind: str = "PNG") -> ImageRecord:
        label = None if split == "unlabeled" else "a"
        data = encode(np.asarray(image), kind)
        return ImageRecord(key=key, split=split, data=data, label=label)

    records = [
        record("cat", "test", cat),
        record("coffee", "validation", coffee),
        record("same", "unlabeled", cat),
        record("again", "unlabeled", coffee.resize((64, 64)), "JPEG"),
        record("soft", "labeled", cat.filter(ImageFilter.GaussianBlur(1))),
        record("other", "unlabeled", rocket),
    ]
    store = plstore.create(tmp_path / "store")
    import_images(store, records, dataset="d", class_names=["a", "b"])
    found = {row["sample_id"]: row for row in find_duplicates(store)}

    assert found.keys() == {2, 3, 4}
    assert (found[2]["kind"], found[2]["duplicate_of"]) == ("same_bytes", 0)
    assert (found[3]["kind"], found[3]["held_out_split"]) == ("near", "validation")
    assert (found[4]["kind"], found[4]["duplicate_of"]) == ("near", 0)
    with pytest.raises(InputError, match="wanted 0 to 8 bits"):
        find_duplicates(store, max_distance=9)
