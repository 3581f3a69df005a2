"""Other engines open the same directory and get the same numbers as DuckDB."""

from collections.abc import Callable, Iterator
from typing import Any

import daft
import deltalake
import duckdb
import polars as pl
import pyarrow.compute as pc
import pytest

import plstore
from plstore.images import import_images
from plstore.query import run_sql
from plstore.store import Store
from tests.conftest import CLASS_NAMES, give_labels, make_records

Sums = tuple[int, int, float, float]

SQL = """
select count(*), sum(class_id), sum(confidence::double), sum(label.probs[1]::double)
from soft_labels where iteration = 2
"""


@pytest.fixture(params=["compact", "portable"])
def labeled(request: pytest.FixtureRequest, make_store: Callable[..., Store]) -> Store:
    store = make_store(profile=request.param)
    for iteration, teacher in ((1, "t0"), (2, "t1"), (2, "2024")):
        give_labels(store, teacher, iteration)
    return store


@pytest.fixture
def expected(labeled: Store) -> Sums:
    (row,) = run_sql(labeled, SQL).to_pylist()
    count, classes, confidence, first = row.values()
    return int(count), int(classes), float(confidence), float(first)


def same(found: tuple[Any, ...], expected: Sums) -> bool:
    return all(
        float(a) == pytest.approx(b, rel=1e-9) for a, b in zip(found, expected, strict=True)
    )


def test_polars_scans_the_delta_table(labeled: Store, expected: Sums) -> None:
    rows = pl.scan_delta(str(labeled.root / "soft_labels")).filter(pl.col("iteration") == 2)
    probs = pl.col("label").struct.field("probs").list.first().cast(pl.Float64)
    found = rows.select(
        pl.len(),
        pl.col("class_id").sum().alias("classes"),
        pl.col("confidence").cast(pl.Float64).sum(),
        probs.sum().alias("first"),
    ).collect()

    assert same(found.row(0), expected)


def test_deltalake_reads_the_delta_table(labeled: Store, expected: Sums) -> None:
    table = deltalake.DeltaTable(str(labeled.root / "soft_labels")).to_pyarrow_table()
    table = table.filter(pc.equal(table["iteration"], 2))
    probs = [label["probs"][0] for label in table["label"].to_pylist()]
    sums = [sum(table[name].to_pylist()) for name in ("class_id", "confidence")]

    assert same((table.num_rows, *sums, sum(probs)), expected)


def test_daft_reads_the_delta_table(labeled: Store, expected: Sums) -> None:
    rows = daft.read_deltalake(str(labeled.root / "soft_labels"))
    rows = rows.where("iteration = 2")
    columns = rows.select("class_id", "confidence", "label").to_pydict()
    probs = [label["probs"][0] for label in columns["label"]]
    sums = (sum(columns["class_id"]), sum(columns["confidence"]))

    assert same((len(probs), *sums, sum(probs)), expected)


def test_plain_duckdb_reads_the_files(labeled: Store, expected: Sums) -> None:
    files = labeled.table("soft_labels").files()
    types = "{'iteration': 'INTEGER', 'teacher_id': 'VARCHAR', 'split': 'VARCHAR'}"
    scan = f"read_parquet($files, hive_partitioning = true, hive_types = {types})"
    with duckdb.connect() as connection:
        found = connection.execute(
            SQL.replace("from soft_labels", f"from {scan}"), {"files": files}
        ).fetchall()

    assert same(found[0], expected)


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_plain_spark_reads_the_files(labeled: Store, expected: Sums, spark: Any) -> None:  # noqa: ANN401
    table = labeled.table("soft_labels")
    rows = spark.read.option("basePath", str(table.root)).parquet(*table.files())
    rows.createOrReplaceTempView("soft_labels")
    (found,) = spark.sql(
        "select count(*), sum(class_id), sum(double(confidence)), sum(double(label.probs[0]))"
        " from soft_labels where iteration = 2"
    ).collect()

    assert same(tuple(found), expected)


def test_images_and_views_are_read_by_others_too(make_store: Callable[..., Store]) -> None:
    store = make_store()
    give_labels(store)
    balance = plstore.Balance(min_confidence=0.3, images_per_class=9, seed=0)
    plstore.select(
        store,
        plstore.Selection(view="v", teachers=["t0@1"], balance=balance),
    )
    for name in ("images", "view_rows", "views", "teachers"):
        expected = store.table(name).dataset().count_rows()
        path = str(store.root / name)

        assert pl.scan_delta(path).select(pl.len()).collect().item() == expected
        assert daft.read_deltalake(path).count_rows() == expected


def test_importing_twice_gives_the_same_files_whatever_the_process(
    make_store: Callable[..., Store],
) -> None:
    store = make_store()
    before = store.table("images").files()
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)

    assert store.table("images").files() == before
