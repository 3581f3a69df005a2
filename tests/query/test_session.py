import gc
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute
import pytest

import plstore
from plstore.errors import InputError, QueryError
from plstore.query import Limits, connect, run_query, run_sql
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
    "update extensions",
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


REACHING = [
    *(sql for sql in HOSTILE if "{store}" in sql or "/" in sql),
    "install httpfs",
    "force install httpfs",
    "load httpfs",
    "update extensions",
    "set lock_configuration = false",
    "set enable_external_access = true",
    "set allowed_directories = ['/']",
    "set temp_directory = '/tmp'",
    "pragma temp_directory = '/tmp'",
    "set memory_limit = '1TB'",
    "reset memory_limit",
    "set threads = 64",
    "set profiling_output = '/tmp/hostile'",
    "call enable_logging('QueryLog', storage = 'file', storage_path = '/tmp/hostile')",
    "create persistent secret s (type http)",
    "import database '{store}'",
    "attach 'http://localhost/x.db'",
    "copy (select 1) to '/dev/stdout'",
    "create table t as from read_text('{store}/plstore.json')",
    "create view v as from read_blob('/etc/passwd')",
    "prepare p as copy (select 1) to '/tmp/hostile.csv'",
    "select * from sniff_csv('/etc/passwd')",
    "select * from parquet_metadata('{store}/images/x.parquet')",
    "select * from query_table('/etc/passwd')",
]


@pytest.mark.parametrize("sql", REACHING)
def test_an_open_connection_reaches_nothing_outside(store: Store, sql: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}
    with closing(connect(store)) as connection, pytest.raises(duckdb.Error):
        connection.execute(sql.format(store=store.root)).fetchall()
    after = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}

    assert after == before
    assert not list(Path("/tmp").glob("hostile*"))  # noqa: S108  nothing may be there


@pytest.mark.parametrize(
    "method", ["read_csv", "read_json", "read_parquet", "from_parquet", "install_extension"]
)
def test_methods_of_a_connection_reach_nothing_either(store: Store, method: str) -> None:
    with closing(connect(store)) as connection, pytest.raises(duckdb.Error):
        getattr(connection, method)("/etc/passwd")


@pytest.mark.parametrize("method", ["write_csv", "write_parquet"])
def test_results_are_not_written_by_duckdb(store: Store, tmp_path: Path, method: str) -> None:
    with closing(connect(store)) as connection, pytest.raises(duckdb.Error):
        getattr(connection.sql("select 1 as one"), method)(str(tmp_path / "out"))


def test_what_a_connection_makes_of_its_own_stays_in_memory(store: Store) -> None:
    give_labels(store)
    versions = store.versions()
    with closing(connect(store)) as connection:
        connection.execute("create table mine as select sample_id from soft_labels")
        connection.execute("drop view soft_labels")

    assert store.versions() == versions
    assert run_sql(store, "select count(*) as n from soft_labels").to_pylist() == [{"n": 60}]


SLOW = "select sum(sqrt(a.range * b.range)) from range(1000000) as a, range(1000000) as b"


def test_sql_stops_at_its_time(store: Store) -> None:
    with pytest.raises(QueryError, match=r"ran longer than 0\.5 s and was stopped"):
        run_sql(store, SLOW, limits=Limits(seconds=0.5))


def test_a_connection_stops_at_its_time_and_lives_on(store: Store) -> None:
    with closing(connect(store, limits=Limits(seconds=0.5))) as connection:
        with pytest.raises(duckdb.InterruptException):
            connection.execute(SLOW).fetchall()

        assert connection.execute("select 1").fetchall() == [(1,)]


def test_short_statements_are_not_one_long_one(store: Store) -> None:
    with closing(connect(store, limits=Limits(seconds=0.5))) as connection:
        slept = [connection.execute("select pg_sleep(0.1)").fetchall() for _ in range(12)]

    assert len(slept) == 12


@pytest.mark.parametrize(
    "sql",
    [
        SLOW,
        "with recursive t(n) as (select 1 union all select n + 1 from t) select max(n) from t",
    ],
)
def test_a_cursor_stops_at_its_time_and_outlives_its_connection(store: Store, sql: str) -> None:
    label = "{'class_ids': [1], 'probs': [1::float], 'residual': 0::float, 'tail': null::blob}"
    with closing(connect(store, limits=Limits(seconds=0.3)).cursor()) as cursor:
        gc.collect()
        with pytest.raises(duckdb.InterruptException):
            cursor.execute(sql).fetchall()

        assert cursor.execute(f"select dense({label})").fetchall() == [([0.0, 1.0, 0.0],)]


def test_sql_stops_at_its_memory(store: Store) -> None:
    sql = "select count(*) from (select distinct range, range + 1 from range(30000000))"
    with pytest.raises(QueryError, match="raise the memory limit"):
        run_sql(store, sql, limits=Limits(memory="50MB"))


def test_a_limit_that_is_none_says_what_is_wanted(store: Store) -> None:
    with pytest.raises(InputError, match="memory limit 'much'; wanted a size such as 8GB"):
        run_sql(store, "select 1", limits=Limits(memory="much"))


def test_results_go_to_data_frames(store: Store) -> None:
    give_labels(store)
    with closing(connect(store)) as connection:
        sql = "select class_name(class_id) as name, count(*) as n from soft_labels group by all"

        assert connection.sql(sql).pl()["n"].sum() == 60
        assert connection.sql(sql).df()["n"].sum() == 60
        assert pa.compute.sum(connection.sql(sql).to_arrow_table()["n"]).as_py() == 60


def test_image_bytes_can_be_joined(store: Store) -> None:
    give_labels(store)
    sql = (
        "select images.image.bytes as data from soft_labels "
        "join images using (sample_id) order by soft_labels.confidence limit 1"
    )

    assert run_sql(store, sql)["data"][0].as_py().startswith(b"\x89PNG")


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
        ({"min_confidence": "high"}, "min_confidence is 'high'; wanted float"),
        ({"min_confidence": 0.5, "colour": 1}, "'colour' is unknown"),
    ],
)
def test_wrong_parameters_say_what_the_query_takes(
    store: Store, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(QueryError, match=words) as caught:
        run_query(store, "coverage/labels_per_class", **given)
    assert "It takes min_confidence (float, 0.0 unless given)" in str(caught.value)


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


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 as n -- a note",
        "select 1 as n;",
        "select 1 as n; -- a note",
        "/* why */ select 1 as n /* ; */ ;\n-- end",
    ],
)
def test_sql_may_end_in_comments_and_a_semicolon(store: Store, sql: str) -> None:
    assert run_sql(store, sql).to_pylist() == [{"n": 1}]


def test_tables_can_be_listed(store: Store) -> None:
    assert "soft_labels" in run_sql(store, "show tables")["name"].to_pylist()
