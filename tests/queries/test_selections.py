"""Saved queries that decide what a student trains on, beyond their cases."""

from contextlib import closing
from typing import Any

import duckdb
import pytest

import plstore
from plstore.errors import QueryError
from plstore.query import run_query, saved_query
from plstore.selection import Selection, select, select_labeled
from plstore.store import Store
from plstore.upkeep import correct, exclude
from tests.conftest import give_embeddings, give_labels
from tests.queries.given import connect_given

WHOSE: dict[str, Any] = {"teacher_id": "t0", "iteration": 1}
EMBEDDED = ("diverse", "near_labeled", "in_distribution")
NAMES = ("adaptive_floor", "soft_weight", *EMBEDDED)


Rows = list[dict[str, Any]]
Given = dict[str, Rows]


def decide(name: str, given: Given, **parameters: float | str) -> dict[int, dict[str, Any]]:
    """Return the decisions of a query over given rows, by sample id."""
    query = saved_query(f"selection/{name}")
    ids = [row["sample_id"] for row in given["soft_labels"]]
    images = given.get("images", [{"sample_id": n} for n in ids])
    with closing(connect_given({**given, "images": images})) as connection:
        values = query.check_parameters({**WHOSE, **parameters})
        rows = connection.sql(query.sql, params=values).to_arrow_table().to_pylist()
    return {row["sample_id"]: row for row in rows}


@pytest.mark.parametrize("name", NAMES)
def test_each_makes_a_view_and_counts_what_it_drops(store: Store, name: str) -> None:
    give_labels(store)
    give_embeddings(store)
    exclude(store, [20], reason="blurred", who="ann")
    query = f"selection/{name}"
    view = select(store, Selection(view="v", teachers=["t0@1"], query=query))
    counts, parameters = view.record.counts, view.record.parameters
    rows = [row for batch in view.batches() for row in batch.to_pylist()]

    assert counts["in"] == 60 == counts["kept"] + sum(counts["dropped"].values())
    assert 10 < counts["kept"] == counts["draws"] == len(rows) - 12
    assert counts["dropped"]["excluded"] == 1
    assert all(0 < row["weight"] <= 1 for row in rows)
    assert parameters.keys() == {p.name for p in saved_query(query).parameters}


def test_equal_confidences_are_all_kept_in_full() -> None:
    labels = [{"sample_id": n, "p": [0.9, 0.05, 0.05]} for n in range(7)]
    floors = decide("adaptive_floor", {"soft_labels": labels})
    weights = decide("soft_weight", {"soft_labels": labels})

    assert {row["outcome"] for row in floors.values()} == {"kept"}
    assert {row["weight"] for row in weights.values()} == {1.0}


def test_uniform_alignment_weighs_rare_classes_more() -> None:
    sure, rare = [0.75, 0.125, 0.125], [0.25, 0.5, 0.25]
    labels = [{"sample_id": n, "p": p} for n, p in enumerate([sure, sure, rare])]
    plain = decide("soft_weight", {"soft_labels": labels})
    aligned = decide("soft_weight", {"soft_labels": labels}, align=1)

    # Mean 2/3 and variance 1/72: exp(-(1/6)^2 / (2/72)).
    assert [row["weight"] for row in plain.values()] == pytest.approx([1, 1, 0.3678794])
    # Means 7/12, 1/4, 1/6: confidences 36/71 twice and 28/55, so d, d and 2 d from the mean.
    assert [row["weight"] for row in aligned.values()] == pytest.approx([0.7788008] * 2 + [1])
    assert all(aligned[n]["confidence"] == plain[n]["confidence"] for n in plain)


def test_near_copies_crowd_each_other_out_and_what_is_rare_stays() -> None:
    labels = [{"sample_id": n, "class_id": 0, "confidence": 0.5} for n in range(20)]
    common = [{"sample_id": n, "vector": [1.0, 2.0, 0.001 * n]} for n in range(16)]
    rare = [
        {"sample_id": n, "vector": [-1.0 * (n % 2), -2.0, 9.0 * (n - 17)]}
        for n in range(16, 20)
    ]
    embeddings: Rows = [*common, *rare]
    given: Given = {"soft_labels": labels, "embeddings": embeddings}
    found = decide("diverse", given, per_bucket=4, num_bits=4)
    kept = [n for n, row in found.items() if row["outcome"] == "kept"]

    assert set(range(16, 20)) < set(kept)
    assert len({found[n]["bucket"] for n in range(16)}) < 4
    assert len(kept) < 16
    roomy, other = (decide("diverse", given, per_bucket=20, seed=seed) for seed in (0, 1))
    assert {row["outcome"] for row in roomy.values()} == {"kept"}
    assert [r["bucket"] for r in roomy.values()] != [r["bucket"] for r in other.values()]


