"""Test sets: read from any layout, in the classes of a store."""

from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
import pytest

from plstore.errors import InputError
from plstore.exchange.test_sets import mapped_set, open_test_set, read_class_map
from plstore.schema import EVALUATION
from tests.conftest import CLASS_NAMES, encode

COUNTS = {"cat": 2, "owl": 3}


def pixels(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)


def as_folders(home: Path) -> Path:
    for name, count in COUNTS.items():
        (home / name).mkdir(parents=True)
        for number in range(count):
            (home / name / f"{number}.png").write_bytes(encode(pixels(number + len(name))))
    return home


def as_datasets(home: Path) -> Path:
    folder = as_folders(home / "folders")
    datasets.load_dataset(str(folder), split="train").save_to_disk(str(home / "saved"))
    return home / "saved"


def as_parquet(home: Path) -> Path:
    folder = as_folders(home / "folders")
    datasets.load_dataset(str(folder), split="train").to_parquet(str(home / "found.parquet"))
    return home / "found.parquet"


def as_listing(home: Path) -> Path:
    folder = as_folders(home / "folders")
    files = sorted(folder.rglob("*.png"))
    rows = [f"{file.relative_to(home)},{file.parent.name}" for file in files]
    (home / "found.csv").write_text("\n".join(["path,label", *rows, "folders/cat/9.png,"]))
    return home / "found.csv"


@pytest.mark.parametrize("layout", [as_folders, as_datasets, as_parquet, as_listing])
def test_any_layout_gives_the_same_images_under_names_of_their_own(
    layout: Callable[[Path], Path], tmp_path: Path
) -> None:
    split = "train" if layout is as_datasets else "test"
    source = open_test_set(layout(tmp_path / "home"), name="camera", split=split)

    mapped = mapped_set(source, CLASS_NAMES)
    records = list(mapped.source.records())

    found = sorted((str(record.label), record.data) for record in records)
    wanted = sorted(
        (name, encode(pixels(number + len(name))))
        for name, count in COUNTS.items()
        for number in range(count)
    )
    assert found == wanted
    assert {record.split for record in records} == {EVALUATION}
    assert len({record.key for record in records}) == len(records)
    assert all(record.key.startswith("evaluation/camera/") for record in records)
    assert list(mapped.source.class_names) == list(CLASS_NAMES)
    assert mapped.source.noticed.get("without a class, left out", 0) == (layout is as_listing)


def test_a_map_renames_leaves_out_and_accepts_several(tmp_path: Path) -> None:
    table = tmp_path / "map.csv"
    table.write_text("class,label\ncat,owl\ncat,dog\nowl,\n")
    source = open_test_set(as_folders(tmp_path / "set"), name="camera")

    mapped = mapped_set(source, CLASS_NAMES, read_class_map(table))
    labels = [record.label for record in mapped.source.records()]

    assert labels == ["owl", "owl"]
    assert mapped.class_map["cat"] == ["owl", "dog"]
    assert sorted(mapped.classes_of.values()) == ["cat", "cat"]
    assert mapped.source.noticed == {"of a class that the map leads nowhere, left out": 3}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            None,
            "the test set has class: owl, which the store lacks; it has 2 classes: cat, dog",
        ),
        (
            "class,label\ncat,cat\n",
            "the test set has class: owl, which the map of classes does",
        ),
        ("class,label\ncat,lynx\nowl,\n", "leads to class: lynx, which the store lacks"),
        ("class,label\ncat,\nowl,\n", "leaves no class of the test set; nothing to import"),
        (
            "class,name\ncat,cat\n",
            "has no column label; wanted class, as the test set calls it",
        ),
        ("class,label\n,cat\n", "row 1 names no class of the test set"),
    ],
)
def test_classes_that_are_not_the_stores_are_named(
    rows: str | None, words: str, tmp_path: Path
) -> None:
    source = open_test_set(as_folders(tmp_path / "set"), name="camera")
    table = tmp_path / "map.csv"
    table.write_text(rows or "")

    with pytest.raises(InputError, match=words):
        mapped_set(source, CLASS_NAMES[:2], None if rows is None else read_class_map(table))
