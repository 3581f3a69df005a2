"""Tables as spreadsheets, databases and pandas write them."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plstore.cli.deciding import correct
from plstore.errors import InputError
from plstore.exchange import images_in
from plstore.exchange.tables import read_lines, read_table, table_batches, whole_numbers
from plstore.images import ImageRecord, import_images
from plstore.store import Store, create
from plstore.upkeep import corrected_labels
from tests.conftest import make_records


def test_cells_of_a_csv_stay_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("key,label,n\n007,true,3.0\n1e5,2024-01-01,\n NA,NaN,-1\n")

    assert read_table(path).to_pydict() == {
        "key": ["007", "1e5", " NA"],
        "label": ["true", "2024-01-01", "NaN"],
        "n": ["3.0", "", "-1"],
    }


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_a_csv_is_read_as_programs_write_it(
    tmp_path: Path, mark: str, encoding: str, line: str
) -> None:
    path = tmp_path / "labels.csv"
    rows = [["key", "the label, or none"], ["Zoë/1.png", "a;b|c\td,e"]]
    text = "".join(mark.join(f'"{cell}"' for cell in row) + line for row in rows)
    path.write_bytes(text.encode(encoding))

    assert read_table(path).to_pylist() == [dict(zip(*rows, strict=True))]


def test_a_header_tells_the_delimiter_whatever_its_names_hold(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("\nkey;prob_a,b;prob_c\nx;0,25;0,75\n")
    kinds = {"prob_c": pa.float32(), "prob_a,b": pa.float32()}

    assert read_table(path).column_names == ["key", "prob_a,b", "prob_c"]
    assert next(table_batches(path, kinds)).to_pydict() == {
        "prob_c": [0.75],
        "prob_a,b": [0.25],
    }


def test_a_quoted_text_may_hold_lines_without_end(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    note = "a line, and another\n" * 100_000  # 2 MB
    path.write_text("key,note\n" + "".join(f'{i},"{note}"\n' for i in range(3)))
    table = read_table(path)

    assert table["key"].to_pylist() == ["0", "1", "2"]
    assert set(table["note"].to_pylist()) == {note}


def test_columns_of_json_and_parquet_keep_their_types(tmp_path: Path) -> None:
    rows = [{"key": "007", "n": 1}, {"key": "b", "n": None, "late": 0.5}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    pq.write_table(pa.table({"key": ["007", "b"], "n": [1, None]}), tmp_path / "a.PARQUET")
    expected = {"key": ["007", "b"], "n": [1, None]}

    assert read_table(tmp_path / "a.json").to_pydict() == {**expected, "late": [None, 0.5]}
    assert read_table(tmp_path / "a.jsonl").to_pydict() == {**expected, "late": [None, 0.5]}
    assert read_table(tmp_path / "a.PARQUET").to_pydict() == expected


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        (
            "a.csv",
            "key,b\nx,1\ncafé,2\n".encode("latin-1"),
            "byte 13, in line 3, is b'\\\\xe9'",
        ),
        ("a.csv", b"k" * 200_000 + b"\xff,b\n", "byte 200000, in line 1, is b'\\\\xff'"),
        ("a.csv", b"\xef\xbb\xbfkey\nx\n\xff\n", "byte 9, in line 3"),
        ("a.csv", "key,b\nx,1\n".encode("utf-16")[:-1], "is no UTF-16: byte"),
        ("a.csv", "key,b\nx,1\n".encode("utf-16-le"), "zero bytes; wanted a CSV with a header"),
        ("a.csv", b"\n \n", "is empty; wanted a CSV"),
        ("a.csv", b"", "is empty; wanted a CSV"),
        ("a.csv", b"key,b,key\nx,1,2\n", "has 2 columns named 'key'; wanted every name once"),
        ("a.csv", b"key,b\nx,1\ny,2,3\n", "Row #3: Expected 2 columns, got 3"),
        ("a.parquet", b"PAR1 not quite", "a.parquet cannot be read as Parquet"),
        ("a.json", b'[{"key": 1}', "a.json is no JSON: .* line 1 column 12"),
        ("a.json", b'{"key": 1}', "wanted a JSON list of objects"),
        ("a.jsonl", b'{"key": 1}\n{"key": "x"}\n', "a.jsonl cannot be read as JSON"),
    ],
)
def test_what_is_no_table_is_told_apart(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_table(tmp_path / name)


def test_columns_without_a_name_are_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",key,,\n0,x,1,2\n")  # an index, and cells to the right

    assert read_table(tmp_path / "a.csv").to_pydict() == {"key": ["x"]}


def test_a_cell_that_is_no_number_is_named_by_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("key,cat\nx,0.5\ny,half\n")
    pq.write_table(pa.table({"cat": ["0.5", "half"]}), tmp_path / "a.parquet")

    with pytest.raises(InputError, match=r"Row #3: .* invalid value 'half'"):
        list(table_batches(tmp_path / "a.csv", {"cat": pa.float32()}))
    with pytest.raises(InputError, match=r"'cat' is string; wanted float: .*half"):
        list(table_batches(tmp_path / "a.parquet", {"cat": pa.float32()}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["1", "x"], "ids is string, and 'x' in row 2"),
        (["1", ""], "'' in row 2"),
        (["0x10"], "'0x10' in row 1"),
        (["9" * 19], "in row 1; wanted whole numbers"),
        ([1.0, 1.5], "ids is double, and 1.5 in row 2"),
        ([1.0, float("nan")], "nan in row 2"),
        ([1, None], "ids is int64 with 1 nulls, the first in row 2"),
        ([True], "ids is bool, and True in row 1"),
        ([[1]], "in row 1; wanted whole numbers"),
    ],
)
def test_ids_are_whole_numbers(values: list[object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        whole_numbers(pa.array(values), "ids")


@pytest.mark.parametrize(
    "values",
    [["17", " -18 ", "19.0"], [17.0, -18.0, 19.0], np.array([17, -18, 19], np.int16)],
)
def test_whole_numbers_are_read_from_what_tables_hold(values: object) -> None:
    assert whole_numbers(pa.array(values), "ids").to_pylist() == [17, -18, 19]


def test_lines_of_a_list_are_its_names(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "ids.txt").write_bytes("007\r\nZoë\u2028x.png\r\n\r\n".encode(encoding))

        assert read_lines(tmp_path / "ids.txt") == ["007", "Zoë\u2028x.png"]


@pytest.fixture
def numbered(tmp_path: Path) -> Store:
    """Images of classes whose names look like other things."""
    names = {"cat": "007", "dog": "true", "owl": "3"}
    records = [
        ImageRecord(key=r.key, split=r.split, data=r.data, label=names[str(r.label)])
        for r in make_records()
        if r.split == "labeled"
    ]
    store = create(tmp_path / "numbered")
    import_images(store, records, dataset="d", class_names=sorted(names.values()))
    return store


def put_right(store: Store, path: Path) -> list[str]:
    correct(str(store.root), file=path)
    return [store.class_names[n] for _, n in sorted(corrected_labels(store).items())]


@pytest.mark.parametrize(
    "rows",
    [
        "0,true\n1,3\n2,007\n",
        "2,007\n1,3.0\n0,true\n",
        "0.0,true\n1.0,3\n2.0,007\n",
    ],
)
def test_labels_of_corrections_are_the_stores(
    numbered: Store, tmp_path: Path, rows: str
) -> None:
    (tmp_path / "right.csv").write_text("sample_id,label\n" + rows)
    if "3.0" in rows:  # beside 007 it is a name, and no class of the store
        with pytest.raises(
            InputError, match=r"csv row \d has the label '3\.0', which is no cl"
        ):
            put_right(numbered, tmp_path / "right.csv")
        return

    assert put_right(numbered, tmp_path / "right.csv") == ["true", "3", "007"]


def test_whole_floats_and_truth_values_are_labels(numbered: Store, tmp_path: Path) -> None:
    pq.write_table(pa.table({"sample_id": [1], "label": [3.0]}), tmp_path / "right.parquet")
    first = put_right(numbered, tmp_path / "right.parquet")
    pq.write_table(pa.table({"sample_id": [1], "label": [True]}), tmp_path / "right.parquet")
    second = put_right(numbered, tmp_path / "right.parquet")
    correct(str(numbered.root), query="select 1 as sample_id, 3 as label")

    assert (first, second) == (["3"], ["true"])
    assert corrected_labels(numbered) == {1: numbered.class_names.index("3")}


@pytest.mark.parametrize("missing", ["NaN", "None", "NA", "?"])
def test_a_correction_without_a_label_is_refused_by_row(
    numbered: Store, tmp_path: Path, missing: str
) -> None:
    (tmp_path / "right.csv").write_text(f"sample_id,label\n4,3\n5,{missing}\n")
    with pytest.raises(
        InputError, match=rf"right\.csv row 2 has the label '{re.escape(missing)}'"
    ):
        put_right(numbered, tmp_path / "right.csv")
    with pytest.raises(InputError, match="--label is"):
        correct(str(numbered.root), ids="5", label=missing)
    assert corrected_labels(numbered) == {}


def test_an_unknown_class_number_is_no_correction(numbered: Store, tmp_path: Path) -> None:
    (tmp_path / "right.csv").write_text("sample_id,label\n4,3\n5,-1\n")
    with pytest.raises(InputError, match=r"row 2 has the label '-1', which is no class"):
        put_right(numbered, tmp_path / "right.csv")


def test_a_class_named_like_nothing_is_a_class(tmp_path: Path) -> None:
    records = [
        ImageRecord(key=r.key, split=r.split, data=r.data, label="NA" if n % 2 else "EU")
        for n, r in enumerate(make_records()[:4])
    ]
    store = create(tmp_path / "store")
    import_images(store, records, dataset="d", class_names=["EU", "NA"])
    (tmp_path / "right.csv").write_text("sample_id,label\n0,NA\n")

    assert put_right(store, tmp_path / "right.csv") == ["NA"]


def test_rows_of_a_file_are_chosen_by_whole_numbers(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_bytes("sample_id;why\r\n17;blurred\r\n18.0;tiny\r\n".encode("utf-8-sig"))

    assert images_in(store, read_table(path), "ids.csv") == [17, 18]
    path.write_text("sample_id\n17\nseven\n")
    with pytest.raises(
        InputError, match=r"ids\.csv: sample_id is string, and 'seven' in row 2"
    ):
        images_in(store, read_table(path), "ids.csv")
