"""Imports among other imports, of files that are not there, too large, or out of reach."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

import plstore
from plstore.errors import InputError
from plstore.images import (
    ImageFile,
    ImageRecord,
    committing,
    import_images,
    importing,
    looking,
)
from plstore.images.looking import Looking
from plstore.store import Store
from plstore.upkeep import verify
from tests.conftest import CLASS_NAMES, encode, make_records


def image(number: int, side: int = 8) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side), dtype=np.uint8)
    return encode(pixels)


def labels_by_name(store: Store) -> dict[str, str]:
    rows = store.table("images").read().to_pylist()
    names = plstore.open(store.root).class_names
    return {row["key"]: names[row["label"]] for row in rows if row["label"] is not None}


def test_labels_are_by_name_when_another_process_fixed_the_classes_meanwhile(
    tmp_path: Path,
) -> None:
    store = plstore.create(tmp_path / "store")

    def records() -> Iterator[ImageRecord]:
        yield ImageRecord(key="c", split="labeled", data=image(0), label="cat")
        yield ImageRecord(key="d", split="labeled", data=image(1), label="dog")
        plstore.open(store.root).ensure_classes(["cat", "dog", "owl"])  # and it died
        yield ImageRecord(key="u", split="unlabeled", data=image(2), truth="dog")

    import_images(store, records(), dataset="d", class_names=["dog", "cat"])
    truth = store.table("truth").read().to_pylist()

    assert labels_by_name(store) == {"c": "cat", "d": "dog"}
    assert plstore.open(store.root).class_names == ("cat", "dog", "owl")
    assert truth == [{"sample_id": 2, "label": 1}]
    counts = import_images(store, records(), dataset="d", class_names=["dog", "cat"])
    assert counts.already_there == 3


def test_classes_are_one_whatever_the_form_of_their_accents(tmp_path: Path) -> None:
    store = plstore.create(tmp_path / "store")
    composed, apart = "caf\u00e9", "cafe\u0301"
    records = [
        ImageRecord(key="a", split="labeled", data=image(0), label=composed),
        ImageRecord(key="b", split="labeled", data=image(1), label=apart),
    ]
    import_images(store, records, dataset="d", class_names=[apart, "tea"])

    assert store.class_names == (composed, "tea")
    assert labels_by_name(store) == {"a": composed, "b": composed}
    with pytest.raises(InputError, match="class names repeat"):
        store.ensure_classes([composed, apart])


def test_a_file_that_is_not_there_is_counted_and_imported_once_it_is(tmp_path: Path) -> None:
    store = plstore.create(tmp_path / "store")
    (tmp_path / "there.png").write_bytes(image(0))
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    names = ["there", "gone", "folder", "pipe", "nul\0l", "there.png/below"]
    files = [
        ImageFile(key=name, split="unlabeled", place=str(tmp_path / f"{name}.png"))
        for name in names
    ]
    counts = import_images(store, files, dataset="d", class_names=CLASS_NAMES)
    first = store.table("images").read()["key"].to_pylist()
    (tmp_path / "gone.png").write_bytes(image(1))
    again = import_images(store, files, dataset="d", class_names=CLASS_NAMES)

    assert counts.verdicts == {"accepted": 1, "missing": 3, "unreadable": 2}
    assert first == ["there"]
    assert (again.already_there, again.verdicts["accepted"]) == (1, 1)
    assert store.table("images").read()["key"].to_pylist() == ["there", "gone"]
    with pytest.raises(InputError, match=r"cannot read the image .*folder\.png: unreadable"):
        files[2].data  # noqa: B018  a property that reads


def test_a_file_above_the_limit_of_bytes_keeps_a_row_and_is_never_read(tmp_path: Path) -> None:
    store = plstore.create(tmp_path / "store")
    with (tmp_path / "huge.tif").open("wb") as file:
        file.truncate(1 << 40)
    huge = ImageFile(key="huge", split="unlabeled", place=str(tmp_path / "huge.tif"))
    counts = import_images(store, [huge], dataset="d", class_names=CLASS_NAMES)
    again = import_images(store, [huge], dataset="d", class_names=CLASS_NAMES)
    (row,) = store.table("images").read().to_pylist()

    assert counts.verdicts == {"over_byte_limit": 1}
    assert (again.already_there, again.verdicts) == (1, {})
    assert (row["verdict"], row["num_bytes"], row["content_hash"]) == (
        "over_byte_limit",
        1 << 40,
        None,
    )
    assert verify(store) == []


def in_flight(tmp_path: Path, sizes: list[int]) -> int:
    """Return the most bytes that were read and not yet taken, where takers are slow."""
    held, most, lock = 0, 0, Lock()
    places = [tmp_path / f"{number}.png" for number in range(len(sizes))]
    for place, size in zip(places, sizes, strict=True):
        place.write_bytes(bytes(size))

    def asks(record: ImageRecord, _: object) -> bool:  # called when a file was read
        nonlocal held, most
        with lock:
            held += sizes[int(record.key)]
            most = max(most, held)
        return False

    files = [
        ImageFile(key=str(number), split="unlabeled", place=str(place))
        for number, place in enumerate(places)
    ]
    for number, seen in enumerate(Looking().all(files, asks)):
        assert (int(seen.record.key), seen.num_bytes) == (number, sizes[number])
        time.sleep(0.2 if number == 0 else 0)
        with lock:
            held -= seen.num_bytes
    return most


def test_files_in_flight_are_bounded_by_bytes_not_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = in_flight(tmp_path, [1000] * 200)
    monkeypatch.setattr(looking, "IN_FLIGHT_BYTES", 10_000)

    assert free > 100_000
    assert 5000 < in_flight(tmp_path, [1000] * 200) <= 11_000
    assert in_flight(tmp_path, [100, 50_000, 9000, 4000, 60_000] * 20) <= 70_000


class _Stalls(MemoryFileSystem):  # type: ignore[misc]  # untyped there
    """A remote store that answers twice and then no more."""

    protocol = "stalls"
    answers = 2

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("stalls://", "memory://")))

    def _open(self, path: str, *args: object, **options: object) -> object:
        if not _Stalls.answers:
            raise TimeoutError
        _Stalls.answers -= 1
        return super()._open(path, *args, **options)


@pytest.mark.filterwarnings("ignore:UPath 'stalls'")
def test_a_remote_store_that_does_not_answer_says_run_again_and_loses_nothing(
    tmp_path: Path,
) -> None:
    fsspec.register_implementation("stalls", _Stalls, clobber=True)
    remote = MemoryFileSystem()
    for number in range(4):
        remote.pipe(f"/pool/{number}.png", image(number))
    store = plstore.create(tmp_path / "store")
    files = [
        ImageFile(key=str(n), split="unlabeled", place=f"stalls://pool/{n}.png")
        for n in (0, 1, 9, 2, 3)
    ]
    with pytest.raises(InputError, match="TimeoutError; what is imported stays"):
        import_images(store, files, dataset="d", class_names=CLASS_NAMES)
    kept = store.table("images").read()["key"].to_pylist()
    _Stalls.answers = 100
    counts = import_images(store, files, dataset="d", class_names=CLASS_NAMES)

    assert set(kept) <= {"0", "1"}
    assert counts.already_there == len(kept)
    assert counts.verdicts == {"missing": 1, "accepted": 4 - len(kept)}


def test_the_same_bytes_under_another_label_are_counted(store: Store) -> None:
    first = make_records()[0]
    moved = ImageRecord(key="moved.png", split="labeled", data=first.data, label="owl")
    copied = ImageRecord(key="copied.png", split="labeled", data=first.data, label="cat")
    empty = [
        ImageRecord(key=f"e{n}", split="labeled", data=b"", label=name)
        for n, name in enumerate(CLASS_NAMES)
    ]
    counts = import_images(
        store, [moved, copied, *empty], dataset="pets", class_names=CLASS_NAMES
    )

    assert counts.contradicting == 2  # the copy contradicts the one that was moved
    assert counts.verdicts == {"accepted": 2, "empty": 3}


def test_what_came_before_an_error_stays_and_commits_are_of_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = plstore.create(tmp_path / "store")
    monkeypatch.setattr(importing, "_SHARD_ROWS", 2)
    monkeypatch.setattr(committing, "COMMIT_FILES", 3)

    def records(*, wrong: bool) -> Iterator[ImageRecord]:
        for number in range(20):
            yield ImageRecord(
                key=str(number),
                split="validation" if wrong and number == 11 else "unlabeled",
                data=image(number),
                truth="cat",
            )

    with pytest.raises(InputError, match="image '11' of split 'validation' has no label"):
        import_images(store, records(wrong=True), dataset="d", class_names=["cat"])
    first = store.table("images").read()["sample_id"].to_pylist()
    counts = import_images(store, records(wrong=False), dataset="d", class_names=["cat"])
    kept = [list(store.table(name).history()) for name in ("images", "truth")]

    assert sorted(first) == list(range(10))
    assert (counts.already_there, counts.verdicts["accepted"]) == (10, 10)
    assert [len([c for c in commits if c.lineage]) for commits in kept] == [4, 4]
    assert [c.lineage["sample_ids"] for c in kept[0] if c.lineage] == [
        [16, 19],
        [10, 15],
        [6, 9],
        [0, 5],
    ]
    assert store.table("truth").dataset().count_rows() == 20
    assert verify(store) == []
