"""Writers, deletions and collections that meet: what one does is not undone by another."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import plstore
from plstore.codec import Codec
from plstore.errors import CommitConflictError, InputError
from plstore.images import import_images
from plstore.labels import LabelBatch, LabelSet, at_temperature, commit_labels, write_labels
from plstore.loaders import open_split
from plstore.schema import TABLES
from plstore.selection import into_view
from plstore.store import Shard, Store, add_tag, pin, unpin
from plstore.store.versions import step_pins
from plstore.upkeep import collect, compact, correct, erase, exclude, verify
from plstore.upkeep import collect as collect_function
from tests.conftest import CLASS_NAMES, give_labels, make_records

NOW = timedelta(0)
MINE = LabelSet(iteration=1, teacher_id="mine", split="unlabeled")


def shards_of(store: Store, seed: int) -> list[Shard]:
    probs = np.random.default_rng(seed).dirichlet([1] * 3, 60).astype(np.float32)
    batch = LabelBatch(sample_ids=np.arange(12, 72), probabilities=probs)
    return write_labels(store, MINE, [batch], codec=Codec(), identity=f"s{seed}")


@pytest.mark.parametrize("name", ["My Drive", "José", "[glob]*"])
def test_a_store_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    store = plstore.create(tmp_path / name / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    give_labels(store, "a", 1)
    give_labels(store, "b", 2)
    compact(store)
    collect(store, grace=NOW)
    with plstore.connect(plstore.open(store.root)) as sql:
        assert sql.sql("select count(*) from soft_labels").fetchall() == [(120,)]
    assert len(plstore.query.diff(store, "a", "b")) > 0
    assert verify(store) == []


@pytest.mark.parametrize("name", ["per%20cent", "a#b", "q?x"])
def test_a_folder_that_cannot_hold_a_store_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be kept below a folder with one of"):
        plstore.create(tmp_path / name / "store")
    assert not (tmp_path / name).exists()


def stale(
    table: Any,  # noqa: ANN401  a Table
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle = table._delta()
    first = iter([handle])
    fresh = table._delta
    monkeypatch.setattr(table, "_delta", lambda v=None: next(first, None) or fresh(v))


def test_two_first_labelings_of_one_set_do_not_both_stay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [shards_of(store, seed) for seed in (1, 2)]
    other = plstore.open(store.root)
    stale(store.table("soft_labels"), monkeypatch)  # it looked before the other committed
    commit_labels(other, shards[0], lineage={}, transaction="one")
    commit_labels(store, shards[1], lineage={}, transaction="two")

    assert store.table("soft_labels").dataset().count_rows() == 60
    assert verify(store) == []


def test_labels_made_to_stand_beside_none_are_refused_when_there_are_some(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [shards_of(store, seed) for seed in (1, 2)]
    other = plstore.open(store.root)
    stale(store.table("soft_labels"), monkeypatch)
    commit_labels(other, shards[0], lineage={}, transaction="one")

    with pytest.raises(CommitConflictError, match=r"another writer committed .*labels-s1"):
        commit_labels(store, shards[1], lineage={}, transaction="two", beside=[])
    assert store.table("soft_labels").dataset().count_rows() == 60


def test_a_file_that_a_writer_came_back_for_is_not_collected(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = store.table("runs")
    rows = pa.Table.from_pylist([{"run": "r", "step": 1}], schema=TABLES["runs"].columns)
    shard = table.write_shard("late", rows)
    module = __import__("sys").modules[collect_function.__module__]
    listed = module.collectable

    def then_committed(*args: object, **options: object) -> object:
        found = listed(*args, **options)
        table.commit([shard], lineage={}, transaction="late")
        return found

    monkeypatch.setattr(module, "collectable", then_committed)
    collect(store, grace=timedelta(milliseconds=1))

    assert table.dataset().count_rows() == 1
    assert verify(store) == []


def test_labels_written_before_a_deletion_are_not_committed_after_it(store: Store) -> None:
    shards = shards_of(store, 1)
    erase(store, [20], reason="asked for", who="ann")

    with pytest.raises(CommitConflictError, match="were deleted while it was written"):
        commit_labels(store, shards, lineage={}, transaction="late")
    assert store.table("soft_labels").dataset().count_rows() == 0


def test_an_image_deleted_while_a_view_is_written_is_not_in_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_labels(store)
    write = getattr(into_view, "commit_view")  # noqa: B009  it is of another module

    def delete_first(*args: Any, **options: Any) -> object:  # noqa: ANN401  passed through
        view = write(*args, **options)
        erase(plstore.open(store.root), [20], reason="asked for", who="ann")
        for path in view.store.table("view_rows").files():  # as if it had been there later
            assert Path(path).is_file()
        return view

    monkeypatch.setattr(into_view, "commit_view", delete_first)
    balance = plstore.Balance(min_confidence=0.0, images_per_class=99, seed=0)
    view = plstore.select(
        store,
        plstore.Selection(view="v", teachers=["t0@1"], balance=balance),
    )
    collect(store, grace=NOW)
    data = make_records()[20].data

    assert view.num_deleted == 1
    assert not any(
        data in path.read_bytes() for path in store.root.rglob("*") if path.is_file()
    )


def test_a_store_that_was_open_before_a_deletion_does_not_read_it_any_more(
    store: Store,
) -> None:
    give_labels(store)
    add_tag(store, "tagged")
    versions = store.versions()
    store.table("images").read(version=versions["images"])  # it has looked for erasures once
    erase(plstore.open(store.root), [20], reason="asked for", who="ann")
    collect(plstore.open(store.root), grace=NOW)
    images = open_split(store, "unlabeled", version=versions["images"])
    rows = store.table("soft_labels").read(version=versions["soft_labels"])

    assert 20 not in images.sample_ids
    assert rows.num_rows == 59
    assert not any(
        make_records()[20].data in path.read_bytes()
        for path in store.root.rglob("*")
        if path.is_file()
    )


def test_two_deletions_of_one_file_add_up(store: Store) -> None:
    give_labels(store)
    add_tag(store, "tagged")
    erase(store, [20], reason="asked for", who="ann")
    erase(store, [21, 22], reason="asked for", who="ann")
    collect(store, grace=NOW)
    with plstore.connect(store, as_of="tagged") as sql:
        found = sql.sql("select sample_id from images order by 1").fetchall()

    assert [n for (n,) in found] == [n for n in range(84) if n not in {20, 21, 22}]
    assert verify(store) == []


def test_a_deletion_that_was_only_noted_is_found(store: Store) -> None:
    row = {"sample_id": 20, "dataset": "pets", "key": "k", "content_hash": "h"}
    store.append("deletions", [row], identity="noted", step="delete")

    assert [problem.what for problem in verify(store)] == ["deleted_image"]


def test_what_a_writer_of_pins_left_does_not_stop_collection(store: Store) -> None:
    pin(store, "step", store.versions())
    (store.work_folder("pins") / ".other.json.1234").write_bytes(b"")
    collect(store)

    assert list(step_pins(store)) == ["step"]
    unpin(store, "step")
    assert step_pins(store) == {}


def test_a_snapshot_that_was_collected_cannot_be_tagged(store: Store) -> None:
    first = give_labels(store)
    number = sum(store.versions().values())
    give_labels(store, name="again", probabilities=first[:, ::-1].copy())
    collect(store, grace=NOW)

    with pytest.raises(InputError, match="it cannot be tagged any more"):
        add_tag(store, "old", as_of=number)
    assert add_tag(store, "new").name == "new"


def test_a_flat_distribution_survives_any_temperature() -> None:
    flat = np.full((2, 1000), 1e-3, np.float32)

    assert np.allclose(at_temperature(flat, 0.05), flat)


def test_validation_images_are_evaluated_as_they_were_corrected(store: Store) -> None:
    before = open_split(store, "validation").class_ids
    number = int(open_split(store, "validation").sample_ids[0])
    name = CLASS_NAMES[(int(before[0]) + 1) % 3]
    correct(store, {number: name}, who="ann")
    after = open_split(store, "validation").class_ids

    assert CLASS_NAMES[after[0]] == name
    assert after[1:].tolist() == before[1:].tolist()


Decide = Callable[[Store], object]


def test_steps_keep_their_identity_when_decisions_are_compacted(
    tmp_path: Path,
) -> None:
    from trainers.loop import open_run
    from trainers.recipe import load_recipe
    from trainers.sources import open_source

    recipe = load_recipe("fashion_mnist", ["data.limit_unlabeled=5"], {})
    source = open_source(recipe.data, recipe.seed)
    store = plstore.create(tmp_path / "store")
    import_images(
        store,
        (r for n, r in enumerate(source.records()) if n < 40),
        dataset=source.dataset,
        class_names=source.class_names,
    )

    def keys() -> list[str]:
        return [step.key for step in open_run(recipe, store, device="cpu").steps]

    none = keys()
    exclude(store, [3], reason="blurred", who="ann")
    exclude(store, [4], reason="blurred", who="ann")
    two = keys()
    compact(store)

    assert two != none
    assert keys() == two
