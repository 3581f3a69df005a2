"""What an empty answer means is said."""

from pathlib import Path
from typing import Any

import pytest

import plstore
from plstore.query import run_query, what_is_missing
from plstore.store import Store, add_tag
from plstore.upkeep import exclude
from tests.conftest import give_labels

LABELS = "no soft labels yet: plstore run, plstore label or plstore import predictions"


def notes(store: Store, query: str, **given: Any) -> list[str]:  # noqa: ANN401  as they come
    said: list[str] = []
    run_query(store, query, on_note=said.append, **given)
    return said


def test_a_new_store_has_no_images(tmp_path: Path) -> None:
    empty = plstore.create(tmp_path / "store")
    lines = ["no images yet: plstore import, or plstore run"]

    assert notes(empty, "coverage/labels_by_file") == lines
    assert notes(empty, "selection/balance") == lines
    assert notes(empty, "calibration/reliability") == lines


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("coverage/labels_by_file", LABELS),
        ("coverage/labels_per_class", LABELS),
        ("calibration/reliability", LABELS),
        ("selection/filter_yield", LABELS),  # it has a row for each class all the same
        ("agreement/confused_classes", LABELS),
        ("drift/flips_by_class", LABELS),
        ("selection/balance", "no views yet: plstore run, or plstore select"),
        ("audit/excluded_in_views", "no views yet: plstore run, or plstore select"),
    ],
)
def test_what_is_not_there_yet_is_said_with_what_makes_it(
    store: Store, query: str, line: str
) -> None:
    exclude(store, [3], reason="blurred", who="ann")

    assert notes(store, query) == [line]


def test_labels_of_the_right_images_are_wanted(store: Store) -> None:
    give_labels(store)
    for_validation = LABELS.replace("labels yet", "labels of validation images yet")

    assert notes(store, "calibration/confusions") == [for_validation]
    assert notes(store, "coverage/labels_by_file", split="validation") == [for_validation]
    assert notes(store, "calibration/likely_label_errors") == [
        LABELS.replace("labels yet", "labels of labeled or validation or test images yet")
    ]
    (line,) = notes(store, "drift/flips_by_class")
    assert line.startswith("soft labels of unlabeled images are of iteration 1 alone: there is")


def test_nothing_is_said_where_nothing_lacks(store: Store) -> None:
    give_labels(store, "t0", 1)
    give_labels(store, "t0", 2)

    assert notes(store, "audit/repeated_labels") == []
    assert notes(store, "drift/flipped_labels") == []
    assert what_is_missing(store, "select * from soft_labels, corrections") == []


def test_of_an_older_snapshot_it_is_said_when(store: Store) -> None:
    add_tag(store, "bare")
    give_labels(store)
    sql = "select * from Soft_Labels"

    assert what_is_missing(store, sql, as_of="bare") == [LABELS.replace("yet", "as of bare")]
    assert what_is_missing(store, sql) == []


def test_a_store_without_a_table_has_none_of_it(store: Store) -> None:
    older = Store(store.root, without=["embeddings"])

    assert what_is_missing(older, "select * from embeddings") == [
        "no embeddings yet: plstore embed"
    ]


def test_rows_that_are_cut_are_said(store: Store) -> None:
    give_labels(store, "t0", 1)
    said = notes(store, "selection/low_margin_images", teacher_id="t0", iteration=1)

    assert said == ["the first 20 rows; --num-images for more, 0 for all"]
    all_of_it: dict[str, Any] = {"teacher_id": "t0", "iteration": 1, "num_images": 0}
    assert notes(store, "selection/low_margin_images", **all_of_it) == []
    assert run_query(store, "selection/low_margin_images", **all_of_it).num_rows == 60
