import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import plstore
from plstore.errors import CommitConflictError, InputError, StoreError, StoreNotFoundError
from plstore.images import ImageRecord, import_images
from plstore.schema import TABLES
from plstore.store import Store, Table
from tests.conftest import CLASS_NAMES, encode, give_labels, make_records


def test_import_numbers_images_in_order_and_keeps_their_bytes(store: Store) -> None:
    rows = store.table("images").read().sort_by("sample_id").to_pylist()
    records = make_records()

    assert [row["sample_id"] for row in rows] == list(range(len(records)))
    assert [row["image"]["bytes"] for row in rows] == [record.data for record in records]
    assert [row["key"] for row in rows] == [record.key for record in records]


def test_import_twice_adds_nothing(store: Store) -> None:
    before = store.versions()
    counts = import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)

    assert counts.already_there == len(make_records())
    assert store.versions() == before


def test_truth_is_kept_apart_from_labels(store: Store) -> None:
    rows = store.table("images").read().to_pylist()
    unlabeled = {row["sample_id"] for row in rows if row["split"] == "unlabeled"}
    truth = store.table("truth").read()["sample_id"].to_pylist()

    assert set(truth) == unlabeled
    assert all(row["label"] is None for row in rows if row["split"] == "unlabeled")


def test_a_damaged_image_is_counted_and_its_bytes_are_not_kept(store: Store) -> None:
    bad = ImageRecord(key="bad.png", split="unlabeled", data=b"nope")
    counts = import_images(store, [bad], dataset="pets", class_names=CLASS_NAMES)
    row = store.table("images").read().sort_by("sample_id").to_pylist()[-1]

    assert counts.verdicts == {"not_an_image": 1}
    assert (row["key"], row["verdict"], row["image"]["bytes"]) == (
        "bad.png",
        "not_an_image",
        None,
    )


def test_other_contents_under_a_known_key_are_refused(store: Store) -> None:
    changed = ImageRecord(key="labeled/0000.png", split="labeled", data=b"new", label="cat")

    with pytest.raises(InputError, match=r"is in the store with contents \w+, now"):
        import_images(store, [changed], dataset="pets", class_names=CLASS_NAMES)


@pytest.mark.parametrize(
    ("split", "label", "words"),
    [
        ("test", "cat", "split labeled, now test"),
        ("labeled", "dog", "label 0, now 1"),
    ],
)
def test_a_changed_split_or_label_is_refused_not_ignored(
    store: Store, split: str, label: str, words: str
) -> None:
    first = make_records()[0]
    changed = ImageRecord(key=first.key, split=split, data=first.data, label=label)

    with pytest.raises(InputError, match=words):
        import_images(store, [changed], dataset="pets", class_names=CLASS_NAMES)


def test_a_first_import_that_fails_fixes_no_classes(tmp_path: Path) -> None:
    store = plstore.create(tmp_path / "new")

    def fails() -> Iterator[ImageRecord]:
        yield make_records()[0]
        raise InputError("no such file")

    with pytest.raises(InputError, match="no such file"):
        import_images(store, fails(), dataset="pets", class_names=["cat"])
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)

    assert store.class_names == CLASS_NAMES


def test_another_label_space_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="classes cow are not in the store"):
        import_images(store, [], dataset="farm", class_names=["cat", "cow"])


def test_committing_a_labeling_twice_adds_nothing(store: Store) -> None:
    give_labels(store)
    version = store.table("soft_labels").version()
    give_labels(store)

    assert store.table("soft_labels").version() == version
    assert store.table("soft_labels").dataset().count_rows() == 60


def test_an_older_version_still_reads_as_it_was(store: Store) -> None:
    give_labels(store, "t0", 1)
    pinned = store.table("soft_labels").version()
    give_labels(store, "t1", 2)

    assert store.table("soft_labels").dataset(pinned).count_rows() == 60
    assert store.table("soft_labels").dataset().count_rows() == 120


def test_a_shard_that_was_not_committed_is_invisible(store: Store) -> None:
    table = store.table("runs")
    rows = pa.Table.from_pylist([{"run": "r", "step": 1}], schema=TABLES["runs"].columns)
    table.write_shard("orphan", rows)

    assert table.dataset().count_rows() == 0


def test_a_moved_store_reads_the_same(store: Store, tmp_path: Path) -> None:
    count = store.table("images").dataset().count_rows()
    store.root.rename(tmp_path / "elsewhere")

    assert plstore.open(tmp_path / "elsewhere").table("images").dataset().count_rows() == count


def test_image_bytes_are_stored_plain(store: Store) -> None:
    metadata = pq.ParquetFile(store.table("images").files()[0]).metadata.row_group(0)
    columns = {metadata.column(i).path_in_schema: metadata.column(i) for i in range(11)}

    assert columns["image.bytes"].compression == "UNCOMPRESSED"
    assert columns["key"].compression == "ZSTD"


def test_history_tells_who_and_from_what(store: Store) -> None:
    give_labels(store)
    newest = store.history()[0]

    assert (newest.table, newest.lineage["step"]) == ("soft_labels", "label")


def test_no_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="plstore init --store"):
        plstore.open(tmp_path / "nothing")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(StoreError, match="is no plstore store"):
        plstore.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_newer_format_is_refused(store: Store) -> None:
    (store.root / "plstore.json").write_text('{"format_version": 99}')

    with pytest.raises(StoreError, match="format version 99"):
        plstore.open(store.root)


