"""Folders as people have them: inside each other, with what file managers leave behind."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange import image_folders
from plstore.fingerprint import value_hash
from plstore.images import import_images
from tests.exchange.test_growing import add


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for split in ("labeled", "validation", "test"):
        for name in ("cat", "dog"):
            add(tmp_path / split / name, range(3))
    add(tmp_path / "all", range(4))
    return tmp_path


def test_folders_in_each_other_are_refused_whichever_is_inside(home: Path) -> None:
    add(home / "labeled" / "unlabeled", range(2))
    add(home / "all" / "test" / "cat", range(2))
    add(home / "all" / "test" / "dog", range(2))
    (home / "link").symlink_to(home / "labeled")

    def refused(words: str, **folders: str) -> None:
        with pytest.raises(InputError, match=words):
            image_folders(**{name: home / path for name, path in folders.items()})  # type: ignore[arg-type]  # folders alone

    inside = {"labeled": "labeled", "unlabeled": "labeled/unlabeled"}
    refused("the unlabeled folder .* lies in the labeled folder", **inside)
    refused("the test folder .* lies in the unlabeled", unlabeled="all", test="all/test")
    refused("the labeled folder .* lies in the unlabeled", labeled="labeled", unlabeled=".")
    refused("the labeled folder .* is the test folder", labeled="labeled", test="labeled")
    refused("the labeled folder .* is the test folder", labeled="labeled", test="link")
    refused("no folder is named")


def test_a_link_into_another_of_the_folders_is_refused(home: Path) -> None:
    (home / "all" / "more").symlink_to(home / "labeled" / "cat")

    with pytest.raises(InputError, match=r"all/more leads into the labeled folder"):
        image_folders(labeled=home / "labeled", unlabeled=home / "all")


def test_what_file_managers_leave_is_no_class_and_no_end_and_is_counted(home: Path) -> None:
    plain = image_folders(labeled=home / "labeled", unlabeled=home / "all", seed=3)
    for folder in ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN"):
        add(home / "labeled" / folder, range(1))
        add(home / "all" / folder, range(1))
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
        for folder in ("labeled", "labeled/cat", "all"):
            (home / folder / name).write_bytes(b"x")
    for name in ("metadata.csv", "labels.json", "README.txt", "LICENSE", "more.csv"):
        (home / "labeled" / name).write_bytes(b"x")
    source = image_folders(labeled=home / "labeled", unlabeled=home / "all", seed=3)

    assert source.class_names == ["cat", "dog"]
    assert source.keys() == plain.keys()
    assert source.identity == plain.identity
    assert source.noticed == {}
    assert source.ignored == {
        **dict.fromkeys(("@eaDir", "__MACOSX", "$RECYCLE.BIN", ".ipynb_checkpoints"), 2),
        **dict.fromkeys(("Thumbs.db", "desktop.ini", ".DS_Store"), 3),
        "hidden files and folders": 3,
        ".csv": 2,
        ".json": 1,
        ".txt": 1,
        "LICENSE": 1,
    }


def test_what_can_be_no_image_is_counted_by_kind_and_all_else_may_be_one(home: Path) -> None:
    plain = image_folders(labeled=home / "labeled", unlabeled=home / "all")
    for name in ("a.txt", "b.TXT", "001.png.json", "film.mp4", "more.zip", "labeled/cat/x.xmp"):
        (home / ("" if "/" in name else "all") / name).write_bytes(b"x")
    (home / "all" / "none.png").touch()
    (home / "all" / "lost.png").symlink_to("nowhere")
    os.mkfifo(home / "all" / "pipe.png")
    source = image_folders(labeled=home / "labeled", unlabeled=home / "all")
    for name in ("scan", "photo.raw", "drawing.svg", "v1.2", "c.c"):
        (home / "all" / name).write_bytes(b"x")
    more = image_folders(labeled=home / "labeled", unlabeled=home / "all")

    assert source.identity == plain.identity
    assert source.ignored == {
        ".txt": 2,
        **dict.fromkeys((".json", ".mp4", ".zip", ".xmp"), 1),
        "empty files": 1,
        "links that lead nowhere": 1,
        "pipes, sockets and devices": 1,
    }
    assert next(iter(source.ignored)) == ".txt"  # the most first
    assert more.num_images == plain.num_images + 5
    assert more.ignored == source.ignored


def test_a_class_without_a_test_image_is_noticed_and_none_at_all_is_refused(
    home: Path,
) -> None:
    for path in (home / "test" / "dog").iterdir():
        path.write_bytes(b"")
    source = image_folders(labeled=home / "labeled", test=home / "test")
    shutil.rmtree(home / "test" / "cat")
    for name in ("test/cat", "none"):
        (home / name).mkdir()
    (home / "none" / "a.txt").write_bytes(b"x")

    assert source.noticed == {"classes without a test image (dog)": 1}
    assert source.splits["test"] == 3
    with pytest.raises(InputError, match=r"test holds no image in its class.*/cat is empty"):
        image_folders(labeled=home / "labeled", test=home / "test")
    with pytest.raises(InputError, match=r"holds no image \(\.txt 1\); wanted the unlabeled"):
        image_folders(labeled=home / "labeled", unlabeled=home / "none")


def test_both_spellings_of_a_class_folder_are_one_class(tmp_path: Path) -> None:
    spellings = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    for number, name in enumerate([*spellings, "tea"]):
        add(tmp_path / "labeled" / name, range(4 * number, 4 * number + 4))
    add(tmp_path / "test" / spellings[1], range(2))
    add(tmp_path / "test" / "tea", range(2))
    source = image_folders(labeled=tmp_path / "labeled", test=tmp_path / "test")
    store = plstore.create(tmp_path / "store")
    import_images(store, source.records(), dataset="d", class_names=source.class_names)
    labels = store.table("images").read()["label"].to_pylist()

    assert source.class_names == [spellings[0], "tea"]
    assert [labels.count(n) for n in (0, 1)] == [10, 6]


def test_class_numbers_come_by_number(tmp_path: Path) -> None:
    for number in (10, 0, 2):
        add(tmp_path / str(number), range(2))

    assert image_folders(labeled=tmp_path).class_names == ["0", "2", "10"]


def test_files_come_in_the_order_of_their_paths_parts(tmp_path: Path) -> None:
    names = ["a/z", "a-b/y", "a.c", "a/b/c"]
    for name in names:
        path = tmp_path / "all" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    source = image_folders(unlabeled=tmp_path / "all")

    assert list(source.keys()) == [
        f"unlabeled/{path.as_posix()}" for path in sorted(map(Path, names))
    ]


def test_the_identity_is_that_of_names_splits_labels_and_sizes(home: Path) -> None:
    source = image_folders(labeled=home / "labeled", unlabeled=home / "all", seed=1)
    rows = [(r.key, r.split, r.label, len(r.data)) for r in source.records()]

    assert source.identity == value_hash({"files": rows})


def test_a_file_that_vanishes_after_it_was_listed_is_missing(home: Path) -> None:
    source = image_folders(labeled=home / "labeled", unlabeled=home / "all")
    (home / "all" / "002.png").unlink()
    store = plstore.create(home / "store")
    counts = import_images(store, source.records(), dataset="d", class_names=source.class_names)

    assert counts.verdicts == {"accepted": 9, "missing": 1}
