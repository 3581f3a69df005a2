import csv
import io
import json
from collections.abc import Iterator

import pytest

from plstore.report.output import StreamFormat, render, stream

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


COLUMNS = ["name", "value", "image", "pair"]


def streamed(blocks: list[list[dict[str, object]]], format_: StreamFormat) -> str:
    return "".join(stream(blocks, format_, COLUMNS))


def test_rows_that_come_in_blocks_read_as_all_at_once() -> None:
    for blocks in ([ROWS], [[], ROWS[:1], [], ROWS[1:]]):
        assert streamed(blocks, "table") == render(ROWS, "table") + "\n"
        assert streamed(blocks, "csv") == render(ROWS, "csv") + "\n"
        assert json.loads(streamed(blocks, "json")) == json.loads(render(ROWS, "json"))
        lines = streamed(blocks, "jsonl").splitlines()
        assert [json.loads(line) for line in lines] == json.loads(render(ROWS, "json"))


def test_no_rows_are_streamed_as_none() -> None:
    assert streamed([], "table") == render([], "table", columns=COLUMNS) + "\n"
    assert streamed([[]], "csv") == "name,value,image,pair\n"
    assert json.loads(streamed([], "json")) == []
    assert streamed([], "jsonl") == ""


@pytest.mark.parametrize("format_", ["csv", "jsonl", "json"])
def test_a_block_is_written_before_the_next_is_asked_for(format_: StreamFormat) -> None:
    asked: list[int] = []

    def blocks() -> Iterator[list[dict[str, object]]]:
        for number in range(3):
            asked.append(number)
            yield ROWS

    texts = stream(blocks(), format_, COLUMNS)
    first = next(text for text in texts if asked)

    assert asked == [0]
    assert "a,b" in first


def test_a_long_table_is_in_parts() -> None:
    rows = [{"n": n} for n in range(2500)]
    text = "".join(stream([rows[:700], rows[700:]], "table", ["n"]))
    lines = [line.strip() for line in text.splitlines()]

    assert lines.count("n") == 3
    assert [int(line) for line in lines[:-1] if line != "n"] == list(range(2500))
    assert lines[-1] == "(2500 rows)"
