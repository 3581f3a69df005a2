"""Images that people name in tables, and what they say is on them."""

from pathlib import Path

import pyarrow as pa
import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange import Corrections, images_in, read_corrections, sample_ids
from plstore.images import ImageRecord, import_images
from plstore.store import Store
from plstore.upkeep import erase
from tests.conftest import CLASS_NAMES, make_records
from tests.exchange.predicted import pool


@pytest.fixture
def photos(tmp_path: Path) -> Store:
    names = ["unlabeled/a/1.png", "unlabeled/b/1.png", "unlabeled/b/2.png", "unlabeled/3.png"]
    return pool(tmp_path / "store", *names)


def written(folder: Path, text: str) -> Path:
    path = folder / "reviewed.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("column", ["key", "path", "file", "filename", "image"])
def test_images_are_named_by_keys_or_ends_of_paths(photos: Store, column: str) -> None:
    names = ["unlabeled/3.png", "/home/ann/b/2.png", "a/1.png", "C:\\b\\1.png"]
    table = pa.table({"why": ["blurred"] * 4, column: names})

    assert images_in(photos, table, "x.csv") == [3, 2, 0, 1]
    assert sample_ids(photos, names) == [3, 2, 0, 1]


def test_a_sample_id_beside_a_name_is_what_counts(photos: Store) -> None:
    table = pa.table({"key": ["a/1.png", "nowhere.png"], "sample_id": ["2", "3"]})

    assert images_in(photos, table, "x.csv") == [2, 3]


def test_names_of_no_image_or_of_two_are_listed_with_their_rows(photos: Store) -> None:
    names = ["3.png", "1.png", "4.png", "b/2.png", "5.png", "6.png", "7.png", None]
    with pytest.raises(InputError) as caught:
        images_in(photos, pa.table({"file": names}), "x.csv")
    told = str(caught.value)

    assert told.startswith("x.csv names 5 images that are not in ")
    assert "such as '4.png' (row 3), '5.png' (row 5), '6.png' (row 6), ..." in told
    assert "1 that may be one of two, such as '1.png' (row 2: 'unlabeled/a/1.png' or" in told
    assert told.endswith("Nothing was written")


def test_a_table_without_names_says_which_columns_would_do(photos: Store) -> None:
    with pytest.raises(
        InputError, match=r"columns photo, label; wanted one .*: sample_id, key"
    ):
        images_in(photos, pa.table({"photo": ["3.png"], "label": ["cat"]}), "x.csv")


def test_images_that_were_deleted_are_found_where_that_is_asked_for(photos: Store) -> None:
    erase(photos, [2], reason="asked for")
    table = pa.table({"file": ["b/2.png", "3.png"]})

    assert images_in(photos, table, "x.csv", with_deleted=True) == [2, 3]
    with pytest.raises(InputError, match=r"1 images that are not in .* 'b/2\.png' \(row 1\)"):
        images_in(photos, table, "x.csv")


def test_the_same_names_in_two_data_sets_are_told_apart(tmp_path: Path) -> None:
    store = plstore.create(tmp_path / "store")
    for name in ("one", "two"):
        records = [
            ImageRecord(key=r.key, split=r.split, data=r.data, label=r.label)
            for r in make_records()[:6]
        ]
        import_images(store, records, dataset=name, class_names=CLASS_NAMES)

    assert sample_ids(store, ["0003.png"], dataset="two") == [9]
    with pytest.raises(InputError, match="keys of images repeat among the data sets"):
        sample_ids(store, ["0003.png"])


def test_what_is_filled_in_is_a_correction_and_what_is_empty_is_counted(
    photos: Store, tmp_path: Path
) -> None:
    text = "key,class_name,label\na/1.png,cat,dog\nunlabeled/3.png,owl,\nb/2.png,cat,cat\n"

    assert read_corrections(photos, written(tmp_path, text)) == Corrections(
        labels={0: "dog", 2: "cat"}, num_empty=1
    )


def test_nobody_looks_up_the_name_of_a_row_that_says_nothing(photos: Store) -> None:
    table = pa.table({"file": ["gone.png", "1.png", "3.png"], "label": [None, " ", "owl"]})

    assert read_corrections(photos, table) == Corrections(labels={3: "owl"}, num_empty=2)


def test_numbers_that_pandas_wrote_with_gaps_are_read(tmp_path: Path) -> None:
    store = plstore.create(tmp_path / "store")
    records = [
        ImageRecord(key=r.key, split=r.split, data=r.data, label=str(n % 3))
        for n, r in enumerate(make_records()[:4])
    ]
    import_images(store, records, dataset="d", class_names=["0", "1", "2"])
    table = pa.table({"sample_id": [0, 1, 2], "label": [2.0, float("nan"), 1.0]})

    assert read_corrections(store, table).labels == {0: "2", 2: "1"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "file,label\n3.png,cow\n",
            r"csv row 1 has the label 'cow', which is no class .* cat,",
        ),
        ("file,label\n3.png,NA\n", "label 'NA', .* owl, or nothing where nobody looked"),
        ("file,class_name\n3.png,cat\n", "no column 'label' and there is no --label: what is"),
        ("file,label\n3.png,cat\n2.png,\n/x/3.png,cat\n", "rows 1 and 3 are of one image"),
        ("file,label\n9.png,cat\n", r"names 1 images that are not in .* '9\.png' \(row 1\)"),
    ],
)
def test_a_file_that_cannot_be_meant_so_is_refused(
    photos: Store, tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read_corrections(photos, written(tmp_path, text))


def test_one_label_for_all_has_no_column_beside_it(photos: Store) -> None:
    named = pa.table({"file": ["3.png"]})

    assert read_corrections(photos, named, label="owl").labels == {3: "owl"}
    with pytest.raises(InputError, match="--label is 'cow', which is no class"):
        read_corrections(photos, named, label="cow")
    with pytest.raises(InputError, match="has a column of that name: which is it"):
        read_corrections(photos, named.append_column("label", [["cat"]]), label="owl")
