"""A collection beside writers and deletions: what someone needs or comes back for stays."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import plstore
from plstore import storage
from plstore.codec import Codec
from plstore.errors import CommitConflictError, InputError, StoreError
from plstore.labels import LabelBatch, LabelSet, commit_labels, write_labels
from plstore.schema import TABLES
from plstore.store import Shard, Store, add_tag, drop_pin, pin, pins, resolve
from plstore.store.log import Erasures
from plstore.store.table import Table
from plstore.upkeep import collect, erase, verify
from tests.conftest import give_labels, make_records

NOW = timedelta(0)
HOUR = timedelta(hours=1)
MINE = LabelSet(iteration=1, teacher_id="mine", split="unlabeled")


class Killed(BaseException):
    """What stops a deletion here, as a signal would."""


def age(store: Store) -> None:
    """Make every file two hours old."""
    then = time.time() - 7200
    for path in store.root.rglob("*"):
        os.utime(path, (then, then))


def kill_at(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *, table: str
) -> Callable[[], None]:
    """End the next call of a method for one table of a store as if the process were killed."""
    before = getattr(owner, name)

    def dies(self: Any, *args: object, **options: object) -> object:  # noqa: ANN401  of a Table
        if (self.spec.name if isinstance(self, Table) else self._table) == table:
            raise Killed
        return before(self, *args, **options)

    monkeypatch.setattr(owner, name, dies)
    return lambda: monkeypatch.setattr(owner, name, before)


@pytest.mark.parametrize("table", ["images", "soft_labels"])
def test_a_deletion_that_was_killed_survives_a_collection(
    store: Store, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    give_labels(store)
    add_tag(store, "tagged")
    alive = kill_at(monkeypatch, Table, "commit", table=table)
    with pytest.raises(Killed):
        erase(store, [20], reason="asked for", who="ann")
    alive()
    age(store)
    collect(store, grace=HOUR)
    tagged = resolve(store, "tagged")

    assert store.table("soft_labels").read(version=tagged["soft_labels"]).num_rows >= 59
    assert store.table("images").read(version=tagged["images"]).num_rows >= 83
    erase(store, [20], reason="asked for", who="ann")
    collect(store, grace=NOW)

    assert verify(store) == []
    assert not any(
        make_records()[20].data in path.read_bytes()
        for path in store.root.rglob("*")
        if path.is_file()
    )


def test_a_deletion_whose_new_file_is_gone_writes_it_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = kill_at(monkeypatch, Table, "commit", table="images")
    with pytest.raises(Killed):
        erase(store, [20], reason="asked for", who="ann")
    alive()
    (new,) = (n for n in Erasures(store.root, "images").by_path().values() if n is not None)
    (store.table("images").root / new["path"]).unlink()
    erase(store, [20, 21], reason="asked for", who="ann")

    assert verify(store) == []
    ids = store.table("images").read(columns=["sample_id"])["sample_id"].to_pylist()
    assert sorted(ids) == [n for n in range(84) if n not in {20, 21}]


@pytest.mark.parametrize("table", ["images", "soft_labels"])
def test_a_deletion_that_was_killed_does_not_stand_in_the_way_of_another(
    store: Store, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    give_labels(store)
    alive = kill_at(monkeypatch, Table, "commit", table=table)
    with pytest.raises(Killed):
        erase(store, [20], reason="asked for", who="ann")
    alive()
    erased = erase(store, [30], reason="asked for", who="bob")
    left = set(store.table("soft_labels").read()["sample_id"].to_pylist())
    erase(store, [20], reason="asked for", who="ann")

    assert erased.num_images == 1
    assert not {20, 30} & left  # files that were rewritten lost both
    assert verify(store) == []


def shards_of(store: Store, seed: int = 1) -> list[Shard]:
    probs = np.random.default_rng(seed).dirichlet([1] * 3, 60).astype(np.float32)
    batch = LabelBatch(sample_ids=np.arange(12, 72), probabilities=probs)
    return write_labels(store, MINE, [batch], codec=Codec(), identity=f"s{seed}")


def test_labels_written_after_a_deletion_by_a_writer_from_before_are_refused(
    store: Store,
) -> None:
    erase(store, [20], reason="asked for", who="ann")
    shards = shards_of(store)  # of images that it had read before

    with pytest.raises(CommitConflictError, match="were deleted while it was written"):
        commit_labels(store, shards, lineage={}, transaction="late")
    assert verify(store)[0].what == "orphan_file"
    assert store.table("soft_labels").dataset().count_rows() == 0


def test_labels_committed_in_the_middle_of_a_deletion_lose_its_images(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = shards_of(store)
    table = store.table("soft_labels")
    write_log = table._write_log

    def deleted_meanwhile(*args: Any) -> None:  # noqa: ANN401  passed through
        monkeypatch.setattr(table, "_write_log", write_log)
        erase(plstore.open(store.root), [20], reason="asked for", who="ann")
        write_log(*args)

    monkeypatch.setattr(table, "_write_log", deleted_meanwhile)
    commit_labels(store, shards, lineage={}, transaction="mid")
    collect(store, grace=NOW)
    ids = table.read(columns=["sample_id"])["sample_id"].to_pylist()

    assert sorted(ids) == [n for n in range(12, 72) if n != 20]
    assert verify(store) == []


def test_a_deletion_finds_what_was_committed_while_it_looked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = shards_of(store)
    module = __import__("sys").modules[erase.__module__]
    look = module._unreferenced

    def committed_first(table: Table, known: object) -> object:
        if table.spec.name == "soft_labels":
            monkeypatch.setattr(module, "_unreferenced", look)
            monkeypatch.setattr(Table, "_complete_deletions", lambda *_: None)
            other = plstore.open(store.root)
            with monkeypatch.context() as before:  # it had looked already
                before.setattr("plstore.store.table.check_not_deleted", lambda *_: None)
                commit_labels(other, shards, lineage={}, transaction="mid")
        return look(table, known)

    monkeypatch.setattr(module, "_unreferenced", committed_first)
    erase(store, [20], reason="asked for", who="ann")
    ids = store.table("soft_labels").read(columns=["sample_id"])["sample_id"].to_pylist()

    assert sorted(ids) == [n for n in range(12, 72) if n != 20]


def runs(store: Store, name: str) -> Shard:
    rows = pa.Table.from_pylist([{"run": name, "step": 1}], schema=TABLES["runs"].columns)
    return store.table("runs").write_shard(name, rows)


def listed_then(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Let something happen between the list of a collection and its deletions."""
    module = __import__("sys").modules[collect.__module__]
    listed = module.collectable

    def and_then(*args: object, **options: object) -> object:
        found = listed(*args, **options)
        then()
        return found

    monkeypatch.setattr(module, "collectable", and_then)


