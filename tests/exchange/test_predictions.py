"""Predictions of other programs: kept, replaced, and told apart where they are none."""

import codecs
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import plstore
from plstore.codec import Codec
from plstore.errors import CommitConflictError, InputError
from plstore.exchange import match_predictions
from plstore.images import import_images
from plstore.labels import LabelSet, commit_labels, write_labels
from plstore.store import Store
from plstore.upkeep import verify
from tests.conftest import CLASS_NAMES, make_records
from tests.exchange.predicted import (
    KEYS,
    NUM,
    PROBS,
    distributions,
    keep,
    kept,
    taken,
    wide,
    written,
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """For tests that write nothing."""
    store = plstore.create(tmp_path_factory.mktemp("images") / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    return store


def test_labels_that_come_back_are_there_again(store: Store, tmp_path: Path) -> None:
    files = {name: written(tmp_path, name, distributions(n)) for n, name in enumerate("ab")}
    found = []
    for name in "ababba":
        keep(store, files[name][0], ids=files[name][1], replace=True)
        found.append("ab"[int(np.abs(kept(store) - distributions(1)).max() < 2e-3)])

    assert found == list("ababba")
    assert verify(store) == []


def test_two_files_in_turns_add_nothing_twice(store: Store, tmp_path: Path) -> None:
    halves = [
        written(tmp_path, "a", PROBS[:30], KEYS[:30]),
        written(tmp_path, "b", PROBS[30:], KEYS[30:]),
    ]
    versions = []
    for values, ids in [*halves, *halves, halves[0]]:
        keep(store, values, ids=ids)
        versions.append(store.table("soft_labels").version())

    with pytest.raises(InputError, match="30 other images have labels by 'mine' too"):
        keep(store, halves[0][0], ids=halves[0][1], replace=True)

    assert versions == [1, 2, 2, 2, 2]
    assert np.abs(kept(store) - PROBS).max() < 2e-3


@pytest.mark.parametrize("there", [True, False])
def test_of_two_writers_at_once_one_is_told(store: Store, tmp_path: Path, there: bool) -> None:
    a, b, c = (written(tmp_path, name, distributions(n)) for n, name in enumerate("abc"))
    if there:
        keep(store, c[0], ids=c[1])
    others = [a]

    def meanwhile(_: int) -> None:
        if others:
            values, ids = others.pop()
            keep(store, values, ids=ids, replace=there)

    with pytest.raises(CommitConflictError, match="run the same command again"):
        keep(store, b[0], ids=b[1], replace=True, on_images=meanwhile)
    assert np.abs(kept(store) - distributions(0)).max() < 2e-3
    keep(store, b[0], ids=b[1], replace=True)
    assert np.abs(kept(store) - distributions(1)).max() < 2e-3


def test_an_import_that_was_stopped_before_the_teacher_goes_on(
    store: Store, tmp_path: Path
) -> None:
    values, ids = written(tmp_path, "a", PROBS)
    label_set = LabelSet(iteration=1, teacher_id="mine", split="unlabeled")
    with match_predictions(store, values, ids=ids) as matched:
        batches = matched.splits["unlabeled"]()
        shards = write_labels(store, label_set, batches, codec=Codec(k=3), identity="mine")
        commit_labels(store, shards, lineage={"step": "import"}, transaction="labels")
    keep(store, values, ids=ids)

    assert store.table("teachers").read()["teacher_id"].to_pylist() == ["mine"]
    assert store.table("soft_labels").version() == 1


@pytest.mark.parametrize(
    ("values", "ids", "words"),
    [
        (PROBS, np.array(KEYS, object), "ids.npy holds Python objects"),
        (PROBS, np.array([KEYS, KEYS]), r"ids.npy has shape \(2, 60\); wanted one id a row"),
        (PROBS, np.arange(NUM) + 0.5, "ids.npy is double, and 0.5 in row 1"),
        (PROBS, np.ones(NUM, bool), "ids.npy holds bool; wanted sample ids, or names"),
        (PROBS, np.full(NUM, 2**63, np.uint64), "ids.npy is uint64; wanted whole numbers"),
        (PROBS, np.array([b"\xff"] * NUM), "ids.npy holds bytes that are no text"),
        (PROBS.astype(object), np.arange(NUM), "a.npy holds Python objects"),
        (PROBS.astype("<U9"), np.arange(NUM), "a.npy holds <U9; wanted numbers"),
        (PROBS.astype(np.float16).view("V2"), np.arange(NUM), "those of bfloat16 as float32"),
        (PROBS[0], np.arange(NUM), r"shape \(3,\); wanted \[rows, 3\].*: cat, dog, owl"),
    ],
)
def test_arrays_that_are_wrong_are_told_apart(
    images: Store, tmp_path: Path, values: npt.NDArray[Any], ids: npt.NDArray[Any], words: str
) -> None:
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "ids.npy", ids)
    with pytest.raises(InputError, match=words):
        taken(images, tmp_path / "a.npy", ids=tmp_path / "ids.npy")


def test_files_that_are_no_arrays_are_told_apart(images: Store, tmp_path: Path) -> None:
    _, ids = written(tmp_path, "a", PROBS)
    for name, data in (
        ("cut", b"\x93NUMPY\x01\x00v\x00{'de"),
        ("damaged", b"\x93NUMPY\x01\x00v\x00" + b"{'d:s\0cr': '<f4', {".ljust(118)),
        ("empty", b""),
        ("other", b"text"),
    ):
        (tmp_path / f"{name}.npy").write_bytes(data)
        with pytest.raises(InputError, match=rf"{name}\.npy"):
            taken(images, tmp_path / f"{name}.npy", ids=ids)
    with (tmp_path / "many.npy").open("wb") as file:
        np.savez(file, PROBS)
    with pytest.raises(InputError, match="archive of arrays; wanted one array"):
        taken(images, tmp_path / "many.npy", ids=ids)
    ids.write_bytes(codecs.BOM_UTF16_LE + b"a\x00b")
    with pytest.raises(InputError, match=r"a\.txt is no UTF-16: byte"):
        taken(images, tmp_path / "a.npy", ids=ids)
    ids.write_bytes(b"caf\xe9.png\n")
    with pytest.raises(InputError, match=r"a\.txt is no UTF-8: byte 3, in line 1"):
        taken(images, tmp_path / "a.npy", ids=ids)


def test_options_that_do_not_go_together_are_refused(images: Store, tmp_path: Path) -> None:
    values, ids = written(tmp_path, "a", PROBS)
    with pytest.raises(InputError, match="is an array, and has no column 'key'"):
        taken(images, values, ids=ids, id_column="key")
    with pytest.raises(InputError, match="is a table, whose ids are a column"):
        taken(images, wide(tmp_path / "p.csv", KEYS), ids=ids)
