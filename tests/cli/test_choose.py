"""Choosing what a student sees, as people type it."""

from dataclasses import replace

from plstore.store import Store, import_images
from tests.cli.test_verbs import rows
from tests.conftest import CLASS_NAMES, give_labels, make_records


def test_select_says_what_is_left_out_because_it_is_held_out(store: Store) -> None:
    test = next(r for r in make_records() if r.split == "test")
    copies = [
        replace(test, key="pool", split="unlabeled", label=None),
        replace(test, key="own", split="labeled"),
    ]
    import_images(store, copies, dataset="more", class_names=CLASS_NAMES)
    give_labels(store)
    words = ["--teacher", "t0", "--policy", "none", "--min-confidence", "0"]

    found = {row["what"]: row["n"] for row in rows(store, "select", "v", *words)}
    assert found["dropped: held_out"] == found["labeled, dropped: held_out"] == 1
    assert found["images"] == 12 + 60
    found = {row["what"]: row["n"] for row in rows(store, "select", "w", *words, "--held-out")}
    assert found == {"view": "w@1", "images": 74, "draws": 74}
