from collections.abc import Iterator
from contextlib import closing

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from scipy.special import rel_entr
from scipy.stats import entropy as scipy_entropy

from plstore.codec import Codec, decode, encode
from plstore.query import run_sql
from plstore.query.functions import create_functions
from plstore.store import Store
from tests.conftest import give_labels

NUM_CLASSES = 40


@pytest.fixture(params=[Codec(k=5), Codec(name="dense", k=5), Codec(name="hard")])
def codec(request: pytest.FixtureRequest) -> Codec:
    codec: Codec = request.param
    return codec


def test_functions_are_those_of_the_decoded_distributions(codec: Codec) -> None:
    random = np.random.default_rng(0)
    a, b = (random.dirichlet([0.3] * NUM_CLASSES, 50).astype(np.float32) for _ in "ab")
    labels = [encode(rows, codec).labels for rows in (a, b)]
    p, q = (decode(rows, NUM_CLASSES).astype(np.float64) for rows in labels)
    with closing(duckdb.connect()) as connection:
        names = [f"class-{n}" for n in range(NUM_CLASSES)]
        ids = pa.array(range(NUM_CLASSES), pa.int32())
        connection.register("classes", pa.table({"class_id": ids, "name": names}))
        connection.register("t", pa.table({"a": labels[0], "b": labels[1]}))
        create_functions(connection, NUM_CLASSES)
        found = connection.sql(
            "select dense(a) as dense, entropy(a) as entropy, kl(a, b) as kl, js(a, b) as js, "
            "prob(a, 7) as prob, prob(a, a.class_ids[1]) as first, prob(a, 99) as none, "
            "class_name(7) as name from t"
        ).to_arrow_table()
    middle = (p + q) / 2
    js = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=1) / 2
    kl = (p * (np.log(np.maximum(p, 1e-12)) - np.log(np.maximum(q, 1e-12)))).sum(axis=1)

    np.testing.assert_allclose(np.stack(found["dense"].to_pylist()), p, rtol=1e-6)
    np.testing.assert_allclose(found["entropy"], scipy_entropy(p, axis=1), atol=1e-5)
    np.testing.assert_allclose(found["js"], js, atol=1e-5)
    np.testing.assert_allclose(found["kl"], kl, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["prob"], p[:, 7], rtol=1e-5)
    np.testing.assert_allclose(found["first"], p.max(axis=1), rtol=1e-5)
    assert set(found["none"].to_pylist()) == {None}
    assert set(found["name"].to_pylist()) == {"class-7"}


def test_a_label_that_is_null_has_no_values(store: Store) -> None:
    give_labels(store)
    sql = (
        "with halves as (select case when sample_id % 2 = 0 then label end as label "
        "from soft_labels) select count(*) as n, count(entropy(label)) as e, "
        "count(kl(label, label)) as k, count(dense(label)) as d, count(prob(label, 0)) as p "
        "from halves"
    )

    assert run_sql(store, sql).to_pylist() == [{"n": 60, "e": 30, "k": 30, "d": 30, "p": 30}]


def label(ids: str, probs: str, residual: str = "0", tail: str = "null") -> str:
    return (
        f"{{'class_ids': {ids}::integer[], 'probs': {probs}::float[], "
        f"'residual': {residual}::float, 'tail': {tail}::blob}}"
    )


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (label("null", "null"), "no distribution"),
        (label("[]", "[]"), "no distribution"),
        (label("[0, 1]", "[1]"), "2 classes and 1 probabilities"),
        (label("[0]", "null"), "1 classes and 0 probabilities"),
        (label("[null]", "[1]"), "that is null"),
        (label("[0]", "[null]"), "that is null"),
        (label("[0]", "['nan']"), "no distribution"),
        (label("[0, 1]", "[2, -1]"), "no distribution"),
        (label("[0]", "[1]", "'inf'"), "no distribution"),
        (label("[0, 0]", "[0.5, 0.5]"), "a class twice"),
        (label("[0, 0]", "[0.5, 0.5]", "0", "'\\x12\\x01'"), "a class twice"),
        (label("[-1]", "[1]"), "classes -1 to -1; wanted 0 to 2"),
        (label("[3]", "[1]"), "classes 3 to 3; wanted 0 to 2"),
        (label("[2147483647]", "[1]"), "wanted 0 to 2"),
        (label("range(100000)", "[1]"), "100000 classes and 1 probabilities"),
        (label("[0]", "[1]", "0", "''"), "coded tails of 0 bytes"),
        (label("[0]", "[1]", "0", "'abc'"), "do not agree"),
    ],
)
@pytest.mark.parametrize("function", ["dense(l)", "entropy(l)", "kl(l, l)", "js(l, l)"])
def test_a_label_that_is_none_is_refused(
    calling: duckdb.DuckDBPyConnection, function: str, made: str, words: str
) -> None:
    with pytest.raises(duckdb.InvalidInputException, match=words):
        calling.execute(f"select {function} from (select {made} as l)").fetchall()  # noqa: S608


def test_lengths_that_differ_in_a_row_are_seen(calling: duckdb.DuckDBPyConnection) -> None:
    rows = f"(values ({label('[0, 1]', '[1]')}), ({label('[0]', '[0.5, 0.5]')})) as t(l)"
    with pytest.raises(duckdb.InvalidInputException, match="more or fewer classes"):
        calling.execute(f"select entropy(l) from {rows}").fetchall()  # noqa: S608


@pytest.fixture(scope="module")
def calling() -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(duckdb.connect()) as connection:
        ids = pa.array(range(3), pa.int32())
        connection.register("classes", pa.table({"class_id": ids, "name": ["a", "b", "c"]}))
        create_functions(connection, 3)
        yield connection


def test_functions_are_right_of_a_million_classes() -> None:
    many = 1_000_000
    rows = f"select {label('[7]', '[0.5]', '0.5')} as l"
    with closing(duckdb.connect()) as connection:
        connection.execute("create table classes (class_id integer, name varchar)")
        create_functions(connection, many)
        found = connection.execute(
            f"select dense(l)[6:9], len(dense(l)), entropy(l), js(l, l) from ({rows})"  # noqa: S608
        ).fetchall()
    share = np.float32(0.5 / (many - 1))

    assert found[0][0] == pytest.approx([share, share, 0.5, share])
    assert found[0][1] == many
    assert found[0][2:] == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(2e6), 0), rel=1e-3)


def test_more_than_a_list_can_hold_is_said() -> None:
    with closing(duckdb.connect()) as connection:
        connection.execute("create table classes (class_id integer, name varchar)")
        create_functions(connection, 30_000_000)
        rows = f"select {label('[range % 3]', '[1]')} as l from range(100)"  # noqa: S608
        with pytest.raises(duckdb.InvalidInputException, match="ask for fewer rows"):
            connection.execute(f"select count(dense(l)) from ({rows})").fetchall()  # noqa: S608
