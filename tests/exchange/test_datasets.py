"""Data sets of the `datasets` library: every split by its own names, unknown labels apart."""

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange import export_view
from plstore.exchange.datasets import datasets_splits
from plstore.images import ImageRecord, import_images
from plstore.selection import select_labeled
from plstore.store import Store
from tests.conftest import encode, make_records

PNG = make_records()[0].data
Parts = Mapping[str, tuple[Sequence[Any], Any]]  # labels and their feature, by split


def save(folder: Path, parts: Parts) -> str:
    made = {}
    for name, (labels, feature) in parts.items():
        features = datasets.Features({"image": datasets.Image(), "label": feature})
        images = [{"bytes": PNG, "path": None} for _ in labels]
        rows = {"image": images, "label": list(labels)}
        made[name] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(made).save_to_disk(folder)
    return str(folder)


def names(*classes: str) -> Any:  # noqa: ANN401  untyped
    return datasets.ClassLabel(names=list(classes))


def kind(name: str) -> Any:  # noqa: ANN401
    return datasets.Value(name)


def labels_of(records: Sequence[ImageRecord]) -> dict[str, str | None]:
    return {record.key: record.label for record in records}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (([0, 1, 1], names("dog", "cat")), ([0, 1, 1], names("cat", "dog"))),
        ((["dog", "cat", "cat"], kind("string")), ([0, 1, 1], names("cat", "dog"))),
        (([0, 1, 1], names("dog", "cat")), (["cat", "dog", "dog"], kind("large_string"))),
        (([0, 1, 1], names("dog", "cat")), ([0, 1, 1], names("cat", "dog", "unused"))),
    ],
)
def test_classes_of_splits_are_matched_by_name(tmp_path: Path, train: Any, test: Any) -> None:  # noqa: ANN401
    folder = save(tmp_path / "pets", {"train": train, "test": test})
    source = datasets_splits(folder, {"labeled": "train", "test": "test"})
    store = plstore.create(tmp_path / "store")
    import_images(store, source.records(), dataset="pets", class_names=source.class_names)
    rows = store.table("images").read().sort_by("sample_id").to_pylist()

    assert [store.class_names[row["label"]] for row in rows] == [
        *("dog", "cat", "cat"),
        *("cat", "dog", "dog"),
    ]


def test_a_labeled_feature_gives_the_order_of_classes(tmp_path: Path) -> None:
    parts = {"train": ([1], names("b", "a")), "test": ([0], names("a", "b"))}
    folder = save(tmp_path / "d", parts)

    assert datasets_splits(folder, {"test": "test", "labeled": "train"}).class_names == [
        "b",
        "a",
    ]
    assert datasets_splits(folder, {"test": "test"}).class_names == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "feature", "found"),
    [
        ([10, 2, 0], kind("int64"), ["0", "2", "10"]),
        (["10", "2", "b"], kind("string"), ["2", "10", "b"]),
        ([10.0, 2.0, 0.0], kind("float64"), ["0", "2", "10"]),
        ([True, False, True], kind("bool"), ["false", "true"]),
        ([" cafe\u0301", "caf\u00e9", "x"], kind("string"), ["caf\u00e9", "x"]),
    ],
)
def test_labels_without_names_have_the_order_of_every_import(
    tmp_path: Path,
    values: Sequence[Any],
    feature: Any,  # noqa: ANN401
    found: list[str],
) -> None:
    folder = save(tmp_path / "d", {"train": (values, feature)})
    source = datasets_splits(folder, {"labeled": "train"})

    assert source.class_names == found
    assert {record.label for record in source.records()} == set(found)


