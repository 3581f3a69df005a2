import gzip
import json
import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange import (
    IdxSplits,
    idx_files,
    image_folders,
    parquet_folder,
    write_parquet_folder,
)
from plstore.images import import_images
from tests.conftest import encode
from trainers.data import FASHION_MNIST_CLASSES, sample_folder

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 9, 9), dtype=np.uint8)


def fill(folder: Path, names: list[str], each: int) -> Path:
    for name in names:
        (folder / name / "deeper").mkdir(parents=True)
        for index in range(each):
            path = folder / name / ("deeper" if index % 2 else "") / f"{index}.png"
            path.write_bytes(encode(PIXELS[index]))
    return folder


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    return fill(tmp_path / "labeled", ["cat", "dog"], 20)


@pytest.fixture
def unlabeled(tmp_path: Path) -> Path:
    folder = tmp_path / "all"
    folder.mkdir()
    for index in range(7):
        (folder / f"{index}.png").write_bytes(encode(PIXELS[index]))
    (folder / "notes").write_text("not an image, and counted as such")
    (folder / ".DS_Store").write_text("hidden")
    return folder


def test_folders_become_splits_and_classes(
    labeled: Path, unlabeled: Path, tmp_path: Path
) -> None:
    source = image_folders(labeled=labeled, unlabeled=unlabeled, validation_fraction=0.2)
    records = list(source.records())
    store = plstore.create(tmp_path / "store")
    counts = import_images(store, records, dataset="d", class_names=source.class_names)

    assert source.class_names == ["cat", "dog"]
    assert source.splits == {"labeled": 32, "validation": 8, "unlabeled": 8}
    assert counts.verdicts == {"accepted": 47, "not_an_image": 1}
    assert {r.label for r in records if r.split == "unlabeled"} == {None}


def test_the_validation_split_is_drawn_by_the_seed_class_by_class(
    labeled: Path, unlabeled: Path
) -> None:
    def drawn(seed: int) -> list[str]:
        source = image_folders(
            labeled=labeled, unlabeled=unlabeled, validation_fraction=0.25, seed=seed
        )
        return [r.key for r in source.records() if r.split == "validation"]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert sum(key.startswith("labeled/cat/") for key in drawn(0)) == 5


def test_one_class_is_no_classification(tmp_path: Path, unlabeled: Path) -> None:
    with pytest.raises(InputError, match="holds 1 class folders; wanted two or more"):
        image_folders(labeled=fill(tmp_path / "l", ["cat"], 1), unlabeled=unlabeled)


def test_a_stray_file_and_an_empty_class_are_refused_by_name(
    labeled: Path, unlabeled: Path
) -> None:
    def refused(words: str) -> None:
        with pytest.raises(InputError, match=words):
            image_folders(labeled=labeled, unlabeled=unlabeled)

    (labeled / "stray.png").write_bytes(b"x")
    refused("1 files outside its class folders, such as stray.png")
    (labeled / "stray.png").unlink()
    (labeled / "cow").mkdir()
    refused("1 of 3 class folders are without an image: .*/cow is empty. Put images of that")
    (labeled / "cow" / "readme.txt").write_text("cows will come")
    (labeled / "cow" / "0.png").touch()
    (labeled / "owl").mkdir()
    refused(
        r"2 of 4 class folders .*/cow holds no image \(\.txt 1, empty files 1\), and 1 more\. "
        "Put images of these classes in, or remove the folders; nothing was done"
    )


def test_links_to_folders_are_followed_once(
    labeled: Path, unlabeled: Path, tmp_path: Path
) -> None:
    more = fill(tmp_path / "more", ["x"], 3)
    (unlabeled / "more").symlink_to(more)
    (more / "back").symlink_to(unlabeled)

    assert image_folders(labeled=labeled, unlabeled=unlabeled).splits["unlabeled"] == 8 + 3


def test_touched_files_are_fresh_and_the_same(labeled: Path, unlabeled: Path) -> None:
    before = image_folders(labeled=labeled, unlabeled=unlabeled)
    os.utime(unlabeled / "0.png", (1, 1))
    after = image_folders(labeled=labeled, unlabeled=unlabeled)

    assert before.identity == after.identity
    assert before.freshness != after.freshness


def test_a_test_folder_of_other_classes_is_refused(
    labeled: Path, unlabeled: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="has classes cow, pig that the labeled images lack"):
        image_folders(
            labeled=labeled, unlabeled=unlabeled, test=fill(tmp_path / "t", ["cow", "pig"], 1)
        )


