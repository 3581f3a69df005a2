"""The same selection on Spark: the same rows, row by row."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pyspark.sql import SparkSession

from plstore.errors import MissingExtraError
from plstore.images import import_images
from plstore.selection import Balance, Rule, Selection, preview, select
from plstore.store import Store
from tests.conftest import CLASS_NAMES, give_labels, make_records

pytestmark = [
    pytest.mark.nightly,  # Java takes twenty seconds to begin
    # It warns of the pandas that is installed; no data frame of pandas is made.
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.shuffle.partitions", "2").getOrCreate()
    yield session
    session.stop()


def rows_of(store: Store, engine: Any, **values: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    view = select(
        store, Selection(view=f"v-{engine}", teachers=["t0"], engine=engine, **values)
    )
    rows = [row for batch in view.batches() for row in batch.to_pylist()]
    return [{k: v for k, v in row.items() if k not in {"view", "version"}} for row in rows]


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(
    "balance",
    [
        Balance(min_confidence=0.4, images_per_class=7, seed=3),
        Balance(policy="reference", min_confidence=0.4, images_per_class=9, seed=3),
        Balance(min_confidence=0.4567, images_per_class=50, seed=70_000),
        Balance(policy="cap", min_confidence=0.4, total=20, power=0.5),
        Balance(policy="none", min_confidence=0.4567),
    ],
    ids=lambda balance: balance.policy,
)
def test_spark_selects_what_duckdb_selects(store: Store, balance: Balance) -> None:
    give_labels(store)

    assert rows_of(store, "spark", balance=balance) == rows_of(store, "duckdb", balance=balance)


@pytest.mark.usefixtures("spark")
def test_spark_leaves_out_what_is_held_out_as_duckdb_does(store: Store) -> None:
    test = next(r for r in make_records() if r.split == "test")
    copy = replace(test, key="copy", split="unlabeled", label=None)
    import_images(store, [copy], dataset="more", class_names=CLASS_NAMES)
    give_labels(store)
    balance = Balance(policy="none", min_confidence=0.0)
    rows = [rows_of(store, engine, balance=balance) for engine in ("spark", "duckdb")]

    assert rows[0] == rows[1]
    assert {row["sample_id"] for row in rows[0]} == set(range(72))
    assert len(rows_of(store, "spark", balance=balance, held_out=True)) == 73


@pytest.mark.usefixtures("spark")
def test_spark_counts_where_no_counts_are_kept_and_leaves_nothing(store: Store) -> None:
    give_labels(store)
    give_labels(store, "t1", 2)
    rule = Rule(agree=2)
    selections = [
        Selection(view="v", teachers=["t0@1", "t1@2"], rule=rule, engine=engine)
        for engine in ("duckdb", "spark")
    ]

    assert preview(store, selections[0]) == preview(store, selections[1])
    assert not list(store.work_folder("select").rglob("*.parquet"))


def test_without_pyspark_the_extra_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    give_labels(store)
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)

    with pytest.raises(MissingExtraError, match=r"plstore\[spark\]"):
        preview(store, Selection(view="v", teachers=["t0"], engine="spark"))
