"""Images by the names that other programs gave them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import plstore
from plstore.errors import InputError
from plstore.images import import_images
from plstore.store import Store
from tests.conftest import CLASS_NAMES, make_records
from tests.exchange.predicted import KEYS, NUM, PROBS, keep, pool, taken, wide, written


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """For tests that write nothing."""
    store = plstore.create(tmp_path_factory.mktemp("images") / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    return store


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_lists_of_names_are_read_as_editors_write_them(
    images: Store, tmp_path: Path, encoding: str, line: str
) -> None:
    values, ids = written(tmp_path, "a", PROBS)
    ids.write_bytes((line.join(KEYS) + line).encode(encoding))
    matched, found = taken(images, values, ids=ids)

    assert (matched.num_unknown, matched.counts) == (0, {"unlabeled": NUM})
    assert np.abs(found - PROBS).max() < 2e-3


@pytest.mark.parametrize(
    "array",
    [
        np.array(KEYS)[:, None],
        np.array(KEYS).astype("S")[None],
        (np.arange(NUM) + 12)[:, None],
        (np.arange(NUM) + 12).astype(np.float64),
    ],
    ids=["text", "bytes", "column", "floats"],
)
def test_arrays_of_names_may_have_one_column(
    images: Store, tmp_path: Path, array: npt.NDArray[Any]
) -> None:
    values, _ = written(tmp_path, "a", PROBS)
    np.save(tmp_path / "ids.npy", array)
    _, found = taken(images, values, ids=tmp_path / "ids.npy")

    assert np.abs(found - PROBS).max() < 2e-3


@pytest.mark.parametrize(
    "name",
    [
        "{name}",
        "unlabeled/{name}",
        "./unlabeled/{name}",
        "/data/pets/unlabeled/{name}",
        "/data/other/{name}",
        "C:\\data\\{name}",
    ],
)
def test_images_are_found_by_the_end_of_their_path(
    images: Store, tmp_path: Path, name: str
) -> None:
    names = [name.format(name=key.partition("/")[2]) for key in KEYS]
    matched, found = taken(images, wide(tmp_path / "p.csv", names))
    keys = name == "unlabeled/{name}"

    assert (matched.num_unknown, matched.counts) == (0, {"unlabeled": NUM})
    assert any("by the ends of paths" in note for note in matched.notes) is not keys
    assert np.abs(found - PROBS).max() < 2e-3


def test_folders_are_compared_whole_and_the_longest_end_wins(tmp_path: Path) -> None:
    store = pool(tmp_path / "s", "unlabeled/b/x.png", "unlabeled/ab/x.png", "unlabeled/y.png")
    names = ["/home/b/x.png", "ab/x.png", "oy.png", "z/y.png"]
    matched, found = taken(store, wide(tmp_path / "p.csv", names, probs=PROBS[:4]))

    assert matched.sample_ids.tolist() == [0, 1, 2]
    assert matched.num_unknown == 1
    assert np.abs(found - PROBS[[0, 1, 3]]).max() < 2e-3


def test_a_name_of_two_images_is_shown_with_both(tmp_path: Path) -> None:
    store = pool(tmp_path / "s", "unlabeled/p/a.png", "unlabeled/q/a.png", "unlabeled/b.png")
    path = wide(tmp_path / "p.csv", ["b.png", "a.png"], probs=PROBS[:2])
    with pytest.raises(
        InputError,
        match=r"'a\.png' \(number 2 of 2 names\) may be 'unlabeled/p/a.png' or 'unlabeled/q/a",
    ):
        taken(store, path)


def test_names_of_one_image_twice_are_shown(tmp_path: Path) -> None:
    store = pool(tmp_path / "s", "unlabeled/a.png", "unlabeled/b.png")
    path = wide(tmp_path / "p.csv", ["a.png", "b.png", "/x/a.png"], probs=PROBS[:3])
    with pytest.raises(InputError, match=r"row 1 \('a\.png'\) and .* row 3 \('/x/a\.png'\)"):
        taken(store, path)


def test_images_in_place_are_found_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    keys = ["first/0.png", "second/1.png"]
    store = pool(tmp_path / "s", *keys, in_place=tmp_path / "photos")
    names = [str(tmp_path / "photos" / "1.png"), "photos/0.png"]
    _, found = taken(store, wide(tmp_path / "p.csv", names, probs=PROBS[:2]))

    assert np.abs(found - PROBS[[1, 0]]).max() < 2e-3


def test_names_are_compared_in_one_spelling(tmp_path: Path) -> None:
    store = pool(tmp_path / "s", "unlabeled/Zoe\u0308.png")
    _, found = taken(store, wide(tmp_path / "p.csv", ["Zo\u00eb.png"], probs=PROBS[:1]))

    assert len(found) == 1


def test_where_nothing_is_found_one_name_of_each_side_is_shown(
    store: Store, tmp_path: Path
) -> None:
    path = wide(tmp_path / "p.csv", [f"{n}.jpg" for n in range(NUM)])
    with pytest.raises(
        InputError, match=r"first is of '0\.jpg'; the store has such as 'labeled"
    ):
        keep(store, path)
    values, _ = written(tmp_path, "a", PROBS)
    np.save(tmp_path / "ids.npy", np.arange(NUM) + 900)
    with pytest.raises(InputError, match=r"60 name no image.* first is of 900; the store has"):
        keep(store, values, ids=tmp_path / "ids.npy")
