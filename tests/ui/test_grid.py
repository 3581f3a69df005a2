from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from plstore.errors import InputError
from plstore.report.snapshot import Snapshot
from plstore.ui import grid
from plstore.ui.address import Address
from plstore.ui.grid import find_images, ids_of, read_filters, tiles


def asked(snapshot: Snapshot, **given: str) -> list[int]:
    filters = read_filters(snapshot, Address("/grid", given))
    return find_images(snapshot, filters).sample_ids


def labels(
    snapshot: Snapshot, teacher: str = "t1", split: str = "unlabeled"
) -> list[dict[str, Any]]:
    rows = snapshot.store.table("soft_labels").read().to_pylist()
    return [r for r in rows if (r["teacher_id"], r["split"]) == (teacher, split)]


def margin(row: dict[str, Any]) -> float:
    probs = row["label"]["probs"]
    return float(probs[0] - probs[1])


def test_the_newest_labels_are_shown_the_surest_first(snapshot: Snapshot) -> None:
    rows = sorted(labels(snapshot), key=lambda r: (-r["confidence"], r["sample_id"]))

    assert asked(snapshot) == [r["sample_id"] for r in rows]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"class": "dog"}, lambda r: r["class_id"] == 1),
        ({"class": "1"}, lambda r: r["class_id"] == 1),
        ({"low": "0.6"}, lambda r: r["confidence"] > 0.6),
        ({"low": "0.5", "high": "0.8"}, lambda r: 0.5 < r["confidence"] <= 0.8),
        ({"margin": "0.2"}, lambda r: margin(r) <= 0.2),
        ({"entropy": "0.9"}, lambda r: r["entropy"] >= 0.9),
    ],
)
def test_filters_keep_what_they_say(
    snapshot: Snapshot, given: dict[str, str], wanted: Callable[[dict[str, Any]], bool]
) -> None:
    expected = {r["sample_id"] for r in labels(snapshot) if wanted(r)}

    assert 0 < len(expected) < 60
    assert set(asked(snapshot, **given)) == expected


def test_labels_are_compared_with_earlier_ones(snapshot: Snapshot) -> None:
    before = {r["sample_id"]: r["class_id"] for r in labels(snapshot, "t0")}
    now = {r["sample_id"]: r["class_id"] for r in labels(snapshot)}
    flipped = {i for i in now if now[i] != before[i]}

    assert set(asked(snapshot, against="t0@1", change="flipped")) == flipped
    assert set(asked(snapshot, against="t0@1", change="same")) == now.keys() - flipped
    cell = asked(snapshot, against="t0@1", other="cat", **{"class": "owl"})
    assert set(cell) == {i for i in now if (before[i], now[i]) == (0, 2)} != set()
    most = asked(snapshot, against="t0@1", sort="disagreement")
    assert set(most) == now.keys() != set(asked(snapshot, against="t0@1", divergence="0.1"))


def test_labels_are_compared_with_what_people_say(snapshot: Snapshot) -> None:
    images = snapshot.store.table("images").read(columns=["sample_id", "label"]).to_pylist()
    known = {r["sample_id"]: r["label"] for r in images}
    wrong = {
        r["sample_id"]
        for r in labels(snapshot, split="validation")
        if r["class_id"] != known[r["sample_id"]]
    }

    assert wrong
    assert set(asked(snapshot, split="validation", against="known", change="flipped")) == wrong


def test_decisions_and_views_are_filters_too(decided: Snapshot) -> None:
    snapshot = decided
    rows = snapshot.store.table("view_rows").read().to_pylist()
    inside = {r["sample_id"] for r in rows if r["view"] == "second" and r["kind"] == "pseudo"}

    assert set(asked(snapshot, excluded="only")) == {12, 13}
    assert len(asked(snapshot, excluded="no")) == 58
    assert asked(snapshot, corrected="only") == [14]
    assert set(asked(snapshot, view="second@1")) == inside
    assert len(asked(snapshot, view="second@x")) == 60
    assert set(asked(snapshot, labels="none", split="labeled")) == set(range(12))


def test_of_many_images_a_page_is_read_and_one_past_the_last_is_the_last(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "PAGE", 25)
    filters = read_filters(snapshot, Address("/grid", {"page": "999", "sort": "id"}))
    found = find_images(snapshot, filters)

    assert (found.total, found.first, len(found.sample_ids)) == (60, 50, 10)
    assert found.num_pages == 3


def test_words_that_name_nothing_are_as_if_not_given(snapshot: Snapshot) -> None:
    given = {"class": "wolf", "low": "x", "sort": "'; drop", "against": "t9@9", "page": "-1"}

    assert asked(snapshot, **given) == asked(snapshot)
    assert asked(snapshot, labels="t9@9", split="'; --") == asked(snapshot, labels="none")


def test_a_query_gives_images_and_their_order(snapshot: Snapshot) -> None:
    ids = ids_of(pa.table({"sample_id": [30, 14, 30, None, 22]}))
    filters = grid.Filters(labels=snapshot.labels("unlabeled")[-1], ids=ids)

    assert find_images(snapshot, filters).sample_ids == [30, 14, 22]
    with pytest.raises(InputError, match="wanted a column sample_id"):
        ids_of(pa.table({"n": [1]}))


def test_tiles_say_what_is_known_of_images(decided: Snapshot) -> None:
    snapshot = decided
    filters = read_filters(snapshot, Address("/grid", {"against": "t0@1"}))
    said = {t.sample_id: t for t in tiles(snapshot, filters, [14, 12, 999_999])}
    now = {r["sample_id"]: r for r in labels(snapshot)}
    before = {r["sample_id"]: r for r in labels(snapshot, "t0")}

    assert list(said) == [14, 12, 999_999]
    assert said[12].is_excluded
    assert not said[14].is_excluded
    assert said[14].corrected_name == "owl"
    assert said[12].class_name == ("cat", "dog", "owl")[now[12]["class_id"]]
    assert said[12].other_name == ("cat", "dog", "owl")[before[12]["class_id"]]
    assert said[12].confidence == now[12]["confidence"]
    assert (said[999_999].key, said[999_999].class_name) == ("gone", None)
