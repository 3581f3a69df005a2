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
