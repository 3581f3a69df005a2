"""Choosing what a student sees, as people type it."""

from dataclasses import replace
from pathlib import Path

import pytest

from plstore.cli.selecting import _read_quotas
from plstore.errors import InputError
from plstore.images import import_images
from plstore.store import Store
from plstore.views import open_view
from tests.cli.shell import shell
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


def test_select_packs_shrunk_images_and_says_how_many(store: Store) -> None:
    give_labels(store)
    words = ["--teacher", "t0", "--policy", "none", "--min-confidence", "0"]
    small = [*words, "--max-side", "21", "--quality", "80"]

    found = {row["what"]: row["n"] for row in rows(store, "select", "v", *small)}
    record = open_view(store, "v").record
    assert found["images"] == 72
    assert found["shrunk to 21 pixels"] == record.counts["shrunk"] > 0
    assert (record.parameters["max_side"], record.parameters["quality"]) == (21, 80)
    assert "shrunk to 21 pixels" not in {r["what"] for r in rows(store, "select", "w", *words)}

    done = shell("select", "v", *words, "--quality", "80", "--store", store.root)
    assert done.returncode == 2
    assert "quality without max_side" in done.stderr


def test_quotas_are_read_as_spreadsheets_write_them(store: Store, tmp_path: Path) -> None:
    give_labels(store)
    quotas = tmp_path / "quotas.csv"
    quotas.write_bytes("\ufeffclass;quota\r\ncat;5.0\r\nowl;9\r\n".encode())
    words = ["--teacher", "t0", "--min-confidence", "0", "--dry-run", "--quotas"]

    tried = {row["class"]: row["draws"] for row in rows(store, "select", "v", *words, quotas)}
    assert (tried["cat"], tried["owl"]) == (5, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("klass,quota\ncat,5\n", "lacks class"),
        ("class,quota\ncat,many\n", "'many' in row 1"),
        ("class,quota\ncat,5\ncat,6\n", "row 2: class 'cat' is there twice"),
        ("class,quota\n,5\n", "row 1: class None"),
        ("class,quota\ncat,-5\n", "quota -5"),
    ],
)
def test_quotas_that_are_none_are_told_apart(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "quotas.csv").write_text(text)

    with pytest.raises(InputError, match=message):
        _read_quotas(tmp_path / "quotas.csv")
