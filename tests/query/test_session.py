from contextlib import closing
from typing import Any

import duckdb
import pytest

import plstore
from plstore.errors import InputError, QueryError
from plstore.query import connect, run_query, run_sql
from plstore.store import Store
from tests.conftest import give_labels

HOSTILE = [
    "drop table images",
    "delete from images",
    "insert into images select * from images",
    "select 1; select 2",
    "copy images to '{store}/images/evil.parquet'",
    "copy (select 1) to '/tmp/evil.csv'",
    "attach '{store}/evil.db'",
    "export database '{store}/evil'",
    "install httpfs",
    "load httpfs",
    "pragma database_list",
    "set lock_configuration = false",
    "set enable_external_access = true",
    "call pragma_version()",
    "explain analyze copy images to '{store}/_plstore/evil.csv'",
    "explain analyze drop view images",
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('{store}/plstore.json')",
    "select * from read_parquet('{store}/images/*.parquet')",
    "select * from '{store}/plstore.json'",
    "select * from glob('/*')",
    "",
    "select * from",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_hostile_sql_is_refused_and_changes_nothing(store: Store, sql: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}

    with pytest.raises(QueryError):
        run_sql(store, sql.format(store=store.root))
    after = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    "sql",
    [
        "copy images to '{store}/images/evil.parquet'",
        "attach '{store}/evil.db'",
        "install httpfs",
        "set lock_configuration = false",
        "select * from read_text('{store}/plstore.json')",
    ],
)
def test_an_open_connection_is_locked_too(store: Store, sql: str) -> None:
    with closing(connect(store)) as connection, pytest.raises(duckdb.Error):
        connection.execute(sql.format(store=store.root)).fetchall()


def test_a_python_variable_is_no_table(store: Store) -> None:
    secrets = [1, 2, 3]

    with pytest.raises(QueryError, match="secrets"):
        run_sql(store, "select * from secrets")
    assert secrets == [1, 2, 3]


def test_an_error_names_the_tables(store: Store) -> None:
    with pytest.raises(QueryError, match="The tables are classes, images, truth"):
        run_sql(store, "select * from lables")


def test_as_of_reads_a_pinned_version(store: Store) -> None:
    give_labels(store, "t0", 1)
    pins = store.versions()
    give_labels(store, "t1", 2)
    sql = "select count(*) as n from soft_labels"

    assert run_sql(store, sql, as_of=pins).to_pylist() == [{"n": 60}]
    assert run_sql(store, sql).to_pylist() == [{"n": 120}]


def test_names_of_tables_are_not_case_sensitive(store: Store) -> None:
    assert run_sql(store, "select count(*) as n from IMAGES").to_pylist() == [{"n": 84}]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "--min-confidence is missing"),
        ({"min_confidence": "high"}, "min_confidence is 'high'; wanted float"),
        ({"min_confidence": 0.5, "colour": 1}, "'colour' is unknown"),
    ],
)
def test_wrong_parameters_say_what_the_query_takes(
    store: Store, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(QueryError, match=words) as caught:
        run_query(store, "coverage/labels_per_class", **given)
    assert "It takes min_confidence (float)" in str(caught.value)


def test_an_unknown_query_lists_those_there_are(store: Store) -> None:
    with pytest.raises(InputError, match="coverage/verdicts"):
        run_query(store, "../../etc/passwd")


def test_there_is_no_folder_that_sql_may_write(store: Store) -> None:
    store.work_folder("spill").mkdir(parents=True)
    with closing(plstore.connect(store)) as connection:
        folders = connection.execute(
            "select value from duckdb_settings() "
            "where name in ('temp_directory', 'allowed_directories')"
        ).fetchall()

    assert sorted(value for (value,) in folders) == ["", "[]"]


def test_tables_can_be_listed(store: Store) -> None:
    assert "soft_labels" in run_sql(store, "show tables")["name"].to_pylist()
