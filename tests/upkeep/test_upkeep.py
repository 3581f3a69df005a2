"""Collection, compaction, deletion and verification, on real files."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

import plstore
from plstore.errors import CommitConflictError, StoreError
from plstore.images import ImageRecord, import_images
from plstore.loaders.imageset import open_view_images
from plstore.query import run_query
from plstore.schema import TABLES
from plstore.store import Store, add_tag
from plstore.upkeep import collect, collectable, compact, erase, verify
from plstore.views import View, ViewMode, open_view
from tests.conftest import CLASS_NAMES, encode, give_labels, make_records

NOW = timedelta(0)


def make_view(
    store: Store,
    teacher: str = "t0",
    iteration: int = 1,
    name: str = "v",
    mode: ViewMode = "packed",
) -> View:
    balance = plstore.Balance(min_confidence=0.0, images_per_class=9, seed=0)
    selection = plstore.Selection(
        view=name, teachers=[f"{teacher}@{iteration}"], balance=balance, mode=mode
    )
    return plstore.select(store, selection)


def add_later(store: Store, count: int = 3, *, batches: int = 3) -> None:
    random = np.random.default_rng(7)
    for batch in range(batches):
        records = [
            ImageRecord(
                key=f"later/{batch}-{n}.png",
                split="unlabeled",
                data=encode(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)),
            )
            for n in range(count)
        ]
        import_images(store, records, dataset="pets", class_names=CLASS_NAMES)


def test_nothing_of_a_store_in_use_is_collectable(store: Store) -> None:
    give_labels(store)
    make_view(store)

    assert collectable(store, grace=NOW) == []


def test_relabeled_files_stay_while_a_view_or_tag_needs_them(store: Store) -> None:
    first = give_labels(store)
    view = make_view(store)
    add_tag(store, "before")
    give_labels(store, name="again", probabilities=first[:, ::-1].copy())
    collect(store, grace=NOW)
    pinned = view.record.pins["soft_labels"]
    old = store.table("soft_labels").read(version=pinned).sort_by("sample_id")

    assert (old["class_id"].to_numpy() == first.argmax(axis=1)).all()
    assert verify(store) == []


def test_relabeled_files_go_when_nothing_needs_them(store: Store) -> None:
    first = give_labels(store)
    (old,) = store.table("soft_labels").files()
    give_labels(store, name="again", probabilities=first[:, ::-1].copy())
    within_a_day = collectable(store)
    found = collectable(store, grace=NOW)
    kept = Path(old).is_file()
    collect(store, grace=NOW)

    assert within_a_day == []
    assert [(item.reason, kept) for item in found] == [("superseded", True)]
    assert not Path(old).is_file()
    assert store.table("soft_labels").dataset().count_rows() == 60


def test_what_killed_writers_left_is_found_and_collected(store: Store) -> None:
    table = store.table("runs")
    rows = pa.Table.from_pylist([{"run": "r", "step": 1}], schema=TABLES["runs"].columns)
    orphan = table.write_shard("orphan", rows)
    temporary = table.root / ".part-0.parquet.1234"
    temporary.write_bytes(b"half")
    before = {problem.what for problem in verify(store)}
    found = {item.path: item.reason for item in collect(store, grace=NOW)}

    assert before == {"orphan_file"}
    assert found == {
        f"runs/{orphan.path}": "never_committed",
        f"runs/{temporary.name}": "temporary",
    }
    assert verify(store) == []


def test_a_shard_that_was_collected_too_soon_is_not_committed(store: Store) -> None:
    table = store.table("runs")
    rows = pa.Table.from_pylist([{"run": "r", "step": 1}], schema=TABLES["runs"].columns)
    shard = table.write_shard("late", rows)
    collect(store, grace=NOW)

    with pytest.raises(StoreError, match="gone before it was committed"):
        table.commit([shard], lineage={}, transaction="late")
    assert table.dataset().count_rows() == 0


def test_compaction_merges_files_and_keeps_rows(store: Store) -> None:
    add_later(store)
    for n in range(4):
        store.append("runs", [{"run": "r", "step": n}], identity=str(n), step="test")
    before = {name: store.table(name).read() for name in ("images", "runs", "truth")}
    results = {r.table: (r.files_before, r.files_after) for r in compact(store)}
    after = {name: store.table(name).read() for name in before}

    assert results["images"] == (4, 1)
    assert results["runs"] == (4, 1)
    assert after["images"].equals(before["images"].sort_by("sample_id"))
    assert after["runs"].sort_by("step").equals(before["runs"].sort_by("step"))
    assert {r.files_before - r.files_after for r in compact(store)} == {0}
    assert verify(store) == []


def test_compaction_keeps_labels_aligned(store: Store) -> None:
    give_labels(store)
    add_later(store)
    from plstore.codec import Codec
    from plstore.labels import LabelBatch, LabelSet, commit_labels, write_labels

    label_set = LabelSet(iteration=1, teacher_id="t0", split="unlabeled")
    ids = np.arange(84, 93)
    batch = LabelBatch(sample_ids=ids, probabilities=np.eye(3, dtype=np.float32)[ids % 3])
    shards = write_labels(store, label_set, [batch], codec=Codec(), identity="more")
    commit_labels(
        store,
        shards,
        lineage={},
        transaction="more",
        beside=store.table("soft_labels").shards(),
    )
    compact(store)
    (shard,) = store.table("soft_labels").shards()
    rows = pq.read_table(store.table("soft_labels").root / shard.path)

    assert rows["sample_id"].to_pylist() == [*range(12, 72), *range(84, 93)]
    assert verify(store) == []


def test_two_compactions_of_the_same_files_do_not_both_happen(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_later(store)
    table = store.table("images")
    shards = table.shards()
    rows = table.dataset_of(shards).to_table(columns=table.spec.file_schema.names)
    merged = [table.write_shard(f"merged-{n}", rows) for n in range(2)]
    handle = table._opened(None)
    table.commit([merged[0]], lineage={}, transaction="a", remove=shards, data_change=False)
    monkeypatch.setattr(table, "_delta", lambda: handle)  # stale, as another writer's is
    monkeypatch.setattr("plstore.store.change._CONFLICT_SECONDS", 0.05)

    with pytest.raises(CommitConflictError, match="at the same time"):
        table.commit([merged[1]], lineage={}, transaction="b", remove=shards, data_change=False)
    monkeypatch.undo()
    assert table.dataset().count_rows() == 93


def held_bytes(store: Store, data: bytes) -> list[str]:
    return [
        path.relative_to(store.root).as_posix()
        for path in store.root.rglob("*")
        if path.is_file() and data in path.read_bytes()
    ]


def test_a_deleted_image_is_nowhere_and_its_bytes_go_with_gc(store: Store) -> None:
    give_labels(store)
    view = make_view(store)
    compact(store)
    add_tag(store, "tagged")
    open_view_images(view)  # fills the cache
    victim, data = 20, make_records()[20].data
    before = held_bytes(store, data)
    erased = erase(store, [victim], reason="asked for", who="ann")
    collect(store, grace=NOW)
    again = open_view(store, "v")
    ids = [i for batch in again.batches() for i in batch["sample_id"].to_pylist()]

    assert any(name.startswith("images/") for name in before)
    assert any(name.startswith("view_rows/") for name in before)
    assert held_bytes(store, data) == []
    assert (erased.num_images, erased.views) == (1, ("v@1",))
    assert erased.rows_by_table["soft_labels"] == 1
    assert run_query(store, "audit/views_with_deletions").to_pylist() == [
        {
            "view": "v",
            "version": 1,
            "num_images": view.record.num_images,
            "num_deleted": 1,
            "finding": "note",
        }
    ]
    assert victim not in ids
    assert again.num_deleted == 1
    assert verify(store) == []


def test_old_versions_are_read_less_what_was_deleted(store: Store) -> None:
    first = give_labels(store)
    make_view(store)
    add_tag(store, "tagged")
    give_labels(store, name="again", probabilities=first[:, ::-1].copy())
    erase(store, [20, 21], reason="asked for", who="ann")
    collect(store, grace=NOW)
    with plstore.connect(store, as_of="tagged") as sql:
        counts = sql.sql("select (from images select count(*)), count(*) from soft_labels")

        assert counts.fetchall() == [(82, 58)]
    assert verify(store) == []


def test_a_deleted_image_does_not_come_back(store: Store) -> None:
    erase(store, [20], reason="asked for", who="ann")
    record = make_records()[20]
    renamed = ImageRecord(key="elsewhere.png", split="unlabeled", data=record.data)
    counts = import_images(store, [record, renamed], dataset="pets", class_names=CLASS_NAMES)

    assert (counts.deleted, counts.first_deleted) == (1, record.key)
    assert (counts.deleted_copies, counts.first_copy) == (1, ("elsewhere.png", record.key))
    assert store.table("images").dataset().count_rows() == 83


def test_a_twin_that_was_there_before_its_image_was_deleted_is_there(store: Store) -> None:
    first = make_records()[20]
    twin = ImageRecord(key="twin.png", split="unlabeled", data=first.data)
    import_images(store, [twin], dataset="pets", class_names=CLASS_NAMES)
    erase(store, [20], reason="asked for", who="ann")
    counts = import_images(store, [twin], dataset="pets", class_names=CLASS_NAMES)

    assert (counts.already_there, counts.deleted, counts.deleted_copies) == (1, 0, 0)


def test_a_store_of_many_commits_is_kept_in_order(store: Store) -> None:
    """delta-rs leaves a checkpoint, a Parquet file, in the log of every hundredth commit."""
    give_labels(store)
    make_view(store)
    for name in TABLES:
        DeltaTable(store.table(name).root.as_uri()).create_checkpoint()
    erased = erase(store, [20], reason="asked for", who="ann")
    compact(store)
    collect(store, grace=NOW)

    assert list(store.root.glob("*/_delta_log/*.checkpoint.parquet"))
    assert erased.rows_by_table["soft_labels"] == 1
    assert verify(store) == []


def test_a_file_of_another_program_does_not_stop_a_deletion(store: Store) -> None:
    table = store.table("truth")
    pq.write_table(pa.table({"label": [1]}), table.root / "theirs.parquet")

    assert erase(store, [20], reason="asked for", who="ann").num_images == 1


def test_a_deletion_that_was_stopped_is_completed_by_doing_it_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_labels(store)
    make_view(store)
    from plstore.store import table as table_module
    from plstore.upkeep import erase as module_function

    write = table_module.Table.commit

    def stop(self: object, *args: object, **options: object) -> int:
        if getattr(self, "spec").name == "soft_labels":  # noqa: B009  of any object
            raise KeyboardInterrupt
        return write(self, *args, **options)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(table_module.Table, "commit", stop)
    with pytest.raises(KeyboardInterrupt):
        module_function(store, [20], reason="asked for", who="ann")
    monkeypatch.undo()
    found = {problem.what for problem in verify(store)}
    module_function(store, [20], reason="asked for", who="ann")
    collect(store, grace=NOW)

    assert "unknown_image" in found
    assert verify(store) == []
    assert store.table("deletions").dataset().count_rows() == 1


Damage = Callable[[Store], object]


def flip_a_byte(store: Store) -> None:
    path = Path(store.table("soft_labels").files()[0])
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def cut(store: Store) -> None:
    path = Path(store.table("images").files()[0])
    path.write_bytes(path.read_bytes()[:-10])


def lose(store: Store) -> None:
    Path(store.table("view_rows").files()[0]).unlink()


def wrong_rows(store: Store, **columns: object) -> None:
    table = store.table("soft_labels")
    (shard,) = table.shards()
    rows = pq.ParquetFile(table.root / shard.path).read()
    for name, change in columns.items():
        values = change(rows[name])  # type: ignore[operator]  # a function
        rows = rows.set_column(rows.column_names.index(name), rows.schema.field(name), values)
    wrong = table.write_shard("wrong", rows, shard.partition)
    table.commit([wrong], lineage={}, transaction="wrong", replace=True)


def other_class(store: Store) -> None:
    wrong_rows(store, class_id=lambda ids: pa.array((ids.to_numpy() + 1) % 3, pa.int32()))


def twice(store: Store) -> None:
    wrong_rows(store, sample_id=lambda ids: pa.array([12, *ids.to_pylist()[:-1]]))


def unknown(store: Store) -> None:
    wrong_rows(store, sample_id=lambda ids: pa.array(ids.to_numpy() + 5000))


def no_distribution(store: Store) -> None:
    def change(labels: pa.ChunkedArray) -> pa.Array:
        array = labels.combine_chunks()
        fields = array.flatten()
        fields[2] = pa.array([0.5] * len(array), pa.float32())
        return pa.StructArray.from_arrays(fields, fields=list(array.type))

    wrong_rows(store, label=change)


def no_pin(store: Store) -> None:
    shutil.rmtree(store.table("classes").root / "_delta_log")
    store.table("classes").create()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (flip_a_byte, "checksum"),
        (cut, "size"),
        (lose, "file_is_missing"),
        (other_class, "argmax"),
        (twice, "sample_ids"),
        (unknown, "unknown_image"),
        (no_distribution, "probability_sum"),
        (no_pin, "pin_is_gone"),
    ],
)
def test_verify_finds_what_is_wrong(store: Store, damage: Damage, what: str) -> None:
    give_labels(store)
    make_view(store)
    sound = verify(store)
    damage(store)

    assert sound == []
    assert what in {problem.what for problem in verify(store)}