def test_a_test_class_that_the_labeled_images_lack_is_named(tmp_path: Path) -> None:
    parts = {
        "train": ([0, 1], names("cat", "dog")),
        "test": ([0, 1], names("owl", "cat")),
        "bare": ([0, 1], kind("int64")),
    }
    folder = save(tmp_path / "d", parts)

    with pytest.raises(InputError, match="the test images have 'owl', which the labeled ones"):
        datasets_splits(folder, {"labeled": "train", "test": "test"})
    with pytest.raises(InputError, match="the test images have '0', '1', which the labeled"):
        datasets_splits(folder, {"labeled": "train", "test": "bare"})


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("values", "feature"),
    [
        ([1, -1, 0, -1, -1], names("cat", "dog")),
        ([1, None, 0, None, -1], names("cat", "dog")),
        ([1, -1, 0, None, -1], kind("int64")),
        (["dog", None, "cat", "", "nan"], kind("string")),
        ([1.0, -1.0, 0.0, float("nan"), None], kind("float32")),
    ],
)
def test_one_split_for_both_is_divided_by_its_labels(
    tmp_path: Path,
    values: Sequence[Any],
    feature: Any,  # noqa: ANN401
    streaming: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = save(tmp_path / "d", {"train": (values, feature)})
    if streaming:
        data = datasets.load_from_disk(folder)["train"]
        data.to_parquet(tmp_path / "hub" / "train.parquet")
        folder = str(tmp_path / "hub")
    source = datasets_splits(
        folder, {"labeled": "train", "unlabeled": "train"}, streaming=streaming
    )
    records = list(source.records())
    found = labels_of(records)

    assert source.splits == {"labeled": 2, "unlabeled": 3}
    assert source.num_images == len(records) == len(found) == 5
    assert source.noticed == {"without a known label, taken as unlabeled": 3}
    assert list(source.keys()) == list(found)
    assert list(found) == [
        *("labeled/000000000", "labeled/000000002"),
        *(f"unlabeled/{n:09d}" for n in (1, 3, 4)),
    ]
    assert [bool(label) for label in found.values()] == [True, True, False, False, False]
    assert len(set(source.class_names)) == 2


def test_one_split_for_both_without_an_unknown_label_leaves_nothing_to_label(
    tmp_path: Path,
) -> None:
    folder = save(tmp_path / "d", {"train": ([0, 1], names("cat", "dog"))})

    with pytest.raises(InputError, match="each of its 2 images has a label: none is left"):
        datasets_splits(folder, {"labeled": "train", "unlabeled": "train"})


@pytest.mark.parametrize(
    ("values", "feature", "shown"),
    [
        ([0, -1], names("cat", "dog"), "-1"),
        ([0, None], names("cat", "dog"), "None"),
        ([0, 1, -1], kind("int64"), "-1"),
        (["cat", None], kind("string"), "None"),
    ],
)
def test_an_unknown_label_elsewhere_is_an_error_with_its_row(
    tmp_path: Path,
    values: Sequence[Any],
    feature: Any,  # noqa: ANN401
    shown: str,
) -> None:
    folder = save(tmp_path / "d", {"train": (values, feature)})
    source = datasets_splits(folder, {"labeled": "train"})
    row = len(values) - 1

    with pytest.raises(InputError, match=f"labeled row {row} has the label {shown}, which is"):
        list(source.records())


def test_one_split_is_not_trained_on_and_tested_with(tmp_path: Path) -> None:
    folder = save(tmp_path / "d", {"train": ([0, 1], names("cat", "dog"))})

    with pytest.raises(InputError, match="'train' is named for labeled and test"):
        datasets_splits(folder, {"labeled": "train", "test": "train"})


def test_a_column_of_several_classes_an_image_is_refused(tmp_path: Path) -> None:
    feature = datasets.Sequence(kind("int64"))
    folder = save(tmp_path / "d", {"train": ([[0, 1], [1]], feature)})

    with pytest.raises(InputError, match="wanted one class an image: a ClassLabel"):
        datasets_splits(folder, {"labeled": "train"})


def test_a_column_that_is_no_image_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "d", {"train": ([0, 1], names("cat", "dog"))})

    with pytest.raises(InputError, match="the column 'label' as images"):
        datasets_splits(folder, {"labeled": "train"}, image_column="label")


@pytest.mark.parametrize("streaming", [False, True])
def test_images_in_an_archive_are_read(
    tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    rows = {f"{n}.png": encode(np.full((9, 9), n, np.uint8)) for n in range(4)}
    with zipfile.ZipFile(tmp_path / "photos" / "train.zip", "w") as archive:
        table = io.StringIO()
        table.write("file_name,label\n")
        for number, (name, data) in enumerate(rows.items()):
            archive.writestr(name, data)
            table.write(f"{name},{'cat' if number % 2 else 'dog'}\n")
        archive.writestr("metadata.csv", table.getvalue())
    source = datasets_splits(
        str(tmp_path / "photos"), {"labeled": "train"}, streaming=streaming
    )

    assert [record.data for record in source.records()] == list(rows.values())
    assert [record.label for record in source.records()] == ["dog", "cat"] * 2


def test_an_export_comes_back_by_name(store: Store, tmp_path: Path) -> None:
    view = select_labeled(store, "all")
    export_view(view, tmp_path / "out", "datasets")
    source = datasets_splits(str(tmp_path / "out"), {"labeled": "train"})
    rows = [row for batch in view.batches() for row in batch.to_pylist()]

    assert tuple(source.class_names) == store.class_names
    assert [(record.data, record.label) for record in source.records()] == [
        (row["image"], store.class_names[row["class_id"]]) for row in rows
    ]


def test_without_a_network_a_data_set_of_the_hub_says_what_to_do(
    tmp_path: Path, unused_port: Callable[[], int]
) -> None:
    # A program of its own: the library reads its address once.
    words = ["import", "datasets", "someone/pets", "--labeled", "train", "--unlabeled", "test"]
    done = subprocess.run(
        [sys.executable, "-m", "plstore.cli.main", *words, "--store", tmp_path / "store"],
        env={**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{unused_port()}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "hf download someone/pets --repo-type dataset" in done.stderr
    assert "Retrying" not in done.stderr
