"""Candidates of several teachers, against the plain arithmetic of what was asked."""

from typing import Any

import numpy as np
import pytest

from plstore.errors import InputError, QueryError
from plstore.query import Limits
from plstore.selection import Balance, Rule, Selection, preview, select
from plstore.store import Store
from plstore.upkeep import exclude, verify
from tests.conftest import give_labels

ALL = Balance(policy="none", min_confidence=0.0)


@pytest.fixture
def probs(store: Store) -> list[Any]:
    teachers = [("a", 1), ("b", 2), ("c", 3)]
    return [give_labels(store, name, number) for name, number in teachers]


def chosen(store: Store, rule: Rule, **changes: Any) -> dict[int, tuple[int, float]]:  # noqa: ANN401
    values = {"view": "v", "teachers": ["a", "b", "c"], "balance": ALL, "rule": rule}
    view = select(store, Selection(**{**values, **changes}))
    rows = [row for batch in view.batches() for row in batch.to_pylist()]
    return {
        row["sample_id"]: (row["class_id"], row["confidence"])
        for row in rows
        if row["kind"] == "pseudo"
    }


@pytest.mark.parametrize("least", [1, 2, 3])
def test_at_least_so_many_teachers_agree(store: Store, probs: list[Any], least: int) -> None:
    found = chosen(store, Rule(agree=least))
    expected: dict[int, Any] = {}
    for n in range(60):
        votes = [int(p[n].argmax()) for p in probs]
        sure = [float(p[n].max()) for p in probs]
        groups = {
            c: [s for v, s in zip(votes, sure, strict=True) if v == c] for c in set(votes)
        }
        best = max(groups, key=lambda c: (len(groups[c]), np.mean(groups[c]), -c))
        if len(groups[best]) >= least:
            expected[12 + n] = (best, pytest.approx(np.mean(groups[best]), rel=1e-6))

    assert found == expected
    assert not verify(store)


@pytest.mark.usefixtures("probs")
def test_the_label_is_that_of_a_teacher_that_agrees(store: Store) -> None:
    view = select(
        store,
        Selection(view="v", teachers=["a", "b", "c"], balance=ALL, rule=Rule(agree=2)),
    )
    rows = [row for batch in view.batches() for row in batch.to_pylist()]

    for row in rows:
        if row["kind"] == "pseudo":
            assert row["label"]["class_ids"][0] == row["class_id"]


def test_sql_over_the_columns_of_teachers_decides(store: Store, probs: list[Any]) -> None:
    rule = Rule(
        where="x.class_id = y.class_id and x.entropy < 0.9",
        confidence="least(x.confidence, y.confidence)",
    )
    found = chosen(store, rule, teachers=["x=a", "y=b@2"])
    a, b = probs[0], probs[1]
    entropy = -(a * np.log(a)).sum(axis=1)
    same = (a.argmax(axis=1) == b.argmax(axis=1)) & (entropy < 0.9)
    lower = np.minimum(a.max(axis=1), b.max(axis=1))

    assert {n - 12: c for n, (_, c) in found.items()} == {
        int(n): pytest.approx(float(lower[n])) for n in np.flatnonzero(same)
    }


def test_functions_of_labels_may_be_asked(store: Store, probs: list[Any]) -> None:
    found = chosen(store, Rule(where="js(a.label, b.label) < 0.1"), teachers=["a", "b"])
    p, q = (rows.astype(np.float64) for rows in probs[:2])
    middle = (p + q) / 2
    js = (p * np.log(p / middle) + q * np.log(q / middle)).sum(axis=1) / 2

    assert sorted(found) == [12 + int(n) for n in np.flatnonzero(js < 0.1)] != []


@pytest.mark.usefixtures("probs")
def test_one_teacher_may_be_filtered_by_sql_too(store: Store) -> None:
    rule = Rule(confidence="a.label.probs[1] - a.label.probs[2]")
    counts = preview(store, Selection(view="v", teachers=["a"], rule=rule, balance=ALL))

    assert counts["kept"] == 60


@pytest.mark.usefixtures("probs")
def test_every_image_is_counted(store: Store) -> None:
    exclude(store, [12], reason="blurred", who="ann")
    rule = Rule(agree=3)
    counts = preview(
        store, Selection(view="v", teachers=["a", "b", "c"], rule=rule, balance=ALL)
    )

    assert counts["in"] == 60 == counts["kept"] + sum(counts["dropped"].values())
    assert counts["dropped"]["excluded"] == 1
    assert counts["dropped"]["no_agreement"] > 0


