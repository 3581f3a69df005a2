"""Listings as tables have them: floats for classes, gaps, paths that lead nowhere."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange import ListingColumns, Source, image_listing, import_source
from plstore.store import Store
from tests.exchange.test_growing import Heard, add

NUM_FILES = 24


@pytest.fixture
def home(tmp_path: Path) -> Path:
    add(tmp_path / "pool", range(NUM_FILES))
    return tmp_path


def listing(home: Path, labels: list[str], name: str = "label", **columns: list[str]) -> Path:
    path = home / "pool.csv"
    rows = [["path", name, *columns]]
    for number, label in enumerate(labels):
        more = [values[number] for values in columns.values()]
        rows.append([f"pool/{number:03d}.png", label, *more])
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    return path


def read(path: Path, columns: ListingColumns | None = None) -> Source:
    return image_listing(path, columns=columns or ListingColumns(), validation_fraction=0)


def labels_of(source: Source) -> list[str | None]:
    return [record.label for record in source.records()]


def test_floats_are_class_numbers_in_the_order_of_numbers(home: Path) -> None:
    numbers = [float(n % 12) for n in range(NUM_FILES)]
    source = read(listing(home, [str(n) for n in numbers]))
    typed = home / "typed.parquet"
    paths = [f"pool/{n:03d}.png" for n in range(NUM_FILES)]
    with_gaps = pa.array([None if n == 3 else n for n in numbers], pa.float32())
    pq.write_table(pa.table({"path": paths, "label": with_gaps}), typed)

    assert source.class_names == [str(n) for n in range(12)]
    assert labels_of(source) == [str(n % 12) for n in range(NUM_FILES)]
    assert read(typed).class_names == [str(n) for n in range(12) if n != 3]
    assert read(typed).splits == {"labeled": 22, "unlabeled": 2}


def test_what_is_written_for_missing_is_no_class_and_is_said(home: Path) -> None:
    missing = ["NaN", "None", "NA", "", " ", "null"]
    source = read(listing(home, ["cat", "dog", *missing]))

    assert source.class_names == ["cat", "dog"]
    assert source.splits == {"labeled": 2, "unlabeled": 6}
    assert source.noticed == {
        f"label {word!r}, taken as missing": 1 for word in ("NaN", "None", "NA", "null")
    }


def test_minus_one_beside_class_numbers_is_unlabeled_and_said(home: Path) -> None:
    source = read(listing(home, ["0", "1", "-1", "-1.0"]))
    names = read(listing(home, ["cat", "dog", "-1"]))

    assert source.class_names == ["0", "1"]
    assert source.splits == {"labeled": 2, "unlabeled": 2}
    assert sum(source.noticed.values()) == 2
    assert names.class_names == ["-1", "cat", "dog"]


def test_leading_zeros_and_truth_values_stay(home: Path) -> None:
    assert read(listing(home, ["007", "7", "010"])).class_names == ["007", "7", "010"]
    assert read(listing(home, ["true", "false"])).class_names == ["false", "true"]


@pytest.mark.parametrize("name", ["class", "class_name", "Category", "target"])
def test_a_column_of_classes_is_found_by_its_usual_names(home: Path, name: str) -> None:
    source = read(listing(home, ["cat", "dog"], name, width=["3", "4"]))

    assert source.class_names == ["cat", "dog"]


def test_a_column_of_classes_that_is_not_found_is_asked_for(home: Path) -> None:
    path = listing(home, ["cat", "dog"], "species")

    with pytest.raises(InputError, match=r"it has path, species.* Name the one with"):
        read(path)
    assert read(path, ListingColumns(label="species")).class_names == ["cat", "dog"]
    assert read(path, ListingColumns(label="")).splits == {"unlabeled": 2}
    with pytest.raises(InputError, match=r"has no column 'label'; it has path, class, target"):
        read(listing(home, ["cat", "dog"], "class", target=["1", "2"]))
    (home / "paths.csv").write_text("path\npool/000.png\n")
    assert read(home / "paths.csv").splits == {"unlabeled": 1}


def test_paths_that_lead_nowhere_are_counted_and_come_in_once_they_are_there(
    home: Path,
) -> None:
    path = listing(home, ["cat", "dog"] * 12)
    lost = home / "pool" / "005.png"
    data = lost.read_bytes()
    lost.unlink()
    store = plstore.create(home / "store")

    def bring() -> dict[str, int]:
        return dict(import_source(store, image_listing(path), Heard()).counts.verdicts)

    first = bring()
    lost.write_bytes(data)
    again = bring()

    assert first == {"accepted": NUM_FILES - 1, "missing": 1}
    assert again == {"accepted": 1}
    assert splits_of(store) == {"labeled": 20, "validation": 4}


def splits_of(store: Store) -> dict[str, int]:
    values = store.table("images").read()["split"].to_pylist()
    return {name: values.count(name) for name in sorted(set(values))}


def test_rows_without_a_path_and_columns_of_lists_are_refused(home: Path) -> None:
    (home / "blank.csv").write_text("path,label\npool/000.png,a\n ,b\n,c\n")
    with pytest.raises(InputError, match="names no path in row 2 and 2 in all"):
        read(home / "blank.csv")
    table = pa.table({"path": ["a", "b"], "label": [["x"], ["y"]]})
    pq.write_table(table, home / "nested.parquet")
    with pytest.raises(InputError, match="in column 'label'; wanted one class a row"):
        read(home / "nested.parquet")


def test_places_are_what_joining_paths_gives(home: Path) -> None:
    paths = ["a.png", "./b.png", "c//d.png", "/e/./f.png", "s3://bucket//g.png", "h/"]
    table = pa.table({"path": paths, "label": np.array([0, 1, 0, 1, 0, 1])})
    pq.write_table(table, home / "places.parquet")
    places = [record.place for record in read(home / "places.parquet").records()]

    assert places == [p if "://" in p else str(home.resolve() / p) for p in paths]
