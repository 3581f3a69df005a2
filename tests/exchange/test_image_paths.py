"""Images that are named one after the other."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plstore.errors import InputError
from plstore.exchange import image_paths, path_list

NAMES = (
    "a/b/1.png",
    "a/z.png",
    "a-b.png",
    "a.png",
    "a0/1.png",
    "b/c-d/1.png",
    "b/c/1.png",
    "é.png",
)


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_a_folder_gives_its_files_in_order_of_the_parts_of_their_names(tmp_path: Path) -> None:
    folder = make(tmp_path / "photos", *NAMES, ".hidden/1.png", "a/.hidden.png")
    found = image_paths(folder)
    expected = sorted(NAMES, key=lambda name: name.split("/"))

    assert [name for name, _ in found.named()] == expected
    assert [Path(place) for _, place in found.named()] == [folder / name for name in expected]
    assert found.num_files == len(NAMES)
    assert found.base == str(folder.resolve())


def test_links_are_followed_once(tmp_path: Path) -> None:
    folder = make(tmp_path / "photos", "a/1.png")
    other = make(tmp_path / "other", "2.png")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "b").symlink_to(other)
    (folder / "c").symlink_to(other)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")

    assert [n for n, _ in image_paths(folder).named()] == ["a/1.png", "b/2.png", "gone.png"]


def test_a_folder_as_deep_as_a_path_may_be_is_walked(tmp_path: Path) -> None:
    depth = 1500  # deeper than Python calls functions
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        Path("1.png").write_bytes(b"x")
        found = list(image_paths(tmp_path).named())
    finally:
        os.chdir(before)
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # shutil calls itself

    assert [name for name, _ in found] == ["d/" * depth + "1.png"]


def test_a_list_names_paths_below_its_folder(tmp_path: Path) -> None:
    lines = ["a.png", "", "deep/b.png", str(tmp_path / "c.png"), "s3://bucket/d.png", "  "]
    (tmp_path / "list.txt").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    found = path_list(tmp_path / "list.txt")

    assert found.num_files == 4
    assert list(found.named()) == [
        ("a.png", str(tmp_path / "a.png")),
        ("deep/b.png", str(tmp_path / "deep/b.png")),
        (str(tmp_path / "c.png"), str(tmp_path / "c.png")),
        ("s3://bucket/d.png", "s3://bucket/d.png"),
    ]


def test_a_stream_is_asked_for_one_path_at_a_time() -> None:
    asked = []

    def paths() -> Iterator[str]:
        for number in range(1_000_000_000):
            asked.append(number)
            yield f"{number}.png"

    found = image_paths(paths())
    named = found.named()

    assert [next(named) for _ in range(3)] == [(f"{n}.png", f"{n}.png") for n in range(3)]
    assert asked == [0, 1, 2]
    assert found.num_files is None


def test_a_file_is_named_as_it_was_given(tmp_path: Path) -> None:
    folder = make(tmp_path, "a.png")
    found = image_paths(folder / "a.png")

    assert list(found.named()) == [(str(folder / "a.png"), str(folder / "a.png"))]
    assert found.num_files == 1


def test_what_cannot_be_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is no folder and no file"):
        image_paths(tmp_path / "nothing")
    with pytest.raises(InputError, match="is no file; wanted a text of one path a line"):
        path_list(tmp_path)
    (tmp_path / "list.txt").write_bytes(b"a.png\nb\xff.png\n")
    with pytest.raises(InputError, match=r"in line 2, is b'\\xff'; save it as UTF-8"):
        path_list(tmp_path / "list.txt")
    with pytest.raises(InputError, match=r"the name 'b\\udcff.png' is not UTF-8"):
        list(image_paths(["a.png", "b\udcff.png"]).named())
    (tmp_path / "photos").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "photos") + b"/b\xff.png")).write_bytes(b"x")
    with pytest.raises(InputError, match="is not UTF-8; rename the file"):
        image_paths(tmp_path / "photos")