def test_a_missing_folder_is_named(labeled: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is no folder"):
        image_folders(labeled=labeled, unlabeled=tmp_path / "nowhere")


def write_idx(path: Path, values: npt.NDArray[np.uint8]) -> None:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    folder = tmp_path / "idx"
    folder.mkdir()
    labels = (np.arange(60) % 2).astype(np.uint8)
    write_idx(folder / "train-images-idx3-ubyte.gz", PIXELS)
    write_idx(folder / "train-labels-idx1-ubyte.gz", labels)
    write_idx(folder / "t10k-images-idx3-ubyte.gz", PIXELS[:10])
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", labels[:10])
    return folder


def test_idx_files_are_dealt_out_evenly_and_without_overlap(idx: Path) -> None:
    splits = IdxSplits(num_labeled=8, num_validation=10)
    source = idx_files(idx, class_names=["even", "odd"], splits=splits, dataset="d")
    records = list(source.records())
    labeled = [r.label for r in records if r.split == "labeled"]

    assert source.splits == {"labeled": 8, "unlabeled": 42, "validation": 10, "test": 10}
    assert labeled.count("even") == labeled.count("odd") == 4
    assert len({r.key for r in records}) == len(records) == source.num_images
    assert all((r.truth is not None) == (r.split == "unlabeled") for r in records)


def test_other_pixels_or_names_are_another_source(idx: Path) -> None:
    splits = IdxSplits(num_labeled=8, num_validation=10)

    def identity(*names: str) -> str:
        return idx_files(idx, class_names=names, splits=splits, dataset="d").identity

    first = identity("even", "odd")
    assert identity("even", "odd") == first
    assert identity("odd", "even") != first
    write_idx(idx / "train-images-idx3-ubyte.gz", 255 - PIXELS)
    assert identity("even", "odd") != first


def test_idx_files_that_do_not_suffice_are_refused(idx: Path) -> None:
    splits = IdxSplits(num_labeled=8, num_validation=10, num_unlabeled=100)
    with pytest.raises(InputError, match="60 training images do not suffice"):
        idx_files(idx, class_names=["even", "odd"], splits=splits, dataset="d")
    (idx / "t10k-labels-idx1-ubyte.gz").write_bytes(b"what")
    with pytest.raises(InputError, match="is no IDX file of unsigned bytes"):
        idx_files(idx, class_names=["even", "odd"], splits=splits, dataset="d")


def test_parquet_goes_both_ways_and_datasets_opens_it(idx: Path, tmp_path: Path) -> None:
    import datasets

    splits = IdxSplits(num_labeled=8, num_validation=10, num_test=4)
    source = idx_files(idx, class_names=["even", "odd"], splits=splits, dataset="d")
    write_parquet_folder(tmp_path / "out", source)
    again = parquet_folder(tmp_path / "out", dataset="d")
    key = {"labeled": 0, "unlabeled": 1, "validation": 2, "test": 3}

    found = [(r.split, r.data, r.label, r.truth) for r in again.records()]
    given = [(r.split, r.data, r.label, r.truth) for r in source.records()]
    assert found == sorted(given, key=lambda row: key[row[0]])
    opened = datasets.Dataset.from_parquet(
        str(tmp_path / "out" / "labeled.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert opened.features["label"].names == ["even", "odd"]
    assert opened[0]["image"].size == (9, 9)


def test_the_bundled_sample_is_what_the_readme_says() -> None:
    source = parquet_folder(sample_folder(), dataset="fashion_mnist")
    size = sum(path.stat().st_size for path in sample_folder().glob("*"))

    assert source.splits == {
        "labeled": 300,
        "unlabeled": 12_000,
        "validation": 1000,
        "test": 5000,
    }
    assert tuple(source.class_names) == FASHION_MNIST_CLASSES
    assert size <= 10e6
    labels = [r.label for r in source.records() if r.split == "labeled"]
    assert {labels.count(name) for name in FASHION_MNIST_CLASSES} == {30}


def write_parquet(path: Path, labels: list[int], names: list[str]) -> None:
    features = {"label": {"_type": "ClassLabel", "names": names}}
    table = pa.table(
        {
            "image": pa.array([{"bytes": b"x", "path": "same.jpg"} for _ in labels]),
            "label": pa.array(labels, pa.int64()),
        }
    )
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_labels_of_a_parquet_file_are_read_by_its_own_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "labeled.parquet", [0, 1], ["cat", "dog"])
    write_parquet(tmp_path / "unlabeled.parquet", [0, 1], ["cat", "dog"])
    write_parquet(tmp_path / "test.parquet", [0, 1], ["dog", "cat"])
    records = list(parquet_folder(tmp_path, dataset="d").records())

    assert [r.label for r in records] == ["cat", "dog", None, None, "dog", "cat"]
    assert len({r.key for r in records}) == 6


def test_an_unknown_label_in_parquet_is_refused_with_its_row(tmp_path: Path) -> None:
    write_parquet(tmp_path / "labeled.parquet", [0, -1], ["cat", "dog"])
    write_parquet(tmp_path / "unlabeled.parquet", [0], ["cat", "dog"])

    with pytest.raises(InputError, match=r"labeled\.parquet row 1 has the label -1"):
        list(parquet_folder(tmp_path, dataset="d").records())


def test_parquet_without_class_names_is_refused(tmp_path: Path) -> None:
    for split in ("labeled", "unlabeled"):
        pq.write_table(pa.table({"image": [{"bytes": b""}]}), tmp_path / f"{split}.parquet")

    with pytest.raises(InputError, match=r"labeled\.parquet names no classes"):
        parquet_folder(tmp_path, dataset="d")
