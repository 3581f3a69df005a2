"""Decisions of people, put back from files and queries."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from plstore.store import Store
from plstore.upkeep import corrected_labels
from tests.cli.shell import shell
from tests.conftest import give_labels


def decide(store: Store, *words: str | Path) -> tuple[list[dict[str, Any]], str]:
    """Return the rows that a verb prints, and what it says on stderr."""
    done = shell(*words, "--store", store.root, "--format", "json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows, done.stderr


def test_a_list_of_all_files_is_filled_in_and_given_back_whole(
    store: Store, tmp_path: Path
) -> None:
    give_labels(store)
    words = ("query", "run", "coverage/labels_by_file", "--store", store.root)
    printed = shell(*words, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(printed)))
    for row in rows[:2]:
        row["label"] = "owl"
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    first, said = decide(store, "correct", "--file", tmp_path / "labels.csv")
    again, _ = decide(store, "correct", "--file", tmp_path / "labels.csv")
    printed_again = shell(*words, "--format", "csv").stdout

    assert first == [{"named": 2, "newly corrected": 2, "without a label": 58}]
    assert again == [{"named": 2, "newly corrected": 0, "without a label": 58}]
    assert said == ""
    assert corrected_labels(store) == {int(row["sample_id"]): 2 for row in rows[:2]}
    filled = [row["label"] for row in csv.DictReader(io.StringIO(printed_again))]
    assert filled == ["owl"] * 2 + [""] * 58


@pytest.mark.nightly
def test_files_are_named_by_their_ends(store: Store, tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("file\n/home/ann/0014.png\n0015.png\n")
    (tmp_path / "right.csv").write_text("path,label\nphotos/0016.png,cat\n")
    excluded, _ = decide(store, "exclude", "--file", tmp_path / "some.csv")
    corrected, _ = decide(store, "correct", "--file", tmp_path / "right.csv")
    deleted, _ = decide(store, "delete", "--file", tmp_path / "some.csv")
    again, _ = decide(store, "delete", "--file", tmp_path / "some.csv")

    assert excluded == [{"named": 2, "newly excluded": 2}]
    assert corrected[0]["newly corrected"] == 1
    assert corrected_labels(store) == {16: 0}
    assert deleted[0] == {"what": "images deleted", "n": 2}
    assert again[0] == {"what": "images deleted", "n": 0}


@pytest.mark.parametrize("verb", ["correct", "exclude", "delete"])
def test_a_name_that_is_nowhere_stops_all_of_it(
    store: Store, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "some.csv").write_text("file,label\n0014.png,cat\nnowhere.png,cat\n")
    before = store.versions()
    done = shell(verb, "--file", tmp_path / "some.csv", "--store", store.root)

    assert done.returncode == 2
    assert "some.csv names 1 images that are not in" in done.stderr
    assert "'nowhere.png' (row 2)" in done.stderr
    assert done.stdout == ""
    assert store.versions() == before


@pytest.mark.parametrize(
    ("verb", "row"),
    [
        ("exclude", {"named": 0, "newly excluded": 0}),
        ("correct", {"named": 0, "newly corrected": 0, "without a label": 0}),
        ("delete", {"what": "images deleted", "n": 0}),
    ],
)
def test_a_query_without_rows_is_said(store: Store, verb: str, row: dict[str, Any]) -> None:
    query = "select sample_id, 'cat' as label from images where width > 9000"
    before = store.versions()
    rows, said = decide(store, verb, "--query", query)
    done = {"exclude": "excluded", "correct": "corrected", "delete": "deleted"}[verb]

    assert rows == [row]
    assert said == f'the query "{query}" has no rows, so nothing was {done}\n'
    assert store.versions() == before


def test_a_file_that_nobody_filled_in_is_said(store: Store, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("key,class_name,label\nunlabeled/0014.png,cat,\n")
    rows, said = decide(store, "correct", "--file", tmp_path / "labels.csv")

    assert rows == [{"named": 0, "newly corrected": 0, "without a label": 1}]
    assert "labels.csv has anything in its column label, so nothing was corrected" in said