def test_a_file_where_a_folder_must_be_is_a_clear_error(store: Store) -> None:
    blocked = store.table("soft_labels").root / "iteration=1"
    blocked.write_text("in the way")

    with pytest.raises(StoreError, match="Nothing was committed"):
        give_labels(store)


def _append(path: str, writer: int) -> None:
    store = plstore.open(path)
    for number in range(5):
        row = {"run": f"w{writer}", "step": number, "name": "loss", "value": 0.0}
        store.append("runs", [row], identity=f"{writer}-{number}", step="test")


def test_concurrent_writers_all_succeed(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append, args=(str(store.root), w)) for w in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert store.table("runs").dataset().count_rows() == 15


_ENDLESS_IMPORT = """
import sys, plstore
from plstore.images import committing, import_images, importing
from tests.store.test_store import many_records
importing._SHARD_ROWS = 50
committing.COMMIT_FILES = int(sys.argv[2])
store = plstore.create(sys.argv[1])
import_images(store, many_records(), dataset="d", class_names=["a", "b"])
"""


def many_records() -> list[ImageRecord]:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (1500, 8, 8), dtype=np.uint8)
    return [
        ImageRecord(key=f"{i}", split="labeled", data=encode(p), label="ab"[i % 2])
        if i % 2
        else ImageRecord(key=f"{i}", split="unlabeled", data=encode(p), truth="ab"[i // 2 % 2])
        for i, p in enumerate(pixels)
    ]


def num_images(path: Path) -> int:
    try:
        return int(plstore.open(path).table("images").dataset().count_rows())
    except StoreError:
        return 0


def images_written(path: Path) -> int:
    """Return how many images are in files, committed or not."""
    return 50 * len(list((path / "images").glob("part-*.parquet")))


@pytest.mark.parametrize(
    "moment", ["in a portion", pytest.param("after a commit", marks=pytest.mark.nightly)]
)
def test_an_import_that_is_killed_again_and_again_ends_complete(
    tmp_path: Path, moment: str
) -> None:
    path, whole = tmp_path / "store", tmp_path / "whole"
    files_at_once, seen = 4, num_images if moment == "after a commit" else images_written
    command = [sys.executable, "-c", _ENDLESS_IMPORT, str(path), str(files_at_once)]
    cut_at = []
    for _ in range(3):
        before = seen(path)
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        while seen(path) == before and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()
        cut_at.append((num_images(path), images_written(path)))
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    one_at_a_time = [*command[:3], str(whole), "1"]
    subprocess.run(one_at_a_time, cwd=Path(__file__).parents[2], check=True)
    found, wanted = plstore.open(path), plstore.open(whole)
    rows = found.table("images").read().sort_by("sample_id")

    assert any(0 < written < 1500 for _, written in cut_at)
    assert all(committed % (50 * files_at_once) == 0 for committed, _ in cut_at)
    assert any(committed < written for committed, written in cut_at) or moment != "in a portion"
    assert rows["sample_id"].to_pylist() == list(range(1500))
    assert rows["key"].to_pylist() == [str(i) for i in range(1500)]
    assert found.table("images").shards() == wanted.table("images").shards()
    truths = [s.table("truth").read().sort_by("sample_id") for s in (found, wanted)]
    assert truths[0] == truths[1]
    assert found.table("images").version() < wanted.table("images").version() == 30


def test_labels_given_again_replace_the_newest_and_leave_older_versions_as_they_were(
    store: Store,
) -> None:
    first = give_labels(store)
    pinned = store.table("soft_labels").version()
    again = np.roll(first, 1, axis=1)
    give_labels(store, probabilities=again, name="again")
    table = store.table("soft_labels")
    old, new = (
        table.read(version=version).sort_by("sample_id")["class_id"].to_numpy()
        for version in (pinned, None)
    )

    assert (old == first.argmax(axis=1)).all()
    assert (new == again.argmax(axis=1)).all()


def test_two_imports_at_once_never_give_two_images_one_number(store: Store) -> None:
    taken = store.next_sample_id()
    data = encode(np.zeros((4, 4), np.uint8))
    other = [ImageRecord(key="o.png", split="unlabeled", data=data, truth="cat")]

    class Slow(list[ImageRecord]):
        def __iter__(self) -> Iterator[ImageRecord]:
            import_images(store, other, dataset="quick", class_names=CLASS_NAMES)
            yield ImageRecord(key="s.png", split="unlabeled", data=data, truth="owl")

    with pytest.raises(CommitConflictError, match="another writer took the numbers"):
        import_images(store, Slow(), dataset="slow", class_names=CLASS_NAMES)
    ids = store.table("images").read()["sample_id"].to_pylist()

    truth = store.table("truth").read().sort_by("sample_id").to_pylist()[-1]

    assert sorted(ids) == [*range(taken), taken]
    assert truth == {"sample_id": taken, "label": 0}


def test_an_import_stopped_between_images_and_truth_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = plstore.create(tmp_path / "cut")
    commit = Table.commit

    def die(self: Table, *args: object, **options: object) -> int:
        if self.spec.name == "truth":
            raise KeyboardInterrupt
        return commit(self, *args, **options)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(Table, "commit", die)
    with pytest.raises(KeyboardInterrupt):
        import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    monkeypatch.undo()
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)

    assert store.table("truth").dataset().count_rows() == 60
    assert store.table("images").dataset().count_rows() == 84
