import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from plstore.errors import InputError
from plstore.report.snapshot import Snapshot
from plstore.store import Store
from plstore.ui.grid import Filters, find_images
from plstore.ui.one_image import beside, image_facts, nearest, why_not
from plstore.upkeep import exclude
from tests.conftest import give_embeddings
from tests.looked_at import select


def test_all_labels_of_an_image_are_told_the_newest_first(snapshot: Snapshot) -> None:
    facts = image_facts(snapshot, 20)
    rows = [
        r
        for r in snapshot.store.table("soft_labels").read().to_pylist()
        if r["sample_id"] == 20
    ]

    assert [(s.iteration, s.teacher_id) for s in facts.said] == [(2, "t1"), (1, "t0")]
    for said, row in zip(facts.said, sorted(rows, key=lambda r: -r["iteration"]), strict=True):
        assert said.top[0][0] == ("cat", "dog", "owl")[row["class_id"]]
        assert sum(p for _, p in said.top) + said.rest == pytest.approx(1, abs=2e-3)


def test_reasons_why_images_are_not_in_a_view_are_those_that_were_counted(
    snapshot: Snapshot,
) -> None:
    views = {
        f"{r['view']}@{r['version']}": r
        for r in snapshot.store.table("views").read().to_pylist()
    }
    found: dict[str, Counter[str]] = {key: Counter() for key in views}
    for sample_id in range(12, 72):
        for held in image_facts(snapshot, sample_id).views:
            word = "kept" if held.is_in else held.why.partition(":")[0]
            found[held.key][word] += 1
    for key, view in views.items():
        counts = json.loads(view["counts"])
        dropped = counts["dropped"]

        assert found[key] == Counter(
            {
                "kept": counts["kept"],
                "low confidence": dropped.get("low_confidence", 0),
                "over the quota of its class": dropped.get("over_quota", 0),
            }
        )


def test_decisions_are_told_with_who_and_why(decided: Snapshot) -> None:
    excluded, corrected = image_facts(decided, 12), image_facts(decided, 14)

    assert excluded.is_excluded
    assert [(d.who, d.what, d.detail) for d in excluded.decisions] == [
        ("ann", "excluded", "blurred")
    ]
    assert corrected.corrected_name == "owl"
    assert [(d.what, d.detail) for d in corrected.decisions] == [("corrected", "owl")]


def test_an_image_that_is_not_there_is_refused(snapshot: Snapshot) -> None:
    with pytest.raises(InputError, match=r"no image 9999 in .*there are 84"):
        image_facts(snapshot, 9999)


@pytest.mark.parametrize(
    ("image", "parameters", "why"),
    [
        ({"verdict": "truncated"}, {}, "refused at import: truncated"),
        ({"split": "test"}, {}, "held out: test"),
        ({}, {"teachers": ["other@1"]}, "not labeled by its teachers"),
        ({}, {"teachers": ["t0@1", "t1@1"], "agree": 2}, "do not agree"),
    ],
)
def test_a_view_without_an_image_says_why(
    image: dict[str, str], parameters: dict[str, object], why: str
) -> None:
    row = {"verdict": "accepted", "split": "unlabeled", **image}
    view = {"query": "balance/exact", "parameters": json.dumps(parameters), "counts": "{}"}
    label = {"teacher_id": "t0", "iteration": 1, "confidence": 0.9}

    assert why in why_not(view, row, [label], [])


def test_a_decision_of_later_is_no_reason() -> None:
    made = datetime(2026, 1, 2, tzinfo=UTC)
    row = {"verdict": "accepted", "split": "unlabeled"}
    view = {"query": "balance/exact", "parameters": "{}", "counts": "{}", "created_at": made}
    before, after = (
        {"what": "excluded", "decided_at": made + timedelta(days=days)} for days in (-1, 1)
    )

    assert why_not(view, row, [], [before]) == "excluded by a person"
    assert why_not(view, row, [], [after]) == "not labeled by its teachers"


def test_neighbours_are_those_of_the_grid(snapshot: Snapshot) -> None:
    filters = Filters(labels=snapshot.labels("unlabeled")[-1])
    ids = find_images(snapshot, filters).sample_ids
    first, middle = (beside(snapshot, filters, ids[n]) for n in (0, 5))

    assert (first.before, first.after, first.place) == (None, ids[1], 1)
    assert (middle.before, middle.after, middle.place, middle.total) == (ids[4], ids[6], 6, 60)
    assert beside(snapshot, filters, 0).place is None


def test_the_nearest_are_found_where_there_are_embeddings(own: Store) -> None:
    assert nearest(Snapshot(own), 20) == []
    give_embeddings(own)
    found = nearest(Snapshot(own), 20, most=5)

    assert len(found) == 5
    assert 20 not in dict(found)
    assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)


def test_an_excluded_image_is_not_in_later_views_for_that_reason(own: Store) -> None:
    inside = own.table("view_rows").read(columns=["sample_id"])["sample_id"].to_pylist()
    left = next(i for i in range(12, 72) if i not in inside)
    exclude(own, [left], reason="blurred", who="ann")
    select(own, "third", "t0@1")
    whys = {held.key: held.why for held in image_facts(Snapshot(own), left).views}

    assert whys.pop("third@1") == "excluded by a person"
    assert "excluded by a person" not in whys.values()