@pytest.mark.usefixtures("probs")
@pytest.mark.parametrize(
    ("teachers", "rule", "words"),
    [
        (["a", "b"], Rule(), "2 teachers and no rule"),
        (["a", "b"], Rule(agree=3), "agreement of at least 3 of 2 teachers"),
        (["a", "b"], Rule(agree=2, where="true"), "both agree and SQL"),
        (["a", "a"], Rule(agree=2), "wanted one or more, each once"),
        (["A B=a", "b"], Rule(agree=2), "alias 'A B' may hold only"),
        (["a@x"], Rule(), "wanted \\[ALIAS=\\]TEACHER"),
        (["z"], Rule(), "no labels by 'z'"),
        (["a", "b"], Rule(where="z.confidence > 0"), "z"),
        (["a", "b"], Rule(where="true; drop table x"), "."),
        (["a", "b"], Rule(where="1 in (select 1 from read_text('/etc/passwd'))"), "subquery"),
        (["a", "b"], Rule(confidence="2 * a.confidence"), "expression for confidence gives"),
        (["a", "b"], Rule(confidence="null"), "expression for confidence gives"),
        (["a"], Rule(where="a.confidence > (select 0.5)"), "has a subquery"),
        (["a"], Rule(confidence="percent_rank() over (order by a.confidence)"), "has a window"),
        (["a"], Rule(where="random() > 0.5"), "another one each time"),
        (["left=a"], Rule(where="true"), "alias 'left' may hold"),
        (["standing=a"], Rule(where="true"), "alias 'standing' may hold"),
        (["a", "b"], Rule(class_id="7"), "expression for class_id gives 7 to 7"),
        (["a"], Rule(where="1 = 1) or (1 = 1"), "its parentheses closed"),
        (["a"], Rule(where="true) union select 1, 2, 3, null where (true"), "closed"),
        (["a"], Rule(where="true /* a note"), "unterminated"),
        (["a"], Rule(where="true; select 1"), "no ';' in it"),
        (["a"], Rule(where=""), "cannot parse the expression ''"),
        (["a"], Rule(where="-- a note"), "cannot parse the expression"),
        (["a"], Rule(confidence="0.5, 0.5"), "is several; wanted one"),
        (["a"], Rule(confidence="0.5 as sure"), "cannot parse"),
        (["a"], Rule(confidence="0.5 from a"), "cannot parse"),
        (["a"], Rule(confidence="0.5) as x, (0.5"), "closed"),
        (["a"], Rule(where="a.confidence > $least"), "has a parameter"),
        (["a"], Rule(where="columns(*) is not null"), "has '\\*'"),
        (["a"], Rule(class_id="unnest([0, 1])"), "several rows for one image"),
        (["a"], Rule(where="current_date > '2020-01-01'"), "another one each time"),
    ],
)
def test_what_cannot_be_is_said(
    store: Store, teachers: list[str], rule: Rule, words: str
) -> None:
    with pytest.raises((InputError, QueryError), match=words):
        preview(store, Selection(view="v", teachers=teachers, rule=rule, balance=ALL))


def test_the_label_follows_the_class_that_is_chosen(store: Store, probs: list[Any]) -> None:
    rule = Rule(class_id="case when a.sample_id < 30 then b.class_id else 1 end")
    view = select(store, Selection(view="v", teachers=["a", "b"], rule=rule, balance=ALL))
    rows = [row for batch in view.batches() for row in batch.to_pylist()]
    pseudo = [row for row in rows if row["kind"] == "pseudo"]

    assert all(row["label"]["class_ids"][0] == row["class_id"] for row in pseudo)
    assert {row["class_id"] for row in pseudo if row["sample_id"] >= 30} == {1}
    assert len(probs) == 3


def test_a_confidence_of_0_is_no_candidate(store: Store, probs: list[Any]) -> None:
    rule = Rule(confidence="case when a.class_id = 1 then 0.0 else a.confidence end")
    counts = preview(store, Selection(view="v", teachers=["a"], rule=rule, balance=ALL))
    ones = int((probs[0].argmax(axis=1) == 1).sum())

    assert counts["kept"] == 60 - ones
    assert counts["dropped"] == {"not_in_rule": ones}


@pytest.mark.usefixtures("probs")
def test_expressions_may_end_in_comments_and_a_semicolon(store: Store) -> None:
    plain = {"where": "a.confidence > 0.5", "class_id": "a.class_id", "confidence": "0.9"}
    ends = ["", " -- a note", " -- it's ) or (", "\n-- a note\n", " /* a ; note */", " ; \n"]
    found = []
    for end in ends:
        rule = Rule(**{name: f"{text}{end}" for name, text in plain.items()})  # type: ignore[arg-type]  # all of them text
        selection = Selection(view="v", teachers=["a"], rule=rule, balance=ALL)
        found.append(preview(store, selection))

    assert 0 < found[0]["kept"] < 60
    assert all(counts == found[0] for counts in found)


@pytest.mark.usefixtures("probs")
def test_expressions_are_held_to_limits(store: Store) -> None:
    rule = Rule(where="pg_sleep(0.02 + a.class_id * 0) is null")
    selection = Selection(view="v", teachers=["a"], rule=rule, limits=Limits(seconds=0.2))
    with pytest.raises(QueryError, match=r"ran longer than 0\.2 s and was stopped"):
        preview(store, selection)
