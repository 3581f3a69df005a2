"""A packed view is the same files, whoever fetches its images and whoever writes them."""

import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import plstore
from plstore.errors import InputError, StoreError
from plstore.images import ImageRecord, import_images
from plstore.selection import Balance, Selection, select
from plstore.store import Store
from plstore.upkeep import collect, verify
from plstore.views import HERE, Engine, View, fetching, packing, writing
from tests.conftest import CLASS_NAMES, give_labels, make_records

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let some images be many files and many parts."""
    monkeypatch.setattr(writing, "FILE_BYTES", 12_000)
    monkeypatch.setattr(packing, "PIECE_ROWS", 4)
    monkeypatch.setattr(fetching, "_PART_BYTES", 9_000)


@pytest.fixture
def mixed(tmp_path: Path) -> Store:
    """Return a store of images in several files, some of which are left in place."""
    store = plstore.create(tmp_path / "store")
    records = make_records()
    for start in range(0, len(records), 17):
        part = records[start : start + 17]
        in_place = start == 34
        if in_place:
            part = [_left_in(tmp_path / "outside", record) for record in part]
        import_images(store, part, dataset="pets", class_names=CLASS_NAMES, in_place=in_place)
    give_labels(store)
    return store


def _left_in(folder: Path, record: ImageRecord) -> ImageRecord:
    place = folder / record.key
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(record.data)
    return replace(record, place=str(place))


def selected(store: Store, engine: Engine = HERE, **changes: Any) -> View:  # noqa: ANN401
    values = {"view": "v", "teachers": ["t0"], "mode": "packed", **changes}
    selection = Selection(**values, balance=Balance(min_confidence=0.4, images_per_class=23))
    return select(store, selection, identity=f"v-{values['view']}", engine=engine)


def files(store: Store, view: View) -> dict[str, bytes]:
    root = store.table("view_rows").root
    return {shard.path: (root / shard.path).read_bytes() for shard in view.shards()}


Happens = Callable[[Any, Sequence[Any]], Iterator[Any]]


class Elsewhere:
    """An engine that does what a function says with a work and its tasks."""

    is_here = False

    def __init__(self, happens: Happens) -> None:
        self.happens = happens
        self.num_tasks: list[int] = []

    def connected(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(
        self,
        work: Any,  # noqa: ANN401  any work
        tasks: Sequence[Any],
        on_images: Callable[[int], None],
    ) -> Iterator[Any]:
        del on_images
        self.num_tasks.append(len(tasks))
        return self.happens(work, tasks)


def backwards(work: Any, tasks: Sequence[Any]) -> Iterator[Any]:  # noqa: ANN401  any work
    """Do tasks from the last to the first, each twice, with a work that travelled."""
    work, tasks = pickle.loads(pickle.dumps((work, tasks)))  # noqa: S301  our own
    do = work.open(lambda _: None)
    for task in reversed(tasks):
        do(task)
        yield do(task)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("max_side", [None, 21])
def test_files_do_not_depend_on_who_makes_them(
    mixed: Store, tmp_path: Path, max_side: int | None
) -> None:
    other = plstore.open(shutil.copytree(mixed.root, tmp_path / "other"))
    engine = Elsewhere(backwards)
    here = selected(mixed, max_side=max_side)
    there = selected(other, engine, max_side=max_side)
    fetched, packed = engine.num_tasks

    assert fetched > 4
    assert packed > (1 if max_side else 4)
    assert files(other, there) == files(mixed, here)
    assert there.shards() == here.shards()
    assert there.record.counts == here.record.counts
    assert verify(other) == []
    assert not list(mixed.work_folder("select").iterdir())
    assert not list(other.work_folder("select").iterdir())


@pytest.mark.usefixtures("small_files")
def test_images_are_counted_once_where_they_are_fetched(mixed: Store) -> None:
    counted: list[int] = []
    selection = Selection(view="v", teachers=["t0"], mode="packed")
    here = select(mixed, selection, on_images=counted.append)
    alone = sum(counted)
    select(mixed, selection, on_images=counted.append, engine=Elsewhere(backwards))

    assert alone == here.record.num_images
    assert sum(counted) == 2 * alone


@pytest.mark.usefixtures("small_files")
def test_a_part_that_is_gone_stops_the_selection(mixed: Store) -> None:
    def losing(work: Any, tasks: Sequence[Any]) -> Iterator[Any]:  # noqa: ANN401  any work
        if isinstance(work, packing.PackFiles):
            (Path(work.folder) / "images-000001").unlink()
        return map(work.open(lambda _: None), tasks)

    with pytest.raises(StoreError, match=r"was deleted while it was needed, by 'plstore gc'"):
        selected(mixed, Elsewhere(losing))

    assert mixed.table("views").dataset().count_rows() == 0
    assert not list(mixed.work_folder("select").iterdir())


@pytest.mark.usefixtures("small_files")
def test_a_part_with_other_images_is_refused(mixed: Store) -> None:
    def swapping(work: Any, tasks: Sequence[Any]) -> Iterator[Any]:  # noqa: ANN401  any work
        if isinstance(work, packing.PackFiles):
            first, second = (Path(work.folder) / f"images-00000{n}" for n in (0, 1))
            first.write_bytes(second.read_bytes() + bytes(9_000))
        return map(work.open(lambda _: None), tasks)

    with pytest.raises(StoreError, match=r"part 0 of a selection holds image \d+ in place of"):
        selected(mixed, Elsewhere(swapping))


def test_a_view_by_reference_has_nothing_to_pack(mixed: Store) -> None:
    with pytest.raises(
        InputError, match=r"this view is by reference.*Select with --mode packed"
    ):
        selected(mixed, Elsewhere(backwards), mode=None)


def test_what_counts_for_more_than_a_column_holds_is_split(
    mixed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = selected(mixed)
    monkeypatch.setattr(packing, "_PIECE_BYTES", 5_000)
    monkeypatch.setattr(writing, "FILE_BYTES", 5_000)
    pieces = selected(mixed, view="pieces")
    names = ("sample_id", "image", "image_hash", "width")

    assert len(pieces.shards()) > len(whole.shards()) == 2
    assert _rows(pieces, names) == _rows(whole, names)


def _rows(view: View, names: Sequence[str]) -> list[list[Any]]:
    return [
        [row[name] for name in names] for batch in view.batches() for row in batch.to_pylist()
    ]


_SELECT = """
import sys, time
import plstore
from plstore.views import fetching, packing, writing
from tests.views.test_packing import Elsewhere, selected