def test_a_superseded_file_that_is_committed_again_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = store.table("runs")
    first, second = runs(store, "first"), runs(store, "second")
    table.commit([first], lineage={}, transaction="1")
    table.commit([second], lineage={}, transaction="2", remove=[first])
    age(store)
    listed_then(
        monkeypatch,
        lambda: table.commit([first], lineage={}, transaction="3", remove=[second]),
    )
    collect(store, grace=NOW)

    assert table.read()["run"].to_pylist() == ["first"]
    assert verify(store) == []


def test_a_file_that_was_committed_in_time_and_looks_old_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the second look asks the log too: clocks of two machines differ
    table = store.table("runs")
    shard = runs(store, "late")

    def committed_by_another_clock() -> None:
        table.commit([shard], lineage={}, transaction="late")
        age(store)

    age(store)
    listed_then(monkeypatch, committed_by_another_clock)
    collect(store, grace=HOUR)

    assert table.read()["run"].to_pylist() == ["late"]


def test_a_file_that_is_about_to_be_committed_is_young(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = store.table("runs")
    shard = runs(store, "slow")  # by a writer that took two hours
    age(store)
    write_log = table._write_log

    def collected_meanwhile(*args: Any) -> None:  # noqa: ANN401  passed through
        monkeypatch.setattr(
            storage, "_wait_for_lock", lambda *_, **__: None
        )  # as if there were none
        collect(plstore.open(store.root), grace=HOUR)
        write_log(*args)

    monkeypatch.setattr(table, "_write_log", collected_meanwhile)
    table.commit([shard], lineage={}, transaction="slow")

    assert table.read()["run"].to_pylist() == ["slow"]


def test_a_collection_waits_for_a_commit(store: Store) -> None:
    lock = store.table("runs").lock_file
    happened = []

    def collects() -> None:
        with storage.held(lock):
            happened.append("collected")

    with storage.held(lock):
        other = Thread(target=collects)
        other.start()
        time.sleep(0.1)
        happened.append("committed")
    other.join()

    assert happened == ["committed", "collected"]


def test_a_lock_that_is_never_given_up_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_LOCK_SECONDS", 0.1)
    lock = store.table("runs").lock_file
    message = "locks/runs has been held by another process"
    with storage.held(lock), pytest.raises(StoreError, match=message):
        store.append("runs", [{"run": "r", "step": 1}], identity="x", step="test")


def test_a_model_that_no_teacher_names_is_found_and_collected(store: Store) -> None:
    for name in ("kept", "orphan"):
        folder = store.checkpoint(f"checkpoints/{name}")
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
    row = {
        "teacher_id": "kept",
        "iteration": 0,
        "role": "teacher",
        "checkpoint": "checkpoints/kept",
        "checkpoint_hash": plstore.fingerprint.content_hash(b"weights"),
    }
    store.append("teachers", [row], identity="kept", step="test")

    assert [(p.where, p.what) for p in verify(store)] == [
        ("checkpoints/orphan/model.safetensors", "orphan_file")
    ]
    assert collect(store, grace=HOUR) == []
    deleted = collect(store, grace=NOW)
    assert [item.path for item in deleted] == ["checkpoints/orphan/model.safetensors"]
    assert verify(store) == []


def test_pins_of_a_run_that_was_given_up_can_be_dropped(store: Store) -> None:
    first = give_labels(store)
    pin(store, "step", {"soft_labels": store.versions()["soft_labels"]}, why="pets, label-1")
    give_labels(store, name="again", probabilities=first[:, ::-1].copy())

    assert collect(store, grace=NOW) == []
    (found,) = pins(store)
    assert (found.name, found.why) == ("step", "pets, label-1")
    with pytest.raises(InputError, match="no pin 'other'; it has step"):
        drop_pin(store, "other")
    drop_pin(store, "step")

    assert {item.reason for item in collect(store, grace=NOW)} == {"superseded"}


def test_a_file_that_was_written_again_since_it_was_listed_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = runs(store, "again")
    age(store)
    listed_then(monkeypatch, lambda: runs(store, "again"))  # by a writer that starts over

    assert collect(store, grace=HOUR) == []
    store.table("runs").commit([shard], lineage={}, transaction="again")
    assert verify(store) == []
