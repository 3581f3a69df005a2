"""The snapshot that a table holds: up to date, of one thread, and never of another log."""

import pickle
import shutil
import threading
from pathlib import Path

import pyarrow as pa
import pytest

import plstore
from plstore.errors import CommitConflictError
from plstore.store import Shard, Store, Table


@pytest.fixture
def place(tmp_path: Path) -> Path:
    plstore.create(tmp_path / "store").ensure_classes(["a", "b"])
    return tmp_path / "store"


def note(store: Store, number: int) -> None:
    rows = [{"run": "r", "step": number, "name": "loss", "value": 1.0}]
    store.append("runs", rows, identity=f"n{number}", step="test")


def steps(store: Store) -> list[int]:
    return sorted(store.table("runs").read(columns=["step"])["step"].to_pylist())


def test_commits_of_other_writers_are_seen(place: Path) -> None:
    ours, theirs = plstore.open(place), plstore.open(place)
    note(ours, 0)
    for number in range(1, 120):  # past a checkpoint
        note(theirs if number % 2 else ours, number)

    assert steps(ours) == steps(theirs) == list(range(120))
    assert ours.table("runs").version() == theirs.table("runs").version() == 120


def test_what_is_held_is_the_same_object_until_something_is_committed(place: Path) -> None:
    table = plstore.open(place).table("runs")
    held = table._delta()

    assert table._delta() is held
    assert table._delta(held.version()) is held
    note(plstore.open(place), 0)
    assert table._delta(0) is held  # asked for by number: no one looks for newer ones
    assert table._delta().version() == 1
    assert table._delta(0) is not held


def test_a_log_in_place_of_another_is_read_anew(place: Path, tmp_path: Path) -> None:
    store = plstore.open(place)
    note(store, 0)
    shutil.copytree(place, tmp_path / "copy")
    note(store, 1)
    note(store, 2)
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "copy", place)

    assert steps(store) == [0]
    note(store, 3)
    assert steps(plstore.open(place)) == [0, 3]


def test_a_log_of_as_many_commits_in_place_of_another_is_read_anew(
    place: Path, tmp_path: Path
) -> None:
    other = plstore.create(tmp_path / "other")
    other.ensure_classes(["a", "b"])
    note(other, 7)
    store = plstore.open(place)
    note(store, 0)
    shutil.rmtree(place)
    (tmp_path / "other").rename(place)

    assert steps(store) == [7]


def test_another_thread_has_a_snapshot_of_its_own(place: Path) -> None:
    table = plstore.open(place).table("runs")
    ours, found = table._delta(), list[object]()
    thread = threading.Thread(target=lambda: found.append(table._delta()))
    thread.start()
    thread.join()

    assert len(found) == 1
    assert found[0] is not ours
    assert table._delta() is ours


def test_another_process_looks_for_itself(place: Path) -> None:
    store = plstore.open(place)
    note(store, 0)
    again: Store = pickle.loads(pickle.dumps(store))  # noqa: S301  our own

    assert steps(again) == [0]


def shards_of_ids(table: Table, *ranges: tuple[int, int]) -> list[Shard]:
    partition: dict[str, str | int] = {"iteration": 1, "teacher_id": "t", "split": "unlabeled"}
    shards = []
    for first, last in ranges:
        rows = pa.table(
            {
                name: pa.array([first, last], pa.int64())
                if name == "sample_id"
                else pa.nulls(2, table.spec.file_schema.field(name).type)
                for name in table.spec.file_schema.names
            }
        )
        shards.append(table.write_shard(f"labels-{first}", rows, partition))
    return shards


@pytest.mark.parametrize(
    ("ids", "meets"), [((11, 19), False), ((5, 6), True), ((20, 25), True), ((31, 40), False)]
)
def test_a_commit_beside_others_meets_those_of_the_same_ids_alone(
    place: Path, ids: tuple[int, int], *, meets: bool
) -> None:
    table = plstore.open(place).table("soft_labels")
    table.commit(shards_of_ids(table, (0, 10)), lineage={}, transaction="a")
    table.commit(shards_of_ids(table, (20, 30)), lineage={}, transaction="b", beside=[])
    new = shards_of_ids(table, (100, 110), ids)
    if not meets:
        table.commit(new, lineage={}, transaction="c", beside=[])
        assert len(table.shards()) == 4
        return
    with pytest.raises(CommitConflictError, match=r"another writer committed .*labels-(0|20)-"):
        table.commit(new, lineage={}, transaction="c", beside=[])


def test_files_of_a_snapshot_come_by_partition_then_sample_id(place: Path) -> None:
    table = plstore.open(place).table("soft_labels")
    rows = {name: pa.nulls(1, table.spec.file_schema.field(name).type) for name in ("label",)}
    written = []
    for iteration, first in ((10, 5), (2, 9), (2, 1)):
        values = {"sample_id": [first], "class_id": [0], "confidence": [0.5], "entropy": [0.1]}
        partition: dict[str, str | int] = {
            "iteration": iteration,
            "teacher_id": "t",
            "split": "test",
        }
        written.append(table.write_shard("labels", pa.table({**values, **rows}), partition))
    table.commit(written, lineage={}, transaction="a")

    assert table.shards() == [written[0], written[2], written[1]]  # as text: "10" before "2"
    assert table.shards(partition={"iteration": 2}) == [written[2], written[1]]
    assert table.shards(partition={"iteration": 3}) == []
