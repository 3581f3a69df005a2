"""Every type of DuckDB, through each format, as DuckDB itself writes it."""

import csv
import io
import json
from decimal import Decimal
from typing import Any

import pytest

from plstore.query import run_sql
from plstore.report.output import render
from plstore.report.values import rows_of
from plstore.store import Store

BIG = 170141183460469231731687303715884105727

CASES: dict[str, Any] = {
    "null": None,
    "true": True,
    "(-128)::tinyint": -128,
    "255::utinyint": 255,
    "9007199254740993::bigint": 9007199254740993,
    "18446744073709551615::ubigint": 18446744073709551615,
    f"{BIG}::hugeint": BIG,
    f"({-BIG - 1})::hugeint": -BIG - 1,
    "340282366920938463463374607431768211455::uhugeint": 2**128 - 1,
    "sum(9007199254740993::bigint)": 9007199254740993,
    "123456789012345678901234567890123456789012::bignum": int("1234567890" * 4 + "12"),
    "1.50::decimal(10, 2)": Decimal("1.50"),
    "0::decimal(18, 8)": Decimal("0.00000000"),
    "1234567890123456789.123456789::decimal(38, 9)": Decimal("1234567890123456789.123456789"),
    "1.5::float": 1.5,
    "-1e300::double": -1e300,
    "'a\"b,c'": 'a"b,c',
    "'é😀'": "é😀",
    "'\\xAA\\x00'::blob": "aa00",
    "'0101'::bit": "0101",
    "date '2024-02-29'": "2024-02-29",
    "date '290000-01-31'": "290000-01-31",
    "date '-0043-03-15'": "0044-03-15 (BC)",
    "date '-5877641-06-25'": "5877642-06-25 (BC)",
    "'infinity'::date": "infinity",
    "'-infinity'::date": "-infinity",
    "time '12:34:56.789012'": "12:34:56.789012",
    "time '24:00:00'": "24:00:00",
    "time_ns '12:34:56.123456789'": "12:34:56.123456789",
    "timetz '12:34:56+05:30'": "12:34:56+05:30",
    "timestamp '1969-12-31 23:59:59.999999'": "1969-12-31 23:59:59.999999",
    "timestamp_s '2024-02-29 12:34:56'": "2024-02-29 12:34:56",
    "timestamp_ms '2024-02-29 12:34:56.789'": "2024-02-29 12:34:56.789000",
    "timestamp_ns '2024-02-29 12:34:56.789012345'": "2024-02-29 12:34:56.789012345",
    "timestamp_ns '1969-12-31 23:59:59.999999999'": "1969-12-31 23:59:59.999999999",
    "timestamptz '2024-02-29 12:34:56+02'": "2024-02-29 10:34:56+00:00",
    "timestamp '290000-01-01 01:02:03'": "290000-01-01 01:02:03",
    "timestamp '-0001-01-01 01:02:03.5'": "0002-01-01 01:02:03.5 (BC)",
    "'-infinity'::timestamp": "-infinity",
    "interval '14 months 3 days 4 hours 5.5 seconds'": "1 year 2 months 3 days 04:00:05.5",
    "interval '-1 day -30 seconds'": "-1 day -00:00:30",
    "interval '0 days'": "00:00:00",
    "uuid '12345678-1234-5678-1234-567812345678'": "12345678-1234-5678-1234-567812345678",
    "'b'::enum('a', 'b')": "b",
    "[1, null, 3]": [1, None, 3],
    "[]": [],
    "[1.50::decimal(3, 2)]": [Decimal("1.50")],
    "array_value(1, 2)": [1, 2],
    "[[1], null, []]": [[1], None, []],
    "[interval '1 day', null]": ["1 day", None],
    "{'a': timestamp_ns '2024-02-29 12:34:56.789012345'}": {
        "a": "2024-02-29 12:34:56.789012345"
    },
    "{'a': 1, 'b': [date '2024-01-01', date '290000-01-01']}": {
        "a": 1,
        "b": ["2024-01-01", "290000-01-01"],
    },
    "{'a b': 5::uhugeint, 'c': ['1'::bit]}": {"a b": "5", "c": ["1"]},
    "map {'k': 1.5::decimal(2, 1)}": {"k": Decimal("1.5")},
    "map {}": {},
    "map {1: 'x'}": {"1": "x"},
    "map {[1]: 'x'}": [[[1], "x"]],
    "map {'k': time '24:00:00'}": {"k": "24:00:00"},
    "union_value(num := 2)": 2,
    "union_value(num := 2::uhugeint)": "2",
    "'{\"a\": [1]}'::json": '{"a": [1]}',
    "{'a': 1}::variant": '{"a":1}',
    "row(1, 'x')": {"element1": 1, "element2": "x"},
    "'nan'::double": None,
    "'-inf'::float": None,
    "{'a': ['nan'::float]}": {"a": [None]},
}


def no_json(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    import plstore

    store = plstore.create(tmp_path_factory.mktemp("types") / "store")
    columns = [f"{sql} as c{n}" for n, sql in enumerate(CASES)]
    return rows_of(run_sql(store, f"select {', '.join(columns)}"))


def test_json_has_the_right_value_of_every_type(rows: list[dict[str, Any]]) -> None:
    text = render(rows, "json")
    (row,) = json.loads(text, parse_constant=no_json, parse_float=Decimal)

    for value, (sql, wanted) in zip(row.values(), CASES.items(), strict=True):
        exact = Decimal(repr(wanted)) if isinstance(wanted, float) else wanted
        assert value == exact, sql
        if isinstance(wanted, Decimal):
            assert format(value, "f") == format(wanted, "f"), sql


def test_csv_has_it_too_with_json_where_it_is_nested(rows: list[dict[str, Any]]) -> None:
    _, cells = csv.reader(io.StringIO(render(rows, "csv")))

    for cell, (sql, wanted) in zip(cells, CASES.items(), strict=True):
        if "nan" in sql or "inf'" in sql or wanted is None:
            continue
        if isinstance(wanted, list | dict):
            assert json.loads(cell, parse_float=Decimal, parse_constant=no_json) == wanted, sql
        elif isinstance(wanted, Decimal):
            assert cell == format(wanted, "f"), sql
        else:
            assert cell == str(wanted), sql


def test_a_table_has_it_too(rows: list[dict[str, Any]]) -> None:
    for name, (sql, wanted) in zip(rows[0], CASES.items(), strict=True):
        cell = render(rows, "table", columns=[name]).splitlines()[1].strip()
        if isinstance(wanted, Decimal):
            assert cell == format(wanted, "f"), sql
        elif isinstance(wanted, int) or (isinstance(wanted, str) and "blob" not in sql):
            assert cell == str(wanted), sql
        elif isinstance(wanted, list | dict) and "nan" not in sql:
            assert json.loads(cell, parse_float=Decimal) == wanted, sql


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_json_has_no_number_for_is_null(store: Store, value: str) -> None:
    rows = rows_of(run_sql(store, f"select '{value}'::double as x, ['{value}'::float] as y"))

    read = json.loads(render(rows, "json"), parse_constant=no_json)
    assert read == [{"x": None, "y": [None]}]
    assert render(rows, "csv").splitlines() == ["x,y", f"{value},[null]"]


def test_a_column_of_nulls_stays_one(store: Store) -> None:
    sql = "select * from (values (null::interval, null::uhugeint, null::map(integer, time))) t"

    assert list(rows_of(run_sql(store, sql))[0].values()) == [None, None, None]
