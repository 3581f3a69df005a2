from dataclasses import replace
from pathlib import Path

import pytest

from plstore.errors import InputError
from plstore.images import import_images
from plstore.report.notebook import show
from plstore.selection import select_labeled
from plstore.store import Store, create
from tests.conftest import CLASS_NAMES, give_labels, make_records


def test_images_are_shown_with_their_newest_labels(store: Store) -> None:
    found = give_labels(store)
    gallery = show(store, [20, 12, 4, 999])
    page = gallery._repr_html_()
    titles = [
        f"{CLASS_NAMES[found[n - 12].argmax()]} {found[n - 12].max():.2f}" for n in (20, 12)
    ]

    assert [card.sample_id for card in gallery.cards] == [20, 12, 4]
    assert [card.title for card in gallery.cards] == [*titles, "no label"]
    assert page.count("<img ") == 3
    assert page.count("data:image/png;base64,") == 3
    assert "1 more cannot be had" in page
    assert repr(gallery).splitlines()[0] == f"20  {titles[0]}  {make_records()[20].key}"


def test_rows_of_a_saved_query_are_shown_with_why(store: Store) -> None:
    give_labels(store)
    gallery = show(store, num_images=5)

    assert len(gallery.cards) == 5
    assert {card.note for card in gallery.cards} <= {"torn", "disagreement", "near a cut"}
    with pytest.raises(InputError, match="wanted sample_id among them"):
        show(store, "coverage/labels_per_class")


def test_names_are_text_in_a_notebook(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    records = [replace(record, key=f"{hostile}{record.key}") for record in make_records()]
    store = create(tmp_path / "<b>")
    import_images(store, records, dataset="pets", class_names=CLASS_NAMES)
    give_labels(store)
    view = select_labeled(store, "all")

    for page in (show(store, [12])._repr_html_(), store._repr_html_(), view._repr_html_()):
        assert "<script" not in page
        assert "<b>" not in page
    assert "&lt;script&gt;" in show(store, [12])._repr_html_()
    assert "<td>soft_labels</td><td>60</td>" in store._repr_html_()
    assert f"<td>images</td><td>{view.record.num_images}</td>" in view._repr_html_()
