"""WebDataset tars as people have them: names with dots, one class for several, damage."""

import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import webdataset

import plstore
from plstore.errors import InputError
from plstore.exchange import export_view, tar_files
from plstore.images import import_images
from plstore.store import Store
from tests.conftest import CLASS_NAMES, encode, give_labels, make_records

PNG = make_records()[0].data
Members = Sequence[tuple[str, bytes]]


def write_tar(path: Path, members: Members, mode: str = "w") -> Path:
    with tarfile.open(path, mode, format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]  # a mode
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def labeled(path: Path, members: Members) -> dict[str, str | None]:
    source = tar_files({"labeled": [write_tar(path / "a.tar", members)]})
    records = list(source.records())

    assert list(source.keys()) == [record.key for record in records]
    assert all(record.data == PNG for record in records)
    return {record.key.removeprefix("labeled/"): record.label for record in records}


@pytest.mark.parametrize(
    "name",
    [
        *("IMG_2024.05.01.jpg", "a0.b.jpg", "a.jfif", "b.jpe", "C.JPEG", "x.left.jpg"),
        *("v1.2/a.b.png", "./d.heic", "../up.jp2", "/root.tiff", "deep/er/é.webp"),
    ],
)
def test_the_last_ending_says_what_a_member_is(tmp_path: Path, name: str) -> None:
    stem = name.rpartition(".")[0]

    assert labeled(tmp_path, [(name, PNG), (f"{stem}.cls", b"cat\n")]) == {stem: "cat"}


def test_images_beside_each_other_are_two_and_each_has_its_class(tmp_path: Path) -> None:
    members = [("x.left.jpg", PNG), ("x.left.cls", b"cat"), ("x.right.jpg", PNG)]
    members += [("x.right.json", b'{"label": "dog"}')]

    assert labeled(tmp_path, members) == {"x.left": "cat", "x.right": "dog"}


def test_one_class_is_that_of_all_images_of_a_sample_as_webdataset_groups_them(
    tmp_path: Path,
) -> None:
    members = [("d/x.left.jpg", PNG), ("d/x.right.jpg", PNG), ("d/x.cls", b"cat")]

    assert labeled(tmp_path, members) == {"d/x.left": "cat", "d/x.right": "cat"}


def test_parts_that_stand_apart_are_put_together(tmp_path: Path) -> None:
    images = [(f"{n}.png", PNG) for n in range(5)]
    classes = [(f"{n}.cls", str(n % 2).encode()) for n in range(5)]

    assert labeled(tmp_path, [*images, *classes]) == {str(n): str(n % 2) for n in range(5)}
    assert labeled(tmp_path, [*classes, *images]) == {str(n): str(n % 2) for n in range(5)}


