"""A commit is done once, and the same content that comes back later is another commit."""

from threading import Barrier, Thread

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import plstore
from plstore.codec import Codec
from plstore.errors import CommitConflictError
from plstore.labels import (
    SHARD_IDS,
    LabelBatch,
    LabelSet,
    Member,
    commit_labels,
    make_ensemble,
    write_labels,
)
from plstore.schema import TABLES
from plstore.store import Shard, Store
from plstore.store.shard import locks
from plstore.upkeep import compact, verify
from tests.conftest import give_labels

MEMBERS = [Member(teacher_id="a", iteration=1), Member(teacher_id="b", iteration=1)]


def classes_of(store: Store, teacher_id: str) -> list[int]:
    where = pc.field("teacher_id") == teacher_id
    rows = store.table("soft_labels").read(columns=["sample_id", "class_id"], where=where)
    classes: list[int] = rows.sort_by("sample_id")["class_id"].to_pylist()
    return classes


def test_a_fusion_follows_members_whose_labels_alternate(store: Store) -> None:
    first = give_labels(store, "a", 1)
    give_labels(store, "b", 1, probabilities=np.full_like(first, 1 / 3))
    other = np.ascontiguousarray(first[:, ::-1])
    for turn, labels in enumerate([first, other, first, other]):
        give_labels(store, "a", 1, probabilities=labels, name=f"turn-{turn}")
        make_ensemble(store, "both", MEMBERS, iteration=1)

        assert classes_of(store, "both") == labels.argmax(axis=1).tolist()
    before = store.versions()
    make_ensemble(store, "both", MEMBERS, iteration=1)

    assert store.versions() == before


def test_a_fusion_of_labels_that_changed_meanwhile_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = give_labels(store, "a", 1)
    give_labels(store, "b", 1)
    make_ensemble(store, "both", MEMBERS, iteration=1)
    give_labels(store, "a", 1, probabilities=first[:, ::-1].copy(), name="again")
    module = __import__("sys").modules[make_ensemble.__module__]
    commit = module.commit_labels

    def another_was_first(*args: object, **options: object) -> int:
        monkeypatch.setattr(module, "commit_labels", commit)
        give_labels(store, "a", 1, probabilities=np.roll(first, 1, axis=1), name="third")
        make_ensemble(plstore.open(store.root), "both", MEMBERS, iteration=1)
        return int(commit(*args, **options))

    monkeypatch.setattr(module, "commit_labels", another_was_first)
    with pytest.raises(CommitConflictError, match="run the same command again"):
        make_ensemble(store, "both", MEMBERS, iteration=1)
    wanted = classes_of(store, "both")
    make_ensemble(store, "both", MEMBERS, iteration=1)

    assert classes_of(store, "both") == wanted


def test_files_that_were_merged_and_came_back_are_merged_again(store: Store) -> None:
    table = store.table("runs")

    def shard(run: str) -> Shard:
        row = {"run": run, "step": 1, "name": "loss", "value": 0.5}
        content = pa.Table.from_pylist([row], schema=TABLES["runs"].columns)
        return table.write_shard(run, content)

    shards = [shard("one"), shard("two")]
    for turn in range(2):
        rest = [s for s in table.shards() if s.path not in {t.path for t in shards}]
        table.commit(shards, lineage={}, transaction=f"turn-{turn}", remove=rest)
        said = {result.table: result for result in compact(store)}["runs"]

        assert (said.files_before, said.files_after) == (2, 1)
        assert len(table.shards()) == 1
    assert sorted(table.read()["run"].to_pylist()) == ["one", "two"]


def test_thirty_two_workers_of_one_teacher_all_commit(store: Store) -> None:
    label_set = LabelSet(iteration=1, teacher_id="many", split="unlabeled")
    start, failures = Barrier(32), []

    def work(number: int) -> None:
        own = plstore.open(store.root)
        start.wait()
        for turn in range(2):
            ids = np.arange(8) + (turn * 32 + number) * SHARD_IDS
            probs = np.random.default_rng(number).dirichlet([1] * 3, 8).astype(np.float32)
            batch = LabelBatch(sample_ids=ids, probabilities=probs)
            try:
                shards = write_labels(
                    own, label_set, [batch], codec=Codec(), identity=f"w{number}-{turn}"
                )
                commit_labels(
                    own, shards, lineage={}, transaction=f"w{number}-{turn}", beside=[]
                )
            except plstore.PlstoreError as error:
                failures.append(error)

    workers = [Thread(target=work, args=(number,)) for number in range(32)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ids = store.table("soft_labels").read(columns=["sample_id"])["sample_id"]

    assert failures == []
    assert len(ids) == 32 * 2 * 8 == pc.count_distinct(ids).as_py()


def test_a_second_worker_of_the_same_images_is_refused(store: Store) -> None:
    label_set = LabelSet(iteration=1, teacher_id="many", split="unlabeled")
    start, done = Barrier(2), []

    def work(number: int) -> None:
        own = plstore.open(store.root)
        probs = np.random.default_rng(number).dirichlet([1] * 3, 60).astype(np.float32)
        batch = LabelBatch(sample_ids=np.arange(12, 72), probabilities=probs)
        shards = write_labels(own, label_set, [batch], codec=Codec(), identity=f"w{number}")
        start.wait()
        try:
            commit_labels(own, shards, lineage={}, transaction=f"w{number}", beside=[])
        except CommitConflictError:
            done.append("refused")
        else:
            done.append("committed")

    workers = [Thread(target=work, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert sorted(done) == ["committed", "refused"]
    assert store.table("soft_labels").dataset().count_rows() == 60
    assert {problem.what for problem in verify(store)} == {"orphan_file"}  # of the other one


def names_of(*shards: Shard, whole: bool = False) -> set[str]:
    return {transaction.app_id for transaction in locks(shards, whole=whole)}


def test_only_those_who_write_the_same_range_stand_in_each_others_way() -> None:
    def shard(first: int, last: int, teacher: str = "a") -> Shard:
        bounds = {"minValues": {"sample_id": first}, "maxValues": {"sample_id": last}}
        stats = {"numRecords": 1, **bounds}
        return Shard(path="p", size_bytes=1, partition={"teacher_id": teacher}, stats=stats)

    here, beyond = shard(0, 9), shard(SHARD_IDS, SHARD_IDS + 9)
    both = shard(5, SHARD_IDS + 5)

    assert not names_of(here) & names_of(beyond)
    assert names_of(here) & names_of(shard(20, 30))
    assert names_of(both) & names_of(here)
    assert names_of(both) & names_of(beyond)
    assert not names_of(here) & names_of(shard(0, 9, "b"))
    assert names_of(here, whole=True) & names_of(beyond, whole=True)
    assert names_of(here, whole=True) & names_of(here)
    assert len(names_of(shard(0, 1000 * SHARD_IDS), whole=True)) == 65
