"""Parquet and IDX: every file by its own names, and what is damaged is said."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange import IdxSplits, export_view, idx_files, parquet_folder
from plstore.exchange.datasets import datasets_splits
from plstore.exchange.idx import read_idx
from plstore.images import import_images
from plstore.selection import select_labeled
from plstore.store import Store
from tests.conftest import make_records

PNG = make_records()[0].data


def write(path: Path, labels: Any, names: object, *, features: object = None) -> None:  # noqa: ANN401
    label = {"_type": "ClassLabel", "names": names}
    about = {"info": {"features": {"label": label} if features is None else features}}
    images = pa.array([{"bytes": PNG, "path": f"{n}.png"} for n in range(len(labels))])
    table = pa.table({"image": images, "label": labels})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pets"
    path.mkdir()
    write(path / "labeled.parquet", [0, 1], ["cat", "dog"])
    write(path / "unlabeled.parquet", [0, 0], ["cat", "dog"])
    return path


def test_classes_of_files_are_matched_by_name(folder: Path, tmp_path: Path) -> None:
    write(folder / "test.parquet", [0, 1], ["dog", "cat", "unused"])
    write(folder / "truth.parquet", [1, 0], ["dog", "cat"])
    source = parquet_folder(folder, dataset="d")
    store = plstore.create(tmp_path / "store")
    store.ensure_classes(["dog", "cat"])
    import_images(store, source.records(), dataset="d", class_names=source.class_names)
    rows = store.table("images").read().sort_by("sample_id").to_pylist()
    truth = store.table("truth").read().sort_by("sample_id").to_pylist()

    def name(row: dict[str, Any]) -> str | None:
        return None if row["label"] is None else store.class_names[row["label"]]

    assert source.class_names == ["cat", "dog"]
    assert [name(row) for row in rows] == ["cat", "dog", None, None, "dog", "cat"]
    assert [name(row) for row in truth] == ["cat", "dog"]


def test_a_class_that_the_labeled_images_lack_is_named(folder: Path) -> None:
    write(folder / "test.parquet", [0, 1], ["owl", "cat"])
    with pytest.raises(InputError, match="the test images have 'owl', which the labeled ones"):
        parquet_folder(folder, dataset="d")
    (folder / "test.parquet").unlink()
    write(folder / "truth.parquet", [0, 1], ["owl", "cat"])
    with pytest.raises(InputError, match="the truth images have 'owl'"):
        parquet_folder(folder, dataset="d")


@pytest.mark.parametrize(
    ("labels", "names", "features", "words"),
    [
        ([0, 1], ["cat", "cat"], None, "names 'cat' twice, or not at all"),
        ([0, 1], ["cat", ""], None, "names '' twice, or not at all"),
        ([0, 1], "cats", None, "has 'cats' for names of classes; wanted a list"),
        ([0, 1], None, ["label"], "names no classes; wanted a 'label' column"),
        (["cat", "dog"], ["cat", "dog"], None, "has labels of type string; wanted numbers"),
    ],
)
def test_labels_that_have_no_sound_names_are_refused(
    folder: Path,
    labels: list[Any],
    names: object,
    features: object,
    words: str,
) -> None:
    write(folder / "labeled.parquet", labels, names, features=features)

    with pytest.raises(InputError, match=rf"labeled\.parquet {words}"):
        list(parquet_folder(folder, dataset="d").records())


def test_files_that_are_no_parquet_or_have_no_images_are_named(folder: Path) -> None:
    whole = (folder / "unlabeled.parquet").read_bytes()

    def refused(words: str) -> None:
        with pytest.raises(InputError, match=words):
            list(parquet_folder(folder, dataset="d").records())

    (folder / "unlabeled.parquet").write_bytes(whole[:-50])
    refused(r"unlabeled\.parquet cannot be read as Parquet")
    (folder / "unlabeled.parquet").write_bytes(b"")
    refused(r"unlabeled\.parquet cannot be read as Parquet")
    (folder / "unlabeled.parquet").write_bytes(whole[:4] + b"\xff" * 60 + whole[64:])
    refused(r"unlabeled\.parquet cannot be read as Parquet")
    pq.write_table(pa.table({"image": ["a.png", "b.png"]}), folder / "unlabeled.parquet")
    refused(r"has images of type string; wanted a struct of bytes and path")


def test_an_export_comes_back_by_name(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    view = select_labeled(store, "all")
    export_view(view, tmp_path / "out", "parquet")
    source = datasets_splits(str(tmp_path / "out"), {"labeled": "train"})
    rows = [row for batch in view.batches() for row in batch.to_pylist()]

    assert tuple(source.class_names) == store.class_names
    assert [(record.data, record.label) for record in source.records()] == [
        (row["image"], store.class_names[row["class_id"]]) for row in rows
    ]


IDX = b"\x00\x00\x08"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(IDX + b"\x01\x00\x00\x00\x02ab", mtime=0)[:-9], "cannot be unpacked"),
        (b"\x1f\x8b\x08\x00" + b"x" * 40, "cannot be unpacked"),
        (IDX + b"\x03\x00\x00", "has no whole header of an IDX file"),
        (IDX + b"\x00", "has no whole header of an IDX file"),
        (IDX + b"\xff" + b"\x00" * 2000, "has no whole header of an IDX file"),
        (IDX + b"\x01\x00\x00\x00\x05ab", r"holds 2 values; its header promises \(5,\)"),
        (IDX + b"\x01\xff\xff\xff\xfeab", r"its header promises \(-2,\)"),
        (b"", "is no IDX file of unsigned bytes"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a").write_bytes(data)

    with pytest.raises(InputError, match=words):
        read_idx(tmp_path / "a")


def test_idx_files_of_other_shapes_are_refused_and_blanks_are_no_part_of_a_name(
    tmp_path: Path,
) -> None:
    def put(name: str, *shape: int) -> None:
        stream = io.BytesIO()
        stream.write(IDX + bytes([len(shape)]))
        stream.write(np.array(shape, ">i4").tobytes())
        stream.write((np.arange(np.prod(shape)) % 2).astype(np.uint8).tobytes())
        (tmp_path / name).write_bytes(stream.getvalue())

    for prefix in ("train", "t10k"):
        put(f"{prefix}-images-idx3-ubyte", 4, 5, 5)
        put(f"{prefix}-labels-idx1-ubyte", 4)
    splits = IdxSplits(num_labeled=2, num_validation=1)

    def names() -> list[str]:
        source = idx_files(tmp_path, class_names=["a", " b"], splits=splits, dataset="d")
        return list(source.class_names)

    assert names() == ["a", "b"]
    put("train-images-idx3-ubyte", 4, 25)
    with pytest.raises(InputError, match=r"train images of shape \(4, 25\) and labels"):
        names()
    put("train-images-idx3-ubyte", 0, 5, 5)
    put("train-labels-idx1-ubyte", 0)
    with pytest.raises(InputError, match="0 training images do not suffice"):
        names()
