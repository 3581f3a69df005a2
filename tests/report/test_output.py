import csv
import io
import json

from plstore.report.output import render

ROWS: list[dict[str, object]] = [
    {"name": "a,b", "value": 1.5, "image": b"\x00\x01", "pair": {"x": [1, None]}},
    {"name": "c", "value": None, "image": b"\xff" * 99, "pair": None},
]


def test_json_and_csv_can_be_read_back() -> None:
    read = json.loads(render(ROWS, "json"))
    cells = list(csv.DictReader(io.StringIO(render(ROWS, "csv"))))

    assert read[0] == {"name": "a,b", "value": 1.5, "image": "0001", "pair": {"x": [1, None]}}
    assert [cell["name"] for cell in cells] == ["a,b", "c"]


def test_a_table_shortens_bytes_and_counts_rows() -> None:
    text = render(ROWS, "table")

    assert "ffffffffffffffffffffffff... (99 bytes)" in text
    assert text.endswith("(2 rows)")


def test_no_rows_keep_their_columns() -> None:
    assert render([], "csv", columns=["a", "b"]) == "a,b"
    assert render([], "json", columns=["a"]) == "[]"
    assert "(0 rows)" in render([], "table", columns=["a"])
