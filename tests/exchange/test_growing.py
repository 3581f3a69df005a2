"""Collections that grow, draws among what can be used, pools beside each other."""

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange import Imported, Source, image_folders, import_source
from plstore.exchange.validation_split import (
    Candidates,
    ValidationSplit,
    by_class,
    split_by_name,
    split_usable,
)
from plstore.images import importing as images
from plstore.query import run_query
from plstore.store import Store
from tests.conftest import encode

FRACTION = 0.15


class Heard:
    """Remembers what an import says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    def task(
        self, title: str, total: int | None
    ) -> AbstractContextManager[Callable[[int], None]]:
        self.lines.append(f"{title} {total}")
        return nullcontext(lambda _: None)


def add(folder: Path, numbers: range, *, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        random = np.random.default_rng([seed, number, len(folder.name), ord(folder.name[0])])
        pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
        (folder / f"{number:03d}.png").write_bytes(encode(pixels))


def pets(home: Path, each: range) -> None:
    for name in ("cat", "dog"):
        add(home / "labeled" / name, each)
    add(home / "pool", range(5))


def source_of(home: Path, *, seed: int = 0, dataset: str = "images") -> Source:
    return image_folders(
        labeled=home / "labeled",
        unlabeled=home / "pool",
        validation_fraction=FRACTION,
        seed=seed,
        dataset=dataset,
    )


def bring(store: Store, source: Source) -> Imported:
    return import_source(store, source, Heard())


def splits(store: Store) -> dict[str, str]:
    rows = store.table("images").read(columns=["key", "split"]).to_pylist()
    return {row["key"]: row["split"] for row in rows}


def test_a_first_import_draws_as_the_source_alone_does(tmp_path: Path) -> None:
    pets(tmp_path, range(20))
    source = source_of(tmp_path)
    store = plstore.create(tmp_path / "store")
    imported = bring(store, source)

    assert {r.key: r.split for r in source.records()} == splits(store)
    assert source.splits == imported.source.splits
    assert source.splits == {"labeled": 34, "validation": 6, "unlabeled": 5}


def test_images_in_the_store_keep_their_split_and_the_share_holds(tmp_path: Path) -> None:
    pets(tmp_path, range(20))
    store = plstore.create(tmp_path / "store")
    bring(store, source_of(tmp_path))
    before = splits(store)
    pets(tmp_path, range(20, 32))
    imported = bring(store, source_of(tmp_path, seed=7))
    after = splits(store)
    drawn = Counter(key.split("/")[1] for key, split in after.items() if split == "validation")

    assert before.items() <= after.items()
    assert len(after) == 2 * 32 + 5
    assert drawn == {"cat": round(FRACTION * 32), "dog": round(FRACTION * 32)}
    assert imported.counts.already_there == len(before)
    assert imported.source.splits["validation"] == sum(drawn.values())


def test_an_import_that_is_stopped_draws_the_same_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets(tmp_path, range(40))
    for number in range(0, 40, 4):  # a quarter cannot be used
        (tmp_path / "labeled" / "cat" / f"{number:03d}.png").write_bytes(b"broken")
    whole, cut = (plstore.create(tmp_path / name) for name in ("whole", "cut"))
    bring(whole, source_of(tmp_path))
    monkeypatch.setattr(images, "_SHARD_ROWS", 10)
    source = source_of(tmp_path)
    assert source.settle is not None
    settled = source.settle(images.prepare_import(cut, "images"))
    records = list(settled.records())[:33]
    images.import_images(cut, records, dataset="images", class_names=["cat", "dog"])
    bring(cut, source_of(tmp_path))

    assert splits(cut) == splits(whole)


def test_validation_is_drawn_among_images_that_can_be_used(tmp_path: Path) -> None:
    pets(tmp_path, range(20))
    first = [r.key for r in source_of(tmp_path).records() if r.split == "validation"]
    for key in first:  # all that the names alone would have drawn
        (tmp_path / key).write_bytes(b"broken")
    store = plstore.create(tmp_path / "store")
    bring(store, source_of(tmp_path))
    rows = store.table("images").read().to_pylist()
    drawn = [row for row in rows if row["split"] == "validation"]

    assert {row["verdict"] for row in drawn} == {"accepted"}
    assert Counter(row["label"] for row in drawn) == {0: 3, 1: 3}
    assert not {row["key"] for row in drawn} & set(first)


def test_a_class_without_a_usable_image_stops_the_import_before_it_begins(
    tmp_path: Path,
) -> None:
    pets(tmp_path, range(6))
    heron = tmp_path / "labeled" / "heron"
    heron.mkdir()
    for number in range(5):
        (heron / f"{number}.jpg").write_bytes(b"broken" if number else b"%PDF-1.7")
    for name in ("cat", "dog"):
        add(tmp_path / "held" / name, range(2))
    store = plstore.create(tmp_path / "store")

    words = r"1 of 3 classes have no .*: heron: 4 not_an_image, 1 unsupported_pdf\. Nothing"
    with pytest.raises(InputError, match=words):
        bring(store, source_of(tmp_path))
    with pytest.raises(InputError, match=words):
        bring(store, image_folders(labeled=tmp_path / "labeled", validation=tmp_path / "held"))
    assert store.table("images").dataset().count_rows() == 0
    add(heron, range(1))
    bring(store, source_of(tmp_path))
    assert splits(store)["labeled/heron/000.png"] == "labeled"


def test_a_second_pool_of_the_same_names_is_told_of_dataset_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    pets(tmp_path, range(8))
    store = plstore.create(tmp_path / "store")
    bring(store, source_of(tmp_path))
    labeled = {k: s for k, s in splits(store).items() if s != "unlabeled"}
    shutil.rmtree(tmp_path / "pool")
    add(tmp_path / "pool", range(5), seed=1)

    with pytest.raises(InputError, match="import images --unlabeled FOLDER --dataset NAME"):
        bring(store, source_of(tmp_path))
    alone = image_folders(unlabeled=tmp_path / "pool", dataset="second")
    assert bring(store, alone).counts.verdicts == {"accepted": 5}
    add(tmp_path / "pool", range(5, 7), seed=2)
    both = bring(store, source_of(tmp_path, dataset="second"))
    rows = store.table("images").read().to_pylist()

    assert both.remarks == {
        "in another dataset with the same label, not imported again": len(labeled)
    }
    assert Counter(row["dataset"] for row in rows) == {"images": 21, "second": 7}


def test_a_photo_moved_to_another_class_is_said_and_found_by_the_audit(
    tmp_path: Path,
) -> None:
    pets(tmp_path, range(8))
    store = plstore.create(tmp_path / "store")
    bring(store, source_of(tmp_path))
    moved = tmp_path / "labeled" / "dog" / "moved.png"
    shutil.move(tmp_path / "labeled" / "cat" / "003.png", moved)
    remarks = bring(store, source_of(tmp_path)).remarks
    (row,) = run_query(store, "audit/contradicting_labels").to_pylist()

    assert [n for what, n in remarks.items() if "another label" in what] == [1]
    assert (row["class"], row["other_class"]) == ("cat", "dog")
    assert row["other_key"] == "labeled/dog/moved.png"


def test_every_import_says_splits_classes_and_what_it_left_out(tmp_path: Path) -> None:
    pets(tmp_path, range(8))
    (tmp_path / "labeled" / "@eaDir").mkdir()
    heard = Heard()
    store = plstore.create(tmp_path / "store")
    remarks = import_source(store, source_of(tmp_path), heard).remarks

    assert heard.lines[:2] == [
        "splits: labeled 14, unlabeled 5, validation 2",
        "classes (2): cat, dog",
    ]
    assert remarks == {"ignored: @eaDir": 1}


def drawn_of(
    validation: ValidationSplit, verdicts: list[str]
) -> tuple[set[int], int, Counter[str] | None]:
    rows = len(verdicts)
    classes = by_class(np.zeros(rows, np.int32), np.arange(rows, dtype=np.uint64))
    candidates = Candidates(
        classes=classes,
        usable=np.full(rows, -1, np.int8),
        in_validation=np.zeros(rows, np.bool_),
        learned=set(),
    )
    looked: list[int] = []

    def look(asked: object) -> object:
        looked.extend(asked)  # type: ignore[arg-type]  # a sequence of rows
        return (verdicts[row] for row in asked)  # type: ignore[attr-defined]  # the same

    chosen, lost = split_usable(validation, candidates, look)  # type: ignore[arg-type]  # as above
    assert len(set(looked)) == len(looked)
    return set(chosen.tolist()), len(looked), lost.get(0)


@pytest.mark.parametrize("num_images", [1, 2, 3, 12, 100])
def test_where_all_can_be_used_the_draw_is_that_of_names(num_images: int) -> None:
    validation = ValidationSplit(fraction=FRACTION, seed=0)
    chosen, looked, lost = drawn_of(validation, ["accepted"] * num_images)
    rows = {0: np.arange(num_images)}

    assert chosen == set(split_by_name(validation, rows).tolist())
    assert looked == min(validation.count(num_images) + 1, num_images)
    assert lost is None


def test_one_usable_image_always_stays_labeled() -> None:
    validation = ValidationSplit(fraction=0.5, seed=0)

    assert drawn_of(validation, ["accepted", *["damaged"] * 9])[0] == set()
    assert drawn_of(validation, [*["damaged"] * 9, "accepted"])[0] == set()
    assert drawn_of(validation, ["accepted", *["damaged"] * 8, "accepted"])[0] == {0}
    assert drawn_of(validation, ["damaged"] * 3)[2] == {"damaged": 3}
    assert drawn_of(
        ValidationSplit(fraction=None, seed=0), ["damaged", "accepted", "accepted"]
    )[:2] == (
        set(),
        2,
    )