def test_what_is_no_image_is_no_sample(tmp_path: Path) -> None:
    members = [("a.jpg", PNG), ("a.cls", b"cat"), ("a.txt", b"a cat"), ("a.npy", b"x")]
    members += [("._a.jpg", b"of a Mac"), ("__MACOSX/._a.jpg", b"x"), (".DS_Store", b"x")]

    assert labeled(tmp_path, members) == {"a": "cat"}
    source = tar_files({"labeled": [tmp_path / "a.tar"]})
    assert source.noticed == {
        "ignored: *.npy": 1,
        "ignored: *.txt": 1,
        "ignored: hidden names, or without an ending": 3,
    }


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (
            [("x.jpg", PNG), ("x.b.jpg", PNG), ("x.cls", b"1")],
            r"class of x may be that of x\.jpg alone or of x\.b\.jpg too",
        ),
        ([("x.jpg", PNG), ("x.png", PNG), ("x.cls", b"1")], r"x\.jpg and x\.png have one name"),
        ([("x.jpg", PNG), ("x.jpg", PNG), ("x.cls", b"1")], r"x\.jpg and x\.jpg have one name"),
        ([("x.jpg", PNG), ("x.cls", b"1"), ("y.cls", b"1")], r"1 \.cls of no image, such as y"),
        ([("x.jpg", PNG)], r"x of split 'labeled' has no class in .*a\.tar; wanted a \.cls"),
        ([("x.jpg", PNG), ("x.cls", b" ")], "x of split 'labeled' has no class"),
        ([("x.jpg", PNG), ("x.cls", b"\xff\xfe1")], r"a\.tar: x\.cls is no text in UTF-8"),
        ([("x.jpg", PNG), ("x.json", b"[1]")], r"a\.tar: x\.json holds a list; wanted"),
        ([("x.jpg", PNG), ("x.json", b"{")], r"a\.tar: x\.json is no JSON"),
        ([("x.jpg", PNG), ("x.json", b"[" * 9999)], r"a\.tar: x\.json is no JSON"),
        (
            [("x.jpg", PNG), ("x.json", b'{"label": [1, 2]}')],
            r'"label" of x\.json is \[1, 2\]; wanted one class',
        ),
        (
            [("x.jpg", PNG), ("x.cls", b"-1"), ("y.jpg", PNG), ("y.cls", b"1")],
            "x of split 'labeled' has the class -1, beside numbers",
        ),
        ([("x.raw", PNG), ("x.txt", b"1")], "no image of split 'labeled'; wanted members"),
        ([], "no image of split 'labeled'"),
    ],
)
def test_what_cannot_be_told_apart_or_read_is_named(
    tmp_path: Path, members: Members, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        labeled(tmp_path, members)


def test_a_huge_member_is_not_held_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plstore.exchange.tars.DEFAULT_MAX_BYTES", 1000)
    path = write_tar(tmp_path / "a.tar", [("a.png", b"x" * 100_000), ("b.png", PNG)])
    huge, small = tar_files({"unlabeled": [path]}).records()

    assert (len(huge.data), small.data) == (1001, PNG)


def test_metadata_of_images_that_have_a_class_may_be_anything(tmp_path: Path) -> None:
    members = [("x.jpg", PNG), ("x.json", b"[1]"), ("x.cls", b"cat")]

    assert labeled(tmp_path, members) == {"x": "cat"}


def test_numbers_are_classes_in_the_order_of_numbers(tmp_path: Path) -> None:
    members = [("a.jpg", PNG), ("a.cls", b"10"), ("b.jpg", PNG), ("b.cls", b"2")]
    members += [("c.jpg", PNG), ("c.json", b'{"label": 3.0}')]
    source = tar_files({"labeled": [write_tar(tmp_path / "a.tar", members)]})

    assert source.class_names == ["2", "3", "10"]
    assert [record.label for record in source.records()] == ["10", "2", "3"]


def test_a_test_class_that_the_labeled_images_lack_is_named(tmp_path: Path) -> None:
    shards = {
        split: [write_tar(tmp_path / f"{split}.tar", [("x.jpg", PNG), ("x.cls", name)])]
        for split, name in (("labeled", b"cat"), ("test", b"owl"))
    }

    with pytest.raises(InputError, match="the test images have 'owl', which the labeled ones"):
        tar_files(shards)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_that_is_cut_off_is_refused_wherever_it_is_cut(
    tmp_path: Path, mode: str
) -> None:
    members = [(f"{n}.png", PNG) for n in range(2)] + [("x/" * 70 + "y.png", PNG)]
    whole = write_tar(tmp_path / "whole.tar", members, mode).read_bytes()
    cut = tmp_path / "cut.tar"
    ends = sorted({*range(0, len(whole), 97), *range(0, len(whole), 512)})
    if mode == "w":  # after that come the zeros that fill the last block up
        ends = [end for end in ends if end <= len(whole.rstrip(b"\0")) // 512 * 512]
    for end in ends:
        cut.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"cut\.tar \(\d+ bytes\) cannot be read as a tar"):
            tar_files({"unlabeled": [cut]})

    cut.write_bytes(whole)
    assert tar_files({"unlabeled": [cut]}).num_images == 3


def test_a_damaged_archive_is_no_shorter_one(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{n}.png", PNG) for n in range(3)])
    whole = path.read_bytes()
    second = whole.index(b"1.png")

    def refused(data: bytes, words: str) -> None:
        path.write_bytes(data)
        with pytest.raises(InputError, match=words):
            tar_files({"unlabeled": [path]})

    refused(
        whole[:second] + b"?" + whole[second + 1 :], f"no header of a member at byte {second}"
    )
    refused(whole + whole, r"more after its end at byte \d+: several tars in one file")
    refused(b"no tar" * 500, "cannot be read as a tar")
    refused(gzip.compress(b"no tar" * 500), "cannot be read as a tar")
    negative = whole[: second + 124] + b"\xff" * 12 + whole[second + 136 :]
    refused(negative, "cannot be read as a tar")


def test_a_header_that_promises_terabytes_takes_no_time_and_no_memory(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.png")
    member.size = 1 << 60
    path = tmp_path / "a.tar"
    for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        member.type = kind
        path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + PNG)
        with pytest.raises(InputError, match="cannot be read as a tar"):
            tar_files({"unlabeled": [path]})


def test_links_have_no_bytes_and_names_lead_nowhere(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.png", PNG)])
    with tarfile.open(path, "a") as tar:
        folder = tarfile.TarInfo("images.png")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert list(tar_files({"unlabeled": [path]}).keys()) == ["unlabeled/a"]
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)

    with pytest.raises(InputError, match=r"b\.png is a link or no file, without bytes"):
        tar_files({"unlabeled": [path]})


def test_a_name_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a\udcff.png", PNG)])

    with pytest.raises(InputError, match=r"the name 'a\\udcff\.png' is not UTF-8"):
        tar_files({"unlabeled": [path]})


def test_one_tar_is_of_one_split(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.png", PNG), ("a.cls", b"cat")])

    with pytest.raises(InputError, match="is named for labeled and test"):
        tar_files({"labeled": [path], "test": [tmp_path / "." / "a.tar"]})


def test_numbers_are_named_by_the_list_beside_each_tar(tmp_path: Path) -> None:
    shards = {}
    for split, names in (("labeled", "cat\ndog\n"), ("test", "dog\ncat\n")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "classes.txt").write_text(names)
        members = [("a.jpg", PNG), ("a.cls", b"0"), ("b.jpg", PNG), ("b.cls", b"1")]
        shards[split] = [write_tar(tmp_path / split / "a.tar", members)]
    source = tar_files(shards)

    assert source.class_names == ["cat", "dog"]
    assert [record.label for record in source.records()] == ["cat", "dog", "dog", "cat"]
    with pytest.raises(InputError, match=r"has the class '1'; wanted a number below 1"):
        tar_files(shards, class_names=["cat"])


def test_a_list_of_other_things_beside_a_tar_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("red\nblue\n")

    assert labeled(tmp_path, [("a.jpg", PNG), ("a.cls", b"cat")]) == {"a": "cat"}


def test_an_export_comes_back_with_the_names_of_its_classes(
    store: Store, tmp_path: Path
) -> None:
    give_labels(store)
    balance = plstore.Balance(min_confidence=0.5, images_per_class=9, seed=0)
    view = plstore.select(
        store, plstore.Selection(view="v", teachers=["t0@1"], balance=balance)
    )
    export_view(view, tmp_path / "out", "webdataset")
    source = tar_files({"labeled": sorted((tmp_path / "out").glob("*.tar"))})
    other = plstore.create(tmp_path / "other")
    other.ensure_classes(CLASS_NAMES[::-1])  # the same classes under other numbers
    import_images(other, source.records(), dataset="d", class_names=source.class_names)
    rows = [row for batch in view.batches() for row in batch.to_pylist()]
    found = other.table("images").read().sort_by("sample_id").to_pylist()

    assert tuple(source.class_names) == CLASS_NAMES
    assert [other.class_names[row["label"]] for row in found] == [
        CLASS_NAMES[row["class_id"]] for row in rows
    ]


def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        for index in range(4):
            pixels = np.full((8, 8, 3), 60 * index, np.uint8)
            about = {"label": CLASS_NAMES[index % 3]}
            sink.write({"__key__": f"s.{index}", "png": encode(pixels), "json": about})
    source = tar_files({"labeled": [tmp_path / "a.tar"]})

    assert list(source.keys()) == [f"labeled/s.{index}" for index in range(4)]
    assert [record.label for record in source.records()] == [*CLASS_NAMES, CLASS_NAMES[0]]
    assert json.loads(json.dumps(source.splits)) == {"labeled": 4}
