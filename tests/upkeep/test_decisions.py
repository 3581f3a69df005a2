import pytest

import plstore
from plstore.errors import InputError
from plstore.store import Store
from plstore.upkeep import correct, corrected_labels, exclude, take_back
from plstore.views import View
from tests.conftest import give_labels


def view_of(store: Store) -> View:
    balance = plstore.Balance(min_confidence=0.0, images_per_class=99, seed=0)
    return plstore.select(
        store,
        plstore.Selection(view="v", teachers=["t0@1"], balance=balance),
    )


def rows_of(view: View) -> dict[int, tuple[str, int]]:
    return {
        row["sample_id"]: (row["kind"], row["class_id"])
        for batch in view.batches()
        for row in batch.to_pylist()
    }


def test_excluded_images_are_not_trained_on_labeled_or_not(store: Store) -> None:
    give_labels(store)
    added = exclude(store, [3, 20, 20], reason="blurred", who="ann")
    again = exclude(store, [20], reason="blurred", who="bob")
    chosen = rows_of(view_of(store))

    assert (added, again) == (2, 0)
    assert not {3, 20} & chosen.keys()
    assert len(chosen) == 70


def test_the_last_correction_of_an_image_is_what_it_is_trained_on_as(store: Store) -> None:
    give_labels(store)
    first = correct(store, {3: "owl", 20: "dog"}, who="ann")
    second = correct(store, {3: "owl", 20: "owl"}, who="bob")
    chosen = rows_of(view_of(store))

    assert (first, second) == (2, 1)
    assert chosen[3] == ("labeled", 2)
    assert chosen[20] == ("labeled", 2)


def test_decisions_on_unknown_images_or_classes_write_nothing(store: Store) -> None:
    before = store.versions()
    with pytest.raises(InputError, match=r"1 of 2 images are not in .* such as sample_id 5000"):
        exclude(store, [3, 5000], reason="", who="ann")
    with pytest.raises(InputError, match="classes cow are not in the store"):
        correct(store, {3: "cow"}, who="ann")

    assert store.versions() == before


def test_what_one_person_decided_last_is_taken_back_and_what_others_did_stays(
    store: Store,
) -> None:
    correct(store, {3: "owl", 20: "dog"}, who="ann")
    correct(store, {3: "cat", 4: "dog"}, who="bob")
    correct(store, {3: "dog"}, who="ann")
    version = store.table("corrections").version()

    assert take_back(store, "corrections", [3, 4, 5], who="ann") == 1
    assert corrected_labels(store) == {3: 0, 4: 1, 20: 1}
    assert take_back(store, "corrections", [3], who="ann") == 1
    assert corrected_labels(store) == {3: 0, 4: 1, 20: 1}
    assert take_back(store, "corrections", [3], who="ann") == 0
    assert corrected_labels(store, version) == {3: 1, 4: 1, 20: 1}
    assert plstore.verify(store) == []


def test_decisions_are_taken_back_from_files_that_were_merged_too(store: Store) -> None:
    exclude(store, [3], reason="blurred", who="ann")
    exclude(store, [4], reason="blurred", who="ann")
    plstore.compact(store)

    assert take_back(store, "exclusions", [3], who="ann") == 1
    assert store.table("exclusions").read()["sample_id"].to_pylist() == [4]
