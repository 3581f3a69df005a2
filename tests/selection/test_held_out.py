"""Images to train on whose very bytes are in validation or test are left out, and counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plstore
from plstore.errors import InputError
from plstore.images import ImageRecord, import_images
from plstore.query import run_query
from plstore.selection import Balance, Rule, Selection, preview, select, select_labeled
from plstore.selection.held_out import held_out_copies
from plstore.store import Store
from plstore.upkeep import correct, exclude
from tests.conftest import CLASS_NAMES, give_labels, make_records

ALL = Balance(policy="none", min_confidence=0.0)
COPIES = {14, 15, 20}  # unlabeled, of two test images and one of validation
LABELED_COPIES = {3, 7}


@pytest.fixture
def leaky(tmp_path: Path) -> Store:
    """Make a store in which five images to train on are held out too."""
    records = make_records()
    held = {r.key: r for r in records if r.split in {"validation", "test"}}
    (first, second, third, *_) = held.values()
    data = {14: first.data, 15: first.data, 20: third.data, 3: second.data, 7: third.data}
    changed = [
        ImageRecord(
            key=r.key, split=r.split, data=data.get(n, r.data), label=r.label, truth=r.truth
        )
        for n, r in enumerate(records)
    ]
    store = plstore.create(tmp_path / "split=test" / "store")
    import_images(store, changed, dataset="pets", class_names=CLASS_NAMES)
    return store


def ids(view: Any) -> dict[str, set[int]]:  # noqa: ANN401  a view
    rows = [row for batch in view.batches() for row in batch.to_pylist()]
    kinds = {"labeled", "pseudo"}
    return {kind: {r["sample_id"] for r in rows if r["kind"] == kind} for kind in kinds}


def selection(view: str = "v", **changes: Any) -> Selection:  # noqa: ANN401  as they come
    return Selection(**{"view": view, "teachers": ["t0"], "balance": ALL, **changes})


def test_copies_of_held_out_images_are_left_out_and_counted(leaky: Store) -> None:
    give_labels(leaky)
    view = select(leaky, selection())
    counts = view.record.counts

    assert ids(view) == {
        "labeled": set(range(12)) - LABELED_COPIES,
        "pseudo": set(range(12, 72)) - COPIES,
    }
    assert counts["dropped"] == {"held_out": 3}
    assert counts["labeled_dropped"] == {"held_out": 2}
    assert counts["in"] == counts["kept"] + 3 == 60


def test_they_are_taken_where_that_is_asked_for(leaky: Store) -> None:
    give_labels(leaky)
    view = select(leaky, selection(held_out=True))

    assert ids(view) == {"labeled": set(range(12)), "pseudo": set(range(12, 72))}
    assert view.record.counts["dropped"] == {}
    assert "labeled_dropped" not in view.record.counts
    assert select_labeled(leaky, "all", held_out=True).record.num_images == 12


def test_the_first_teacher_does_not_see_them(leaky: Store) -> None:
    view = select_labeled(leaky, "all")

    assert ids(view)["labeled"] == set(range(12)) - LABELED_COPIES
    assert view.record.counts == {"labeled_dropped": {"held_out": 2}}


def test_nothing_changes_where_there_are_none(store: Store) -> None:
    give_labels(store)
    view = select(store, selection())

    assert view.record.num_images == 72
    assert view.record.counts["dropped"] == {}
    assert select_labeled(store, "all").record.counts == {}
    assert held_out_copies(store, store.versions()["images"]).num_rows == 0


DECIDERS: dict[str, dict[str, Any]] = {
    "rule": {"rule": Rule(where="t0.confidence > 0")},
    "agreement": {"rule": Rule(agree=2), "teachers": ["a=t0@1", "b=t1@2"]},
    "query": {
        "query": "selection/class_balanced",
        "balance": Balance(min_confidence=0.0, images_per_class=1000),
    },
    "relabel": {"relabel": "before", "balance": Balance()},
    "exact": {"balance": Balance(min_confidence=0.0, images_per_class=1000)},
}


@pytest.mark.parametrize("decider", DECIDERS)
def test_whatever_decides_does_not_choose_them(leaky: Store, decider: str) -> None:
    first = give_labels(leaky)
    give_labels(leaky, "t1", 2, probabilities=first)
    select(leaky, selection("before", held_out=True))
    view = select(leaky, selection(**DECIDERS[decider]))

    assert ids(view)["pseudo"] == set(range(12, 72)) - COPIES
    assert view.record.counts["dropped"]["held_out"] == 3


def test_the_query_that_ships_keeps_the_same_rows(leaky: Store) -> None:
    give_labels(leaky)
    balance = Balance(min_confidence=0.4, images_per_class=9, seed=3)
    rows = []
    for name, changes in (("a", {}), ("b", {"query": "selection/class_balanced"})):
        view = select(leaky, selection(name, balance=balance, **changes))
        found = [row for batch in view.batches() for row in batch.to_pylist()]
        rows.append([(r["sample_id"], r["class_id"], r["copies"]) for r in found])

    assert rows[0] == rows[1]


def test_decisions_of_people_come_first(leaky: Store) -> None:
    give_labels(leaky)
    exclude(leaky, [14, 3], reason="blurred", who="ann")
    correct(leaky, {15: "owl", 16: "owl"}, who="ann")
    view = select(leaky, selection())

    assert ids(view)["labeled"] == (set(range(12)) | {16}) - LABELED_COPIES
    assert view.record.counts["dropped"] == {"corrected": 1, "excluded": 1, "held_out": 2}
    assert view.record.counts["labeled_dropped"] == {"held_out": 1}


def test_a_labeled_set_that_is_the_test_set_is_said(tmp_path: Path) -> None:
    records = [
        ImageRecord(key=f"{split}/{r.key}", split=split, data=r.data, label=r.label)
        for split in ("labeled", "test")
        for r in make_records(6, 0)[:6]
    ]
    store = plstore.create(tmp_path / "store")
    import_images(store, records, dataset="d", class_names=CLASS_NAMES)

    with pytest.raises(InputError, match=r'is empty: no labeled image.*"held_out":6'):
        select_labeled(store, "all")


def test_what_was_found_is_kept_for_the_files_it_is_of(
    leaky: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = leaky.versions()["images"]
    found = held_out_copies(leaky, version)

    def look(*_: object) -> None:
        raise AssertionError("looked again")

    monkeypatch.setattr("plstore.selection.held_out._find", look)
    assert held_out_copies(leaky, version).equals(found)
    assert set(found["sample_id"].to_pylist()) == COPIES | LABELED_COPIES
    monkeypatch.undo()
    test = next(r for r in make_records() if r.split == "test")
    late = [ImageRecord(key="late", split="test", data=make_records()[30].data, label="cat")]
    import_images(leaky, [*late, test], dataset="more", class_names=CLASS_NAMES)
    later = held_out_copies(leaky, leaky.versions()["images"])

    assert set(later["sample_id"].to_pylist()) == COPIES | LABELED_COPIES | {30}
    assert held_out_copies(leaky, version).equals(found)
    leaky.cache_folder("held-out.parquet").write_bytes(b"PAR1 damaged")
    assert held_out_copies(leaky, version).equals(found)


def test_who_may_only_read_selects_as_well(
    leaky: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("plstore.storage.write_atomically", refuse)

    assert held_out_copies(leaky, leaky.versions()["images"]).num_rows == 5


def test_a_dry_run_counts_them(leaky: Store) -> None:
    give_labels(leaky)

    assert preview(leaky, selection())["dropped"] == {"held_out": 3}


def test_the_audit_names_them(leaky: Store) -> None:
    rows = run_query(leaky, "audit/evaluation_images_in_training").to_pylist()

    assert {row["other_id"] for row in rows} == COPIES | LABELED_COPIES


def test_refused_images_are_copies_of_nothing(
    make_store: Callable[..., Store],
) -> None:
    store = make_store()
    bad = [
        ImageRecord(key=f"bad/{split}", split=split, data=b"no", label=label)
        for split, label in (("test", "cat"), ("unlabeled", None))
    ]
    import_images(store, bad, dataset="pets", class_names=CLASS_NAMES)
    random = np.random.default_rng(0)
    give_labels(store, probabilities=random.dirichlet([1] * 3, 61).astype(np.float32))

    assert select(store, selection()).record.counts["dropped"] == {"not_an_image": 1}
