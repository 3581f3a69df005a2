"""Neighbours and near pairs are those that comparing every pair finds."""

from contextlib import closing
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pytest

from plstore.query import neighbors
from plstore.query.neighbors import create_neighbors

Vectors = npt.NDArray[np.float32]


def ask(sql: str, **values: object) -> list[Any]:
    with closing(duckdb.connect()) as connection:
        create_neighbors(connection)
        return connection.execute(sql, values).fetchall()


def made(count: int, seed: int) -> Vectors:
    return np.random.default_rng(seed).normal(size=(count, 7)).astype(np.float32)


def cosines(ours: Vectors, theirs: Vectors) -> npt.NDArray[np.float64]:
    def units(rows: Vectors) -> npt.NDArray[np.float64]:
        doubles = rows.astype(np.float64)
        return np.asarray(doubles / np.linalg.norm(doubles, axis=1, keepdims=True))

    return np.asarray(units(ours) @ units(theirs).T)


@pytest.fixture(params=[3, 2**22])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare in blocks of one vector, and all at once."""
    monkeypatch.setattr(neighbors, "_BLOCK_FLOATS", request.param)


NEAREST = "select neighbors($a::float[][], $b::float[][], $k)"
PAIRS = "select similar_pairs($a::float[][], $b::float[][], $least)"


@pytest.mark.usefixtures("block")
def test_neighbors_are_the_most_similar_in_order() -> None:
    ours, theirs = made(23, 0), made(31, 1)
    ((found,),) = ask(NEAREST, a=ours.tolist(), b=theirs.tolist(), k=4)
    wanted = cosines(ours, theirs)

    assert len(found) == 23
    for row, expected in zip(found, wanted, strict=True):
        order = np.argsort(-expected)[:4]
        assert [n["place"] for n in row] == (order + 1).tolist()
        assert [n["similarity"] for n in row] == pytest.approx(expected[order], abs=1e-6)


@pytest.mark.usefixtures("block")
def test_pairs_are_all_that_reach_the_cosine() -> None:
    ours, theirs = made(23, 0), made(31, 1)
    ((found,),) = ask(PAIRS, a=ours.tolist(), b=theirs.tolist(), least=0.6)
    wanted = {(int(i) + 1, int(j) + 1) for i, j in np.argwhere(cosines(ours, theirs) >= 0.6)}

    assert {(pair["place"], pair["other"]) for pair in found} == wanted
    assert len(found) == len(wanted) > 5


@pytest.mark.usefixtures("block")
def test_of_equals_the_first_are_taken() -> None:
    ((found,),) = ask(NEAREST, a=[[1.0, 0.0]], b=[[0.0, 1.0]] + [[2.0, 0.0]] * 5, k=3)

    assert [n["place"] for n in found[0]] == [2, 3, 4]


def test_a_cosine_is_never_above_one() -> None:
    rows = (made(64, 3) * 1e3).tolist()
    ((found,),) = ask(NEAREST, a=rows, b=rows, k=1)

    assert [near[0]["place"] for near in found] == list(range(1, 65))
    assert max(near[0]["similarity"] for near in found) <= 1


@pytest.mark.parametrize(
    ("a", "b", "k", "found"),
    [
        ([], [[1.0]], 2, []),
        ([[1.0]], [], 2, [[]]),
        ([[1.0]], [[2.0]], 0, [[]]),
        ([[1.0]], [[2.0]], 5, [[{"place": 1, "similarity": 1.0}]]),
        ([[0.0]], [[2.0]], 1, [[{"place": 1, "similarity": 0.0}]]),
        (None, [[1.0]], 1, None),
    ],
)
def test_few_or_none_are_no_error(
    a: list[list[float]] | None, b: list[list[float]], k: int, found: object
) -> None:
    assert ask(NEAREST, a=a, b=b, k=k) == [(found,)]


def test_each_row_has_an_answer_of_its_own() -> None:
    sql = (
        "select neighbors([[x]], [[1.0], [-1.0]], 1)[1][1]['place'], "
        "len(similar_pairs([[x]], [[1.0], [-1.0]], x)) "
        "from (values (1.0), (-1.0), (2.0)) as rows (x)"
    )

    assert ask(sql) == [(1, 1), (2, 2), (1, 0)]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select neighbors([[1.0, 2.0]], [[1.0]], 1)", "vectors of 2 numbers, compared with"),
        ("select neighbors([[1.0, 2.0], [1.0]], [[1.0]], 1)", "vectors of 2, 1 numbers"),
        ("select neighbors([['nan'::float]], [[1.0]], 1)", "wanted one length, and finite"),
        ("select neighbors([[1.0]], [[1.0]], -1)", "neighbors of k = -1; wanted 0 or more"),
    ],
)
def test_what_cannot_be_compared_is_told(sql: str, message: str) -> None:
    with pytest.raises(duckdb.Error, match=message):
        ask(sql)


def test_too_many_pairs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "MOST_PAIRS", 8)
    rows = [[1.0]] * 3
    with pytest.raises(duckdb.Error, match=r"more than 8 pairs have a cosine of 0\.5 or more"):
        ask(PAIRS, a=rows, b=rows, least=0.5)
