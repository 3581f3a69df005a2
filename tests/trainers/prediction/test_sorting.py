"""Copies of images in folders by what a model sees."""

from pathlib import Path

import numpy as np
import pytest

from plstore.errors import InputError
from plstore.fingerprint import content_hash
from tests.conftest import encode
from tests.trainers.predicted import make_model, make_photos, photo
from trainers.events import Event, Note
from trainers.prediction.predict import Prediction, predict, write_predictions
from trainers.prediction.sorting import Sorter


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


def tree(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_images_are_copied_into_the_folders_of_their_classes(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    before = tree(photos)
    (photos / "turned.gif").write_bytes(encode(np.full((9, 9), 7, np.uint8), "GIF"))
    told: list[Event] = []
    prediction = Prediction(checkpoint=checkpoint, device="cpu", sort_into=tmp_path / "sorted")
    rows = predict(None, photos, prediction, on_event=told.append)
    expected = {
        f"{row['class']}/{Path(row['path']).name}": (photos / row["path"]).read_bytes()
        for row in rows
        if row["class"] is not None
    }

    assert tree(tmp_path / "sorted") == expected
    assert len(expected) == 6
    assert any(name.endswith("turned.gif") for name in expected)  # as it is on disk
    assert {name: tree(photos)[name] for name in before} == before
    notes = [event.text for event in told if isinstance(event, Note)]
    assert "1 of 7 files have no class: not_an_image 1" in notes
    assert any(note.endswith("there already: 0") for note in notes)


def test_what_is_not_sure_goes_to_a_folder_of_its_own(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    all_rows = predict(None, photos, Prediction(checkpoint=checkpoint, device="cpu"))
    confidences = sorted(row["confidence"] for row in all_rows[:5])
    floor = (confidences[1] + confidences[2]) / 2
    prediction = Prediction(
        checkpoint=checkpoint,
        device="cpu",
        sort_into=tmp_path / "sorted",
        min_confidence=floor,
    )
    out = tmp_path / "found.csv"
    done = write_predictions(None, photos, out, prediction)
    names = set(tree(tmp_path / "sorted"))

    assert {name for name in names if name.startswith("_unsure/")} == {
        f"_unsure/{Path(row['path']).name}" for row in all_rows[:5] if row["confidence"] < floor
    }
    assert len(names) == 5
    assert done.copied["_unsure"] == 2
    assert sum(done.copied.values()) == 5


def test_a_confidence_at_the_floor_is_not_above_it(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path, ["cat", "dog"], 0.3)
    sorter.put("a.png", b"a", "cat", float(np.float32(0.3)))
    sorter.put("b.png", b"b", "cat", float(np.float32(0.3000001)))

    assert set(tree(tmp_path)) == {"_unsure/a.png", "cat/b.png"}


def test_a_name_that_is_taken_gets_a_part_of_the_hash(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path, ["cat", "dog"])
    contents = [photo(1), photo(2), photo(1), photo(2), photo(3)]
    for number, data in enumerate(contents):
        sorter.put(f"{number}/a.png", data, "cat", 0.5)
    sorter.put("a.png", photo(2), "dog", 0.5)
    marks = [content_hash(photo(seed))[:16] for seed in (2, 3)]

    assert tree(tmp_path) == {
        "cat/a.png": photo(1),
        f"cat/a-{marks[0]}.png": photo(2),
        f"cat/a-{marks[1]}.png": photo(3),
        "dog/a.png": photo(2),
    }
    assert sorter.copied == {"cat": 3, "dog": 1}
    assert sorter.num_there == 2


def test_sorted_again_nothing_is_added_and_what_is_there_stays(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    prediction = Prediction(checkpoint=checkpoint, device="cpu", sort_into=tmp_path / "sorted")
    (tmp_path / "sorted/cat").mkdir(parents=True)
    (tmp_path / "sorted/cat/0.png").write_bytes(b"somebody's")
    predict(None, photos, prediction)
    first = tree(tmp_path / "sorted")
    predict(None, photos, prediction)

    assert tree(tmp_path / "sorted") == first
    assert first["cat/0.png"] == b"somebody's"
    assert len(first) == 6


def test_the_longest_names_are_cut_to_fit(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path, ["cat"])
    name = "é" * 125 + "a.png"  # 255 bytes
    for seed in (1, 2):
        sorter.put(name, photo(seed), "cat", 1)
    cut = f"{'é' * 117}-{content_hash(photo(2))[:16]}.png"

    assert tree(tmp_path) == {f"cat/{name}": photo(1), f"cat/{cut}": photo(2)}


def test_a_web_address_is_copied_under_the_name_of_its_file(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path, ["cat"])
    signed = "?X-Amz-Signature=" + "0f." * 200
    names = [
        f"https://photos.example/x%2F..%2Fa%20b%00.jpg{signed}",
        "https://photos.example/" + "c" * 300,
    ]
    for seed, name in enumerate([*names, "https://photos.example/"]):
        sorter.put(name, photo(seed), "cat", 1)
    cut = f"{'c' * 238}-{content_hash(photo(1))[:16]}"

    assert sorted(tree(tmp_path)) == sorted(f"cat/{name}" for name in ("a b.jpg", cut, "image"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", ""], "class '' cannot be a folder's name: empty"),
        (["cat", "x" * 256], "cannot be a folder's name: of 256 bytes, wanted 1 to 255"),
        (["a/b", "a%2Fb"], "classes 'a/b' and 'a%2Fb' would share the folder 'a%2Fb'"),
    ],
)
def test_a_class_that_cannot_have_a_folder_is_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Sorter(tmp_path / "sorted", names)
    assert not (tmp_path / "sorted").exists()


def test_a_class_that_cannot_be_a_folder_has_one_of_an_encoded_name(tmp_path: Path) -> None:
    names = ["T-shirt/top", "..", ".hidden", "nul\0", "README.md", "_unsure", "50%", "a b"]
    sorter = Sorter(tmp_path, names, 0.5)
    for number, name in enumerate(names):
        sorter.put("1.png", photo(number), name, 0.9)
    sorter.put("1.png", photo(0), "..", 0.5)

    folders = ["T-shirt%2Ftop", "%2E%2E", "%2Ehidden", "nul%00", "README%2Emd", "%5Funsure"]
    wanted = {f"{x}/1.png": photo(n) for n, x in enumerate([*folders, "50%", "a b"])}
    assert tree(tmp_path) == wanted | {"_unsure/1.png": photo(0)}


def test_copies_and_images_lie_apart(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos)
    for folder in (photos, photos / "sorted", tmp_path, tmp_path / "link" / "sorted"):
        prediction = Prediction(checkpoint=checkpoint, device="cpu", sort_into=folder)
        with pytest.raises(InputError, match="lie in each other; give each one of its own"):
            predict(None, photos, prediction)
    file = Prediction(checkpoint=checkpoint, device="cpu", sort_into=photos / "page.jpg")
    with pytest.raises(InputError, match=r"page\.jpg is a file; wanted a folder to sort into"):
        predict(None, photos, file)
    beside = Prediction(checkpoint=checkpoint, device="cpu", sort_into=tmp_path / "photos2")
    assert len(predict(None, photos, beside)) == 6