def test_the_nearest_labeled_image_of_the_class_may_be_asked_for() -> None:
    given: Given = {
        "images": [
            {"sample_id": 1},
            {"sample_id": 2, "split": "labeled", "label": 0},
            {"sample_id": 3, "split": "labeled", "label": 0},
            {"sample_id": 4, "split": "labeled", "label": 1},
        ],
        "soft_labels": [{"sample_id": 1, "class_id": 0, "confidence": 0.5}],
        "embeddings": [
            {"sample_id": 1, "vector": [0.0, 1.0]},
            {"sample_id": 2, "vector": [1.0, 0.0]},
            {"sample_id": 3, "vector": [3.0, 4.0]},
            {"sample_id": 4, "vector": [0.0, 1.0]},
        ],
    }
    found = decide("near_labeled", given, near="image")

    assert found[1]["similarity"] == pytest.approx(0.8)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embeddings_that_are_missing_or_in_doubt_are_told(store: Store, name: str) -> None:
    give_labels(store)
    query = f"selection/{name}"
    with pytest.raises(QueryError, match="there are no embeddings; 'plstore embed' makes them"):
        run_query(store, query, **WHOSE)
    give_embeddings(store, "b-net")
    give_embeddings(store, "a-net", features=3)
    with pytest.raises(QueryError, match="embeddings of a-net, b-net; name one of them as the"):
        run_query(store, query, **WHOSE)
    with pytest.raises(QueryError, match="no embeddings of c-net, only of a-net, b-net"):
        run_query(store, query, **WHOSE, model="c-net")

    assert run_query(store, query, **WHOSE, model="a-net").num_rows == 60


@pytest.mark.parametrize(
    ("name", "parameter", "value", "wanted"),
    [
        ("soft_weight", "align", 2, "0 or 1"),
        ("soft_weight", "min_weight", 0.0, "above 0, up to 1"),
        ("soft_weight", "min_weight", 1.5, "above 0, up to 1"),
        ("diverse", "num_bits", 0, "1 to 30"),
        ("diverse", "num_bits", 31, "1 to 30"),
        ("diverse", "per_bucket", -1, "0 or more"),
        ("near_labeled", "share", 1.5, "0 to 1"),
        ("near_labeled", "near", "average", "mean or image"),
        ("in_distribution", "quantile", -0.5, "0 to 1"),
    ],
)
def test_a_parameter_out_of_range_is_told(
    name: str, parameter: str, value: float | str, wanted: str
) -> None:
    labeled: Rows = [{"sample_id": n, "split": "labeled", "label": 0} for n in (2, 3)]
    given: Given = {
        "images": [{"sample_id": 1}, *labeled],
        "soft_labels": [{"sample_id": 1, "class_id": 0, "confidence": 0.5}],
        "embeddings": [{"sample_id": n, "vector": [1.0, n % 3]} for n in (1, 2, 3)],
    }
    assert decide(name, given)[1]["outcome"] == "kept"
    with pytest.raises(duckdb.Error, match=f"{parameter} is {value}; wanted {wanted}"):
        decide(name, given, **{parameter: value})


def test_a_distribution_that_nothing_is_known_of_is_told() -> None:
    given: Given = {
        "soft_labels": [{"sample_id": 1, "class_id": 0, "confidence": 0.5}],
        "embeddings": [{"sample_id": 1, "vector": [0.0, 1.0]}],
    }
    with pytest.raises(duckdb.Error, match="no labeled image has embeddings of this model"):
        decide("in_distribution", given)


def test_labeled_images_are_those_of_a_view(store: Store) -> None:
    exclude(store, [3], reason="blurred", who="ann")
    correct(store, {4: "owl", 30: "cat"}, who="ann")
    view = select_labeled(store, "labeled")
    expected = {
        row["sample_id"]: row["class_id"]
        for batch in view.batches()
        for row in batch.to_pylist()
    }
    rows = plstore.run_sql(store, "select * from labeled_images() order by sample_id")
    with closing(plstore.connect(store)) as connection:
        again = connection.sql("select * from labeled_images() order by all").to_arrow_table()

    assert {row["sample_id"]: row["class_id"] for row in rows.to_pylist()} == expected
    assert len(expected) == 12
    assert again.equals(rows)


def test_candidates_are_a_teachers_labels_with_what_speaks_against_them(store: Store) -> None:
    give_labels(store)
    exclude(store, [20], reason="blurred", who="ann")
    correct(store, {30: "cat"}, who="ann")
    sql = "select standing, count(*) as n from Candidates ('t0', 1) group by all order by all"
    rows = plstore.run_sql(store, sql).to_pylist()

    assert rows == [
        {"standing": "candidate", "n": 58},
        {"standing": "corrected", "n": 1},
        {"standing": "excluded", "n": 1},
    ]
