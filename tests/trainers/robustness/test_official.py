"""ImageNet-C and -P, laid out as they are published, small: asked by name of the file."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from plstore.errors import InputError
from plstore.labels import find_teacher
from plstore.query import run_query
from plstore.store import Store
from tests.cli.shell import shell
from tests.trainers.given import add_model
from trainers.events import Event, Note
from trainers.models.model import load_teacher
from trainers.robustness.evaluation import Robustness, robustness
from trainers.robustness.labeling import Asked
from trainers.robustness.official import CorruptedFiles, SequenceFiles
from trainers.robustness.published import CORRUPTIONS

IMAGES = {f"{n:04d}": ("cat", "dog", "owl")[n % 3] for n in range(78, 84)}  # of the split test
Pixels = npt.NDArray[np.uint8]


def pixels(*of: object, size: int = 16) -> Pixels:
    seed = np.frombuffer(repr(of).encode(), np.uint8).astype(int).tolist()
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def give_c(folder: Path, places: dict[str, str], severities: tuple[int, ...] = (1, 3)) -> Path:
    for name, place in places.items():
        for severity in severities:
            for image, label in IMAGES.items():
                path = folder / place / str(severity) / label / f"{image}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels(name, severity, image)).save(path, "PNG")
    return folder


def give_p(folder: Path, names: tuple[str, ...], length: int = 4) -> Path:
    for name in names:
        for image, label in IMAGES.items():
            path = folder / name / label / f"{image}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, [pixels(name, image, n) for n in range(length)])
    return folder


def write_video(path: Path, frames: list[Pixels]) -> None:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (16, 16))
    for frame in frames:
        video.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    video.release()


def read_video(path: Path) -> list[Pixels]:
    video, frames = cv2.VideoCapture(str(path)), []
    while (found := video.read())[0]:
        frames.append(cv2.cvtColor(found[1], cv2.COLOR_BGR2RGB).astype(np.uint8))
    return frames


@pytest.fixture
def taught(store: Store) -> Store:
    add_model(store, "t0", iteration=0, seed=0)
    add_model(store, "t1", iteration=1, seed=1)
    return store


def answers(store: Store) -> Callable[[Pixels], int]:
    teacher = find_teacher(store, "t0")
    assert teacher is not None
    bundle = load_teacher(store, teacher, device="cpu")

    def answer(image: Pixels) -> int:
        with torch.inference_mode():
            batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
            return int(bundle.logits(batch).argmax())

    return answer


def kept(store: Store, name: str, teacher: str = "t0") -> dict[tuple[str, float], int]:
    keys = store.table("images").read(columns=["sample_id", "key"]).to_pylist()
    names = {row["sample_id"]: Path(row["key"]).stem for row in keys}
    rows = store.table("perturbed_labels").read().to_pylist()
    return {
        (names[row["sample_id"]], row["level"]): row["class_id"]
        for row in rows
        if (row["teacher_id"], row["perturbation"]) == (teacher, name)
    }


@pytest.mark.parametrize("group", ["", "blur/"])
def test_files_of_corruptions_are_labeled_by_the_images_they_are_of(
    group: str, taught: Store, tmp_path: Path
) -> None:
    give_c(tmp_path, {"defocus_blur": f"{group}defocus_blur", "fog": "fog"})
    asked = Robustness(
        asked=Asked(), corruptions=CorruptedFiles(folder=tmp_path, severities=(1, 3))
    )
    answer = answers(taught)

    (row, _) = robustness(taught, ["t0", "t1"], asked)
    version = taught.table("perturbed_labels").version()
    again, _ = robustness(taught, ["t0", "t1"], asked)

    found = kept(taught, "defocus_blur")
    assert found == {
        (image, severity): answer(pixels("defocus_blur", severity, image))
        for image in IMAGES
        for severity in (1, 3)
    }
    assert again == row
    assert taught.table("perturbed_labels").version() == version
    assert "mCE" not in row  # of 2 of the 15


def test_all_fifteen_give_mce_and_relative_mce(taught: Store, tmp_path: Path) -> None:
    give_c(tmp_path, {name: name for name in CORRUPTIONS}, (1, 2, 3, 4, 5))
    files = CorruptedFiles(folder=tmp_path)

    (row, other) = robustness(
        taught, ["t0", "t1"], Robustness(asked=Asked(), corruptions=files, baseline="alexnet")
    )

    assert row["mCE"] > 0
    assert row["relative_mCE"] != other["relative_mCE"]


def test_frames_of_videos_are_labeled_in_their_order(taught: Store, tmp_path: Path) -> None:
    give_p(tmp_path, ("gaussian_noise", "tilt"))
    answer = answers(taught)

    robustness(
        taught, ["t0"], Robustness(asked=Asked(), sequences=SequenceFiles(folder=tmp_path))
    )
    found = kept(taught, "tilt")
    rows = run_query(taught, "evaluation/flip_probabilities", split="test").to_pylist()

    classes = {
        image: [answer(f) for f in read_video(tmp_path / "tilt" / label / f"{image}.mp4")]
        for image, label in IMAGES.items()
    }
    assert found == {(i, n): c for i, of in classes.items() for n, c in enumerate(of)}
    assert {len(of) for of in classes.values()} == {4}
    flips = [a != b for of in classes.values() for a, b in pairwise(of)]
    (tilt,) = [row for row in rows if row["perturbation"] == "tilt"]
    assert tilt["flip_probability"] == pytest.approx(np.mean(flips))


def test_what_lacks_files_is_left_out_and_counted(taught: Store, tmp_path: Path) -> None:
    c, p = give_c(tmp_path / "c", {"fog": "fog"}), give_p(tmp_path / "p", ("tilt",))
    (c / "fog" / "3" / "cat" / "0078.JPEG").unlink()
    (c / "fog" / "1" / "dog" / "0079.JPEG").write_bytes(b"torn")
    write_video(p / "tilt" / "cat" / "0081.mp4", [pixels("one")])
    (p / "tilt" / "owl" / "0083.mp4").unlink()
    events: list[Event] = []
    asked = Robustness(
        asked=Asked(),
        corruptions=CorruptedFiles(folder=c, severities=(1, 3)),
        sequences=SequenceFiles(folder=p),
    )

    (row,) = robustness(taught, ["t0"], asked, on_event=events.append)
    said = [event.text for event in events if isinstance(event, Note)]

    assert {image for image, _ in kept(taught, "fog")} == set(IMAGES) - {"0078", "0079"}
    assert {image for image, _ in kept(taught, "tilt")} == set(IMAGES) - {"0081", "0083"}
    assert row["num_perturbed"] == 2  # 0078 and 0079, 0081 and 0083 have not all
    assert (
        "fog: 1 images are left out, which have no file of each corruption and severity" in said
    )
    assert "fog: 1 images are left out, whose files cannot be read" in said
    assert "tilt: 1 images are left out, whose video has one frame" in said
    assert "tilt: 1 images are left out, which have no video of each perturbation" in said


def test_clean_images_are_those_that_were_made_worse(taught: Store, tmp_path: Path) -> None:
    give_c(tmp_path, {"fog": "fog", "snow": "snow"})
    (tmp_path / "snow" / "3" / "cat" / "0078.JPEG").unlink()
    (tmp_path / "fog" / "1" / "cat" / "0081.JPEG").unlink()
    files = CorruptedFiles(folder=tmp_path, severities=(1, 3))

    (row,) = robustness(taught, ["t0"], Robustness(asked=Asked(), corruptions=files))

    assert row["num_perturbed"] == 4
    assert {i for i, _ in kept(taught, "fog")} == {i for i, _ in kept(taught, "snow")}


def test_a_file_is_of_one_image(tmp_path: Path) -> None:
    give_c(tmp_path / "c", {"fog": "fog"})
    keys = {1: "test/cat/0078.png", 2: "test/lynx/0078.png", 3: "test/lynx/0079.png"}
    files = CorruptedFiles(folder=tmp_path / "c", severities=(1,), keys=keys)
    small = np.zeros((3, 16, 16, 3), np.uint8)

    (made,) = files.made(iter([(np.array([1, 2, 3]), small)]), ["fog"])

    assert made.sample_ids.tolist() == [1, 3]


def test_no_file_of_any_image_is_an_error(taught: Store, tmp_path: Path) -> None:
    path = tmp_path / "fog" / "1" / "cat" / "other.JPEG"
    path.parent.mkdir(parents=True)
    Image.fromarray(pixels("other")).save(path)
    files = CorruptedFiles(folder=tmp_path, severities=(1,))

    with pytest.raises(InputError, match="has no file of fog for any of 6 images, such as"):
        robustness(taught, ["t0"], Robustness(asked=Asked(), corruptions=files))


def test_files_that_came_later_are_looked_at(taught: Store, tmp_path: Path) -> None:
    give_c(tmp_path, {"fog": "fog"})
    (tmp_path / "fog" / "1" / "cat" / "0078.JPEG").rename(tmp_path / "later")
    asked = Robustness(
        asked=Asked(), corruptions=CorruptedFiles(folder=tmp_path, severities=(1,))
    )
    robustness(taught, ["t0"], asked)
    assert len(kept(taught, "fog")) == 5

    (tmp_path / "later").rename(tmp_path / "fog" / "1" / "cat" / "0078.JPEG")
    again = Robustness(
        asked=Asked(), corruptions=CorruptedFiles(folder=tmp_path, severities=(1,))
    )
    robustness(taught, ["t0"], again)

    assert len(kept(taught, "fog")) == 6


def test_the_command_reads_both(taught: Store, tmp_path: Path) -> None:
    c, p = (
        give_c(tmp_path / "c", {"fog": "fog"}, (1, 2, 3, 4, 5)),
        give_p(tmp_path / "p", ("tilt",)),
    )
    words = ["--splits", "test", "--corruption-files", str(c), "--sequence-files", str(p)]

    done = shell("evaluate", "t0", *words, "--format", "json", "--store", taught.root)
    (row,) = json.loads(done.stdout)

    assert done.returncode == 0, done.stderr
    assert 0 <= row["corrupted_accuracy"] <= 100
    assert 0 <= row["flip_probability"] <= 100


def test_folders_of_other_things_are_refused(taught: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no folder named gaussian_noise, shot_noise"):
        CorruptedFiles(folder=tmp_path)
    give_c(tmp_path, {"fog": "fog"})
    with pytest.raises(InputError, match="corruption is 'mist'; wanted one or more"):
        CorruptedFiles(folder=tmp_path, names=("mist",))
    with pytest.raises(InputError, match="has no folder named snow"):
        CorruptedFiles(folder=tmp_path, names=("snow",))
    (tmp_path / "tilt").mkdir()
    files = SequenceFiles(folder=tmp_path)
    with pytest.raises(InputError, match="has no file of tilt for any of 6 images"):
        robustness(taught, ["t0"], Robustness(asked=Asked(), sequences=files))
