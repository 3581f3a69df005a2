"""Questions about neighbours, beyond their cases."""

import pytest

from plstore.errors import QueryError
from plstore.query import run_query
from plstore.store import Store
from tests.conftest import give_embeddings

NAMES = ("nearest", "near_duplicates", "outliers", "disagreeing")


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_that_are_missing_or_in_doubt_are_told(store: Store, name: str) -> None:
    query = f"neighbors/{name}"
    with pytest.raises(QueryError, match="there are no embeddings; 'plstore embed' makes them"):
        run_query(store, query)
    give_embeddings(store, "b-net")
    give_embeddings(store, "a-net", features=3)
    with pytest.raises(QueryError, match="embeddings of a-net, b-net; name one of them as the"):
        run_query(store, query)

    assert run_query(store, query, model="a-net").num_rows >= 0


def test_the_rows_that_are_wanted_are_those_that_come(store: Store) -> None:
    give_embeddings(store)

    assert run_query(store, "neighbors/nearest", sample_id=30, num_images=0).num_rows == 83
    assert run_query(store, "neighbors/nearest", sample_id=30, num_images=7).num_rows == 7
    assert run_query(store, "neighbors/outliers").num_rows == 60
    assert run_query(store, "neighbors/outliers", split="").num_rows == 84


def test_the_nearest_of_the_nearest_is_often_the_image(store: Store) -> None:
    give_embeddings(store)
    first = run_query(store, "neighbors/nearest", sample_id=30, num_images=1).to_pylist()
    outliers = run_query(store, "neighbors/outliers", split="", num_images=0).to_pylist()
    (own,) = [row for row in outliers if row["sample_id"] == 30]

    assert own["nearest_id"] == first[0]["sample_id"]
    assert own["nearest_similarity"] == pytest.approx(first[0]["similarity"], abs=1e-6)


def test_pairs_within_a_split_come_once(store: Store) -> None:
    give_embeddings(store)
    name = "neighbors/near_duplicates"
    rows = run_query(
        store, name, split="test", other_split="test", min_similarity=-1.0
    ).to_pylist()

    assert len(rows) == 6 * 5 // 2
    assert all(row["sample_id"] < row["other_id"] for row in rows)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("nearest", {"sample_id": 999}, "image 999 has no embedding of this model"),
        ("outliers", {"k": 0}, "k is 0; wanted 1 or more"),
        ("disagreeing", {"k": -3}, "k is -3; wanted 1 or more"),
        ("near_duplicates", {"split": "tests"}, "split is tests; wanted labeled, unlabeled,"),
        ("outliers", {"split": "tests"}, "split is tests; wanted labeled, unlabeled,"),
    ],
)
def test_a_parameter_out_of_range_is_told(
    store: Store, name: str, values: dict[str, object], message: str
) -> None:
    give_embeddings(store)
    with pytest.raises(QueryError, match=message):
        run_query(store, f"neighbors/{name}", **values)  # type: ignore[arg-type]  # parameters
