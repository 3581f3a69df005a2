"""The images of a run: its own, all of them, and of every class some to learn from."""

import shutil
from pathlib import Path

import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange import Source, image_folders
from plstore.images import ImageRecord, import_images
from plstore.report.progress import Display
from plstore.store import Store
from plstore.upkeep import erase
from tests.conftest import CLASS_NAMES, make_records
from tests.exchange.test_growing import add
from trainers.importing import import_for_run
from trainers.sections import Data
from trainers.sources import open_source


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        add(tmp_path / "labeled" / name, range(8))
    add(tmp_path / "all", range(6))
    return tmp_path


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return plstore.create(tmp_path / "store")


def bring(store: Store, source: Source, display: Display | None = None) -> dict[str, object]:
    shown = display or Display(quiet=True)
    return import_for_run(store, source, max_pixels=64_000_000, display=shown)


def folders(home: Path) -> Source:
    return image_folders(labeled=home / "labeled", unlabeled=home / "all")


def test_folders_that_grow_are_run_again_and_images_keep_their_split(
    home: Path, empty: Store
) -> None:
    first = bring(empty, folders(home))
    add(home / "labeled" / "cat", range(8, 20))
    (home / "all" / "000.png").rename(home / "000.png")
    (home / "all" / "broken.png").write_bytes(b"broken")
    second = bring(empty, folders(home))
    (home / "all" / "broken.png").unlink()  # a refused image is used by nothing
    third = bring(empty, folders(home))

    assert [found["not_in_folders"] for found in (first, second, third)] == [0, 1, 1]
    assert first["splits"] == {"labeled": 14, "unlabeled": 6, "validation": 2}
    assert second["splits"] == {"labeled": 25, "unlabeled": 7, "validation": 3}
    assert third["splits"] == second["splits"]


def test_a_run_says_splits_classes_what_was_ignored_and_what_was_not_there(
    home: Path, empty: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "labeled" / "Thumbs.db").write_bytes(b"x")
    source = folders(home)
    (home / "all" / "003.png").unlink()
    found = bring(empty, source, Display())
    said = capsys.readouterr().err

    assert found["unread"] == {"missing": 1}
    assert found["verdicts"] == {"accepted": 21}
    assert "splits: labeled 14, unlabeled 6, validation 2\nclasses (2): cat, dog\n" in said
    assert "  ignored: Thumbs.db: 1\n  accepted: 21\n  missing: 1\n" in said


def test_images_of_other_places_than_the_folders_are_refused(home: Path, empty: Store) -> None:
    bring(empty, folders(home))
    extra = ImageRecord(key="elsewhere.png", split="unlabeled", data=make_records()[0].data)
    import_images(empty, [extra], dataset="images", class_names=["cat", "dog"])

    with pytest.raises(InputError, match=r"1 images .* such as 'elsewhere.png'.* --store, or"):
        bring(empty, folders(home))


def test_a_run_says_which_bytes_were_deleted_and_what_takes_them(
    home: Path, empty: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(empty, folders(home))
    rows = empty.table("images").read(columns=["sample_id", "key"]).to_pylist()
    erase(empty, [r["sample_id"] for r in rows if r["key"] == "unlabeled/003.png"], reason="x")
    for name in ("copy", "twin"):
        shutil.copy(home / "all" / "003.png", home / "all" / f"{name}.png")
    bring(empty, folders(home), Display())
    said = capsys.readouterr().err

    assert (
        "deleted before (plstore delete; first: unlabeled/003.png), not imported; another "
        "--store would take them: 1\n"
    ) in said
    assert (
        "the same bytes were deleted before under another name (plstore delete; first: "
        "unlabeled/copy.png, deleted as unlabeled/003.png), not imported; another --store "
        "would take them: 2\n"
    ) in said


def test_a_class_that_nothing_can_learn_stops_the_run(empty: Store) -> None:
    def records() -> list[ImageRecord]:
        broken = [
            ImageRecord(key=r.key, split=r.split, data=b"no", label=r.label, truth=r.truth)
            if r.label == "owl" and r.split == "labeled"
            else r
            for r in make_records()
        ]
        return list(broken)

    source = Source(
        dataset="pets",
        identity="x",
        freshness="x",
        class_names=CLASS_NAMES,
        num_images=len(records()),
        num_bytes=0,
        splits={},
        keys=lambda: [record.key for record in records()],
        records=lambda: iter(records()),
    )
    with pytest.raises(InputError, match=r"1 of 3 classes have no labeled .*: owl\. Nothing"):
        bring(empty, source)


def test_a_limit_of_unlabeled_images_holds_where_the_draw_knows_the_store(
    home: Path, empty: Store
) -> None:
    data = Data(
        source="folders",
        labeled=str(home / "labeled"),
        unlabeled=str(home / "all"),
        limit_unlabeled=4,
    )
    found = bring(empty, open_source(data, 0))
    add(home / "labeled" / "dog", range(8, 10))
    again = bring(empty, open_source(data, 1))

    assert found["splits"] == {"labeled": 14, "unlabeled": 4, "validation": 2}
    assert again["splits"] == {"labeled": 15, "unlabeled": 4, "validation": 3}
