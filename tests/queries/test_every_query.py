import re
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

import plstore
from plstore.errors import QueryError
from plstore.images import import_images
from plstore.query import SavedQuery, connect, list_queries, run_query, saved_query
from plstore.query.functions import create_functions
from plstore.query.library import parse_query
from plstore.query.parameters import LabelsDefault
from plstore.query.table_macros import create_table_macros
from plstore.store import Store
from tests.conftest import CLASS_NAMES, give_embeddings, give_labels, make_records
from tests.queries.given import cases, connect_given, read_case

QUERIES = list_queries()
SECOND = {"teacher_b": "t1", "iteration_b": 2}
VALUES: dict[str, Any] = {"float": 0.3, "integer": 1, "bigint": 5, "varchar": "t0"}


def names(query: SavedQuery) -> str:
    return query.name


def parameters(query: SavedQuery) -> dict[str, Any]:
    given = [p for p in query.parameters if isinstance(p.default, LabelsDefault | None)]
    values = {p.name: VALUES[p.type] for p in given}
    values |= {n: v for n, v in SECOND.items() if n in values}
    return query.check_parameters(values)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return plstore.create(tmp_path_factory.mktemp("empty") / "store")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with labels of two teachers, a view and embeddings, which tests only read."""
    store = plstore.create(tmp_path_factory.mktemp("given") / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    give_labels(store, "t0", 1)
    give_labels(store, "t1", 2)
    balance = plstore.Balance(min_confidence=0.4, images_per_class=7)
    plstore.select(store, plstore.Selection(view="v", teachers=["t0"], balance=balance))
    give_embeddings(store)
    return store


@pytest.mark.parametrize("query", QUERIES, ids=names)
def test_it_is_one_select_whose_columns_are_as_its_header_says(
    query: SavedQuery, empty: Store
) -> None:
    statements = duckdb.extract_statements(query.sql)
    with closing(connect(empty)) as connection:
        relation = connection.sql(query.sql, params={p.name: None for p in query.parameters})
        found = [
            (name, str(kind).lower())
            for name, kind in zip(relation.columns, relation.types, strict=True)
        ]

    assert [statement.type for statement in statements] == [duckdb.StatementType.SELECT]
    assert found == [(column.name, column.type) for column in query.columns]


@pytest.mark.parametrize("query", QUERIES, ids=names)
def test_an_empty_store_answers_with_no_rows(query: SavedQuery, empty: Store) -> None:
    assert run_query(empty, query.name, **parameters(query)).num_rows == 0


@pytest.mark.parametrize("query", QUERIES, ids=names)
def test_it_runs_with_nothing_given(query: SavedQuery, empty: Store, given: Store) -> None:
    rows = run_query(given, query.name)

    assert rows.column_names == [column.name for column in query.columns]
    assert run_query(empty, query.name).num_rows == 0


@pytest.mark.nightly
@pytest.mark.parametrize("query", QUERIES, ids=names)
def test_rows_come_in_one_order_on_any_number_of_threads(
    query: SavedQuery, given: Store
) -> None:
    answers = []
    for threads in (1, 8):
        with closing(duckdb.connect(config={"threads": threads})) as connection:
            for name in given.versions():
                connection.register(name, given.table(name).dataset())
            create_functions(connection, 3)
            create_table_macros(connection)
            sql = connection.sql(query.sql, params=parameters(query))
            answers.append(sql.to_arrow_table())

    assert answers[0].equals(answers[1])


@pytest.mark.parametrize("path", cases(), ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.parametrize("reverse", [False, True])
def test_it_answers_its_case(path: Path, reverse: bool) -> None:
    case = read_case(path)
    query = saved_query(f"{path.parent.name}/{path.stem}")
    with closing(connect_given(case["given"], reverse=reverse)) as connection:
        values = query.check_parameters(case.get("params", {}))
        rows = connection.sql(query.sql, params=values).to_arrow_table().to_pylist()
    columns = [column.name for column in query.columns]
    expected = [{name: row.get(name) for name in columns} for row in case["expect"]]

    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        numbers = {name: v for name, v in wanted.items() if isinstance(v, float)}
        assert {name: row[name] for name in numbers} == pytest.approx(numbers, rel=1e-6)
        assert {**row, **numbers} == wanted


def test_every_query_has_a_case_that_expects_rows() -> None:
    with_rows = {f"{p.parent.name}/{p.stem}" for p in cases() if read_case(p)["expect"]}

    assert with_rows == {query.name for query in QUERIES}


AUDITS = [query for query in QUERIES if query.name.startswith("audit/")]


@pytest.mark.parametrize("query", AUDITS, ids=names)
def test_an_audit_finds_nothing_in_a_sound_store(query: SavedQuery, given: Store) -> None:
    assert run_query(given, query.name).num_rows == 0


def test_the_number_of_questions_is_what_the_documentation_says() -> None:
    folder = Path(__file__).parents[2]
    said = [(folder / name).read_text() for name in ("README.md", "queries/README.md")]

    assert f"# {len(QUERIES)} saved questions" in said[0]
    assert f"\n{len(QUERIES)} questions people ask" in said[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("select 1 as a", "needs a header"),
        (
            "-- S.\n--\n-- grain: one row\n-- column a integer: a\nselect $x as a",
            r"uses the parameters \['x'\] and declares \[\]",
        ),
        (
            "-- S.\n--\n-- grain: a\n-- needs: soft_labels of x\n-- column a float: a\nselect",
            "needs soft labels of 'x'; wanted one of labeled",
        ),
    ],
)
def test_a_query_without_its_promise_is_refused(text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        parse_query("mine/own", text)


def test_every_file_ends_in_a_total_order() -> None:
    folder = Path(__file__).parents[2] / "queries"

    assert len(list(folder.rglob("*.sql"))) == len(QUERIES) >= 24
    last = r"order by\s[\w\s.,]+(limit nullif\(\$num_images, 0\)\s+)?"
    assert all(re.search(rf"{last}\Z", query.sql) for query in QUERIES)
