"""What someone decided is a note, what is wrong is a fault."""

from pathlib import Path

import pytest

import plstore
from plstore.images import ImageRecord, import_images
from plstore.query import audit, run_query
from plstore.store import Store, add_tag
from plstore.upkeep import erase, exclude
from tests.conftest import CLASS_NAMES, give_labels, make_records

COPIES = "audit/evaluation_images_in_training"
DELETIONS = "audit/views_with_deletions"


def found(store: Store, as_of: str | None = None) -> dict[str, tuple[int, int]]:
    """Return faults and notes of audits that found any."""
    audits = audit(store, as_of=as_of)
    return {a.name: (a.faults, a.notes) for a in audits if a.faults or a.notes}


def select(store: Store, view: str = "v", *, held_out: bool = False) -> None:
    chosen = plstore.Selection(
        view=view,
        teachers=["t0"],
        balance=plstore.Balance(policy="none", min_confidence=0.0),
        held_out=held_out,
    )
    plstore.select(store, chosen)


@pytest.fixture
def leaky(tmp_path: Path) -> Store:
    """Make a store in which an unlabeled image is a test image, too."""
    records = make_records()
    test = next(r for r in records if r.split == "test")
    copy = ImageRecord(key="unlabeled/copy.png", split="unlabeled", data=test.data, label=None)
    store = plstore.create(tmp_path / "store")
    import_images(store, [*records, copy], dataset="pets", class_names=CLASS_NAMES)
    give_labels(store)
    return store


def test_a_deletion_is_a_note(store: Store) -> None:
    give_labels(store)
    select(store)
    erase(store, [20, 21], reason="asked for")

    assert found(store) == {DELETIONS: (0, 1)}


def test_copies_that_selections_leave_out_are_a_note(leaky: Store) -> None:
    select(leaky)

    assert found(leaky) == {COPIES: (0, 1)}


def test_copies_that_were_asked_for_are_a_note(leaky: Store) -> None:
    select(leaky, held_out=True)
    (row,) = run_query(leaky, "audit/evaluation_images_in_training").to_pylist()

    assert plstore.open_view(leaky, "v").record.parameters["held_out"] is True
    assert found(leaky) == {COPIES: (0, 1)}
    assert row["trained_in"] is None


def test_a_copy_that_came_later_is_a_fault_until_the_view_is_selected_again(
    store: Store,
) -> None:
    give_labels(store)
    select(store)
    photo = next(r for r in make_records() if r.split == "unlabeled")
    late = ImageRecord(key="late.png", split="test", data=photo.data, label="cat")
    add_tag(store, "before")
    import_images(store, [late], dataset="more", class_names=CLASS_NAMES)
    (row,) = run_query(store, "audit/evaluation_images_in_training").to_pylist()
    then = found(store)
    select(store)

    assert (row["trained_in"], row["finding"]) == (["v"], "fault")
    assert then == {COPIES: (1, 0)}
    assert found(store) == {COPIES: (0, 1)}
    assert found(store, "before") == {}


def test_an_exclusion_is_a_fault_of_the_newest_version_alone(store: Store) -> None:
    give_labels(store)
    select(store)
    exclude(store, [20], reason="blurred", who="ann")
    then = found(store)
    select(store)

    assert then == {"audit/excluded_in_views": (1, 0)}
    assert found(store) == {}