writing.FILE_BYTES, packing.PIECE_ROWS, fetching._PART_BYTES = 12_000, 4, 9_000

def slowly(work, tasks):
    for done in map(work.open(lambda _: None), tasks):
        yield done
        time.sleep(0.1)

selected(plstore.open(sys.argv[1]), Elsewhere(slowly))
"""


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(
    "left", ["_plstore/select/.pack-*/images-*", "view_rows/*/*/*.parquet"]
)
def test_a_selection_that_is_killed_is_done_again(
    mixed: Store, tmp_path: Path, left: str
) -> None:
    whole = plstore.open(shutil.copytree(mixed.root, tmp_path / "whole"))
    wanted = selected(whole)
    process = subprocess.Popen([sys.executable, "-c", _SELECT, str(mixed.root)], cwd=ROOT)
    while not list(mixed.root.glob(left)) and process.poll() is None:
        time.sleep(0.01)
    process.kill()

    assert process.wait() == -signal.SIGKILL
    assert mixed.table("views").dataset().count_rows() == 0
    again = selected(mixed)
    assert files(mixed, again) == files(whole, wanted)
    assert again.shards() == wanted.shards()
    collect(mixed, grace=timedelta(0))
    assert verify(mixed) == []
    assert not [path for path in mixed.work_folder("select").rglob("*") if path.is_file()]
