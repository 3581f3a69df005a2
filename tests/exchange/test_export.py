"""What is exported is opened with the libraries that it is for."""

import gc
import warnings
from collections.abc import Iterator
from csv import DictReader
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import webdataset

import plstore
from plstore.errors import InputError
from plstore.exchange import export_labels, export_view, image_folders
from plstore.exchange.exports import Kind
from plstore.images import import_images
from plstore.labels import LabelSet
from plstore.selection import select_labeled
from plstore.store import Store
from plstore.views import View
from tests.conftest import CLASS_NAMES, give_labels, make_records


@pytest.fixture
def leaky() -> Iterator[None]:
    """Let a library leave files open, and close them before the next test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture
def view(store: Store) -> View:
    give_labels(store)
    balance = plstore.Balance(min_confidence=0.5, images_per_class=9, seed=0)
    return plstore.select(
        store,
        plstore.Selection(view="v", teachers=["t0@1"], balance=balance),
    )


def rows_of(view: View) -> list[dict[str, object]]:
    return [row for batch in view.batches() for row in batch.to_pylist()]


def check_rows(rows: datasets.Dataset, view: View) -> None:
    expected = rows_of(view)
    names = rows.features["label"].names

    assert rows.features["image"] == datasets.Image()
    assert tuple(names) == CLASS_NAMES
    assert rows["sample_id"][:] == [row["sample_id"] for row in expected]
    assert rows["copies"][:] == [row["copies"] for row in expected]
    assert rows[0]["image"].size == (expected[0]["width"], expected[0]["height"])
    assert np.allclose(np.sum(rows["probabilities"][:], axis=1), 1, atol=1e-6)
    assert np.argmax(rows["probabilities"][:], axis=1).tolist() == rows["label"][:]


def test_save_to_disk(view: View, tmp_path: Path) -> None:
    done = export_view(view, tmp_path / "out", "datasets")
    rows = datasets.load_from_disk(tmp_path / "out")

    check_rows(rows, view)
    assert done.num_images == len(rows)
    assert "| pseudo images |" in (tmp_path / "out/README.md").read_text()


def test_parquet_that_load_dataset_opens(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    export_view(view, tmp_path / "out", "parquet")
    cache = str(tmp_path / "cache")

    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=cache)

    check_rows(rows, view)


@pytest.mark.usefixtures("leaky")
def test_tars_that_webdataset_and_dali_open(view: View, tmp_path: Path) -> None:
    done = export_view(view, tmp_path / "out", "webdataset")
    (shard,) = (tmp_path / "out").glob("*.tar")
    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    expected = rows_of(view)
    from nvidia.dali import fn, pipeline_def

    @pipeline_def(  # type: ignore[untyped-decorator]  # DALI's are
        batch_size=4, num_threads=1, device_id=None
    )
    def read() -> object:
        return fn.readers.webdataset(paths=[str(shard)], ext=["cls"])

    pipeline = read()
    pipeline.build()
    (classes,) = pipeline.run()

    assert len(samples) == done.num_images == len(expected)
    assert [int(s["cls"]) for s in samples] == [row["class_id"] for row in expected]
    assert samples[0]["png"] == expected[0]["image"]
    assert bytes(classes.at(0)).decode() == str(expected[0]["class_id"])
    assert shard.read_bytes()[257:265] == b"ustar  \x00"  # GNU, not PAX


@pytest.mark.usefixtures("leaky")
def test_a_folder_a_class_with_a_csv(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    export_view(view, tmp_path / "out", "folder")
    rows = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path)
    )

    assert len(rows) == view.record.num_images
    assert {p.name for p in (tmp_path / "out").iterdir() if p.is_dir()} == {*CLASS_NAMES}
    assert set(rows["sample_id"]) == {row["sample_id"] for row in rows_of(view)}


def test_a_label_set_is_exported_with_its_images(store: Store, tmp_path: Path) -> None:
    probabilities = give_labels(store)
    label_set = LabelSet(iteration=1, teacher_id="t0", split="unlabeled")
    export_labels(store, label_set, tmp_path / "out", "datasets")
    rows = datasets.load_from_disk(tmp_path / "out").with_format("numpy")

    assert rows["sample_id"][:].tolist() == list(range(12, 72))
    assert np.abs(np.stack(rows["probabilities"][:]) - probabilities).max() < 2e-3
    plain = rows.with_format(None).cast_column("image", datasets.Image(decode=False))
    assert plain[0]["image"]["bytes"] == make_records()[12].data


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("webdataset", "dog\nowl", "cannot be a line of classes.txt"),
        ("folder", "x" * 256, "cannot be a folder's name: of 256 bytes, wanted 1 to 255"),
        ("folder", "/" * 86, "cannot be a folder's name: of 258 bytes, wanted 1 to 255"),
    ],
)
def test_a_class_that_cannot_be_written_by_its_name_is_refused(
    tmp_path: Path, kind: Kind, name: str, words: str
) -> None:
    other = plstore.create(tmp_path / "other")
    names = ["cat", name, "owl"]
    records = [
        replace(r, label=None if r.label is None else names[CLASS_NAMES.index(r.label)])
        for r in make_records(6, 0)
    ]
    import_images(
        other, (replace(r, truth=None) for r in records), dataset="d", class_names=names
    )
    view = select_labeled(other, "all")

    with pytest.raises(InputError, match=words):
        export_view(view, tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


def test_a_class_with_a_slash_has_a_folder_of_an_encoded_name(tmp_path: Path) -> None:
    other = plstore.create(tmp_path / "other")
    names = {"cat": "T-shirt/top", "dog": "README.md", "owl": "owl"}
    labeled = [replace(r, label=names[str(r.label)], truth=None) for r in make_records(6, 0)]
    import_images(other, labeled, dataset="d", class_names=list(names.values()))
    export_view(select_labeled(other, "all"), tmp_path / "out", "folder")
    with (tmp_path / "out" / "metadata.csv").open(newline="") as file:
        classes = {row["file_name"].partition("/")[0]: row["class"] for row in DictReader(file)}

    assert classes == {"T-shirt%2Ftop": "T-shirt/top", "README%2Emd": "README.md", "owl": "owl"}


@pytest.mark.usefixtures("leaky")
def test_a_folder_comes_back_by_name(view: View, tmp_path: Path) -> None:
    export_view(view, tmp_path / "out", "folder")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "1.png").write_bytes(make_records()[12].data)
    source = image_folders(labeled=tmp_path / "out", unlabeled=tmp_path / "pool")
    found = {r.data: r.label for r in source.records() if r.split != "unlabeled"}

    assert tuple(source.class_names) == CLASS_NAMES
    names = {row["image"]: CLASS_NAMES[int(str(row["class_id"]))] for row in rows_of(view)}
    assert found == names


def test_a_folder_that_holds_something_is_left_alone(view: View, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")

    with pytest.raises(InputError, match="is not empty; name a new folder"):
        export_view(view, tmp_path, "parquet")
