"""Images that stay in place and lose their files: found, passed over, used again."""

from pathlib import Path

import numpy as np
import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange import image_folders, image_listing
from plstore.images import find_gone, import_images, mark_gone
from plstore.loaders import open_split
from plstore.query import run_sql
from plstore.store import Store
from plstore.upkeep import compact, verify
from tests.exchange.test_growing import add


def bring(home: Path, place: str, *, in_place: bool = True) -> Store:
    for name in ("cat", "dog"):
        add(home / "labeled" / name, range(8))
    add(home / "all", range(6))
    source = image_folders(labeled=home / "labeled", unlabeled=home / "all")
    return into(plstore.create(home / place), source, in_place=in_place)


def into(store: Store, source: object, *, in_place: bool) -> Store:
    import_images(
        store,
        source.records(),  # type: ignore[attr-defined]  # a source
        dataset="images",
        class_names=["cat", "dog"],
        in_place=in_place,
    )
    return store


def verdicts(store: Store) -> dict[str, str]:
    rows = store.table("images").read(columns=["key", "verdict"]).to_pylist()
    return {row["key"]: row["verdict"] for row in rows}


def test_what_lost_its_file_is_passed_over_until_it_is_back(tmp_path: Path) -> None:
    store = bring(tmp_path, "store")
    before = store.table("images").version()
    kept = (tmp_path / "all/003.png").read_bytes()
    (tmp_path / "all/003.png").unlink()
    (tmp_path / "labeled/cat/001.png").unlink()
    found = find_gone(store)
    untouched = store.table("images").version()
    marked = mark_gone(store)
    there = open_split(store, "unlabeled")

    assert untouched == before
    assert found.splits == {"labeled": 1, "unlabeled": 1}
    assert found.ids.tolist() == sorted(found.ids)
    assert str(marked) == (
        f"file is gone: 2; first: {tmp_path}/labeled/cat/001.png; left out until it is back"
    )
    assert {k for k, verdict in verdicts(store).items() if verdict == "file_gone"} == {
        "labeled/cat/001.png",
        "unlabeled/003.png",
    }
    assert len(there) == 5
    assert there.read(np.arange(5))[1].all()
    assert store.count_images("unlabeled", version=before) == 6
    assert run_sql(store, "select count(*) as n from images")["n"][0].as_py() == 22
    assert verify(store) == []

    version = store.table("images").version()
    mark_gone(store)
    assert store.table("images").version() == version  # nothing new to say
    (tmp_path / "all/003.png").write_bytes(kept)
    assert mark_gone(store).splits == {"labeled": 1}
    assert verdicts(store)["unlabeled/003.png"] == "accepted"
    assert find_gone(store).identity != found.identity


def test_a_store_that_has_the_bytes_misses_no_file(tmp_path: Path) -> None:
    store = bring(tmp_path, "store", in_place=False)
    (tmp_path / "all/003.png").unlink()
    before = store.table("images").version()

    assert mark_gone(store).identity == ""
    assert store.table("images").version() == before


def test_whole_paths_of_images_with_bytes_are_not_taken_for_places(tmp_path: Path) -> None:
    add(tmp_path / "all", range(6))
    listing = tmp_path / "pool.csv"
    paths = sorted(map(str, (tmp_path / "all").iterdir()))
    listing.write_text("\n".join(["path", *paths[:3]]))
    store = into(plstore.create(tmp_path / "s"), image_listing(listing), in_place=False)
    listing.write_text("\n".join(["path", *paths[3:]]))
    into(store, image_listing(listing), in_place=True)
    compact(store)  # one file holds both kinds
    for name in (0, 4):
        (tmp_path / f"all/{name:03d}.png").unlink()

    assert len(store.table("images").shards()) == 1
    assert mark_gone(store).ids.tolist() == [4]
    assert mark_gone(store).marked.tolist() == [4]
    assert len(open_split(store, "unlabeled")) == 5


def test_a_split_of_which_nothing_is_left_is_said_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    store = bring(tmp_path, "store")
    (tmp_path / "all").rename(tmp_path / "moved")
    before = store.table("images").version()

    with pytest.raises(
        InputError, match=r"all 6 unlabeled images of .*/all/000\.png\. Was the"
    ):
        mark_gone(store)
    assert store.table("images").version() == before
    (tmp_path / "moved").rename(tmp_path / "all")
    assert mark_gone(store).identity == ""


def test_an_empty_place_has_lost_nothing(tmp_path: Path) -> None:
    assert find_gone(plstore.create(tmp_path / "store")).identity == ""
    assert find_gone(Store(tmp_path / "none")).identity == ""
