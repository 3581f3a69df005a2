"""Views by reference and packed: the same rows, the same images, in one seeded shuffle."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import plstore
from plstore.errors import StoreError
from plstore.images import import_images
from plstore.loaders import ImageFormat, Noise, load
from plstore.seeds import Purpose, shuffle_keys
from plstore.selection import Balance, Selection, select
from plstore.store import Store
from plstore.upkeep import compact, erase, verify
from plstore.views import View, open_view, shuffled
from plstore.views import shuffle as shuffling
from tests.conftest import CLASS_NAMES, give_labels, make_records


def make(store: Store, mode: Any, seed: int = 0, name: str = "v") -> View:  # noqa: ANN401
    balance = Balance(min_confidence=0.4, images_per_class=23, seed=seed)
    return select(store, Selection(view=name, teachers=["t0"], balance=balance, mode=mode))


def rows_of(view: View) -> list[dict[str, Any]]:
    return [row for batch in view.batches() for row in batch.to_pylist()]


@pytest.fixture
def many(tmp_path: Path) -> Store:
    """Return a store whose images are in several files."""
    store = plstore.create(tmp_path / "store")
    records = make_records()
    for start in range(0, len(records), 17):
        part = records[start : start + 17]
        import_images(store, part, dataset="pets", class_names=CLASS_NAMES)
    give_labels(store)
    return store


def test_both_modes_hold_the_same_rows_and_images(many: Store) -> None:
    reference, packed = make(many, "reference", name="r"), make(many, "packed", name="p")
    names = ("kind", "class_id", "copies", "label", "width", "height", "content_hash", "image")
    found = [
        {row["sample_id"]: {name: row[name] for name in names} for row in rows_of(view)}
        for view in (reference, packed)
    ]
    stored = {
        row["sample_id"]: row["image"]["bytes"]
        for row in many.table("images").read(columns=["sample_id", "image"]).to_pylist()
    }

    assert found[0] == found[1]
    assert all(row["image"] == stored[n] for n, row in found[0].items())
    bare = many.table("view_rows").dataset_of(reference.shards()).to_table()
    assert bare["image"].null_count == bare.num_rows
    assert not verify(many)


def test_a_view_by_reference_reads_each_row_group_once(many: Store) -> None:
    places = [
        (row["kind"], row["image_file"], row["image_row_group"])
        for row in rows_of(make(many, "reference"))
    ]
    runs = [place for n, place in enumerate(places) if not n or place != places[n - 1]]

    assert len(runs) == len(set(runs)) > 4
    assert [kind for kind, _, _ in runs] == sorted(kind for kind, _, _ in runs)


def test_the_order_is_a_shuffle_of_the_seed(many: Store) -> None:
    orders = [
        [row["sample_id"] for row in rows_of(make(many, "packed", seed, f"s{seed}-{again}"))]
        for seed, again in ((0, 0), (0, 1), (1, 0))
    ]
    labeled = orders[0][:12]

    assert orders[0] == orders[1] != orders[2]
    assert sorted(labeled) == list(range(12)) != labeled
    assert orders[0][12:] != sorted(orders[0][12:])


@pytest.mark.parametrize("num_buckets", [1, 3, 256])
def test_the_order_is_the_same_for_any_number_of_buckets(
    tmp_path: Path, num_buckets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.arange(5000, dtype=np.int64)
    table = pa.table({"sample_id": ids, "group": ids // 7, "value": ids * 2})
    batches = table.to_batches(max_chunksize=300)
    monkeypatch.setattr(shuffling, "_BUCKET_BYTES", 100)
    parts = list(
        shuffled(batches, seed=3, num_bytes=100 * num_buckets, folder=tmp_path / "spill")
    )
    found = pa.concat_tables(parts)
    keys = [shuffle_keys(ids // 7, 3, Purpose.VIEW_GROUPS), ids // 7]
    order = np.lexsort((ids, shuffle_keys(ids, 3, Purpose.VIEW_ROWS), *reversed(keys)))

    assert found["sample_id"].to_pylist() == ids[order].tolist()
    assert found["value"].to_pylist() == (ids[order] * 2).tolist()
    assert (len(parts) > 1) == (num_buckets > 1)
    assert not list(tmp_path.rglob("*.arrow"))


def test_keys_of_a_shuffle_are_all_different() -> None:
    ids = np.arange(200_000, dtype=np.int64)
    keys = shuffle_keys(ids, 0, Purpose.VIEW_ROWS)

    assert len(np.unique(keys)) == len(ids)
    assert abs(np.bincount((keys >> np.uint64(60)).astype(int)) - 12_500).max() < 500


def test_a_view_by_reference_outlives_compaction_and_deletion(many: Store) -> None:
    view = make(many, "reference")
    before = {row["sample_id"]: row["image"] for row in rows_of(view)}
    compact(many)
    victim = max(before)
    erase(many, [victim], reason="test")
    again = {row["sample_id"]: row["image"] for row in rows_of(open_view(many, "v"))}

    assert again == {n: data for n, data in before.items() if n != victim}
    assert view.num_deleted == 1


def test_a_place_that_holds_another_image_is_noticed(many: Store) -> None:
    view = make(many, "reference")
    (batch, *_) = many.table("view_rows").dataset_of(view.shards()).to_batches()
    index = batch.schema.get_field_index("image_row")
    wrong = batch.set_column(index, "image_row", pa.array([0] * batch.num_rows, pa.int32()))

    with pytest.raises(StoreError, match="does not hold image"):
        list(view.with_images([wrong]))


def test_labels_of_images_that_are_not_there_stop_a_selection(many: Store) -> None:
    from plstore.codec import Codec
    from plstore.labels import LabelBatch, LabelSet, commit_labels, write_labels

    label_set = LabelSet(teacher_id="odd", iteration=1, split="unlabeled")
    probs = np.array([[0.9, 0.05, 0.05]] * 2, np.float32)
    batch = LabelBatch(sample_ids=np.array([20, 9999]), probabilities=probs)
    shards = write_labels(many, label_set, [batch], codec=Codec(), identity="odd")
    commit_labels(many, shards, lineage={}, transaction="odd")

    with pytest.raises(StoreError, match="image 9999 is selected and is not in version"):
        select(many, Selection(view="v", teachers=["odd"]))


def test_a_loader_takes_both_modes(many: Store) -> None:
    batches = []
    for mode in ("reference", "packed"):
        view = make(many, mode, name=mode)
        steps = load(
            view,
            labeled_batch=4,
            pseudo_batch=8,
            image_format=ImageFormat(size=16),
            noise=Noise(),
            seed=0,
            backend="torch",
        )
        batches.append(next(iter(steps)))

    assert set(batches[0].sample_ids.tolist()) <= {*range(72)}
    assert batches[0].images.shape == batches[1].images.shape


def test_relabeling_keeps_images_and_copies_and_takes_new_labels(many: Store) -> None:
    first = make(many, "reference")
    give_labels(many, "t1", 2)
    again = select(many, Selection(view="w", teachers=["t1@2"], relabel="v@1"))
    old, new = (
        {row["sample_id"]: row for row in rows_of(view) if row["kind"] == "pseudo"}
        for view in (first, again)
    )

    assert {n: row["copies"] for n, row in new.items()} == {
        n: row["copies"] for n, row in old.items()
    }
    assert {n: row["label"] for n, row in new.items()} != {
        n: row["label"] for n, row in old.items()
    }
    assert again.record.counts["kept"] == len(old)
    assert again.record.parameters["relabel"] == "v@1"


def test_a_view_can_be_added_to_a_store_of_an_older_plstore(
    tmp_path: Path,
) -> None:
    import shutil

    shutil.copytree(Path(__file__).parents[1] / "data" / "store-format-1", tmp_path / "old")
    store = plstore.open(tmp_path / "old")
    view = select(
        store,
        Selection(view="new", teachers=["topk"], balance=Balance(min_confidence=0.0)),
    )
    old = open_view(store, "v")

    assert rows_of(view)
    assert old.record.mode == "packed"
    assert all(row["image"] for row in rows_of(old))


def test_a_deletion_while_a_view_is_written_leaves_the_rest_of_it(
    many: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dealt = shuffling._deal

    def deal_then_delete(*args: Any) -> set[int]:  # noqa: ANN401
        found = dealt(*args)
        erase(many, [83], reason="test")  # a test image, in no view
        return found

    monkeypatch.setattr(shuffling, "_BUCKET_BYTES", 100)
    monkeypatch.setattr(shuffling, "_deal", deal_then_delete)
    view = make(many, "packed")
    kinds = [row["kind"] for row in rows_of(view)]

    assert kinds.count("labeled") == 12
    assert kinds.count("pseudo") == view.record.counts["kept"] > 12


def test_files_of_one_range_of_ids_stay_together(
    many: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plstore.codec import Codec
    from plstore.labels import LabelBatch, LabelSet, commit_labels, write_labels
    from plstore.selection import balanced as plans

    label_set = LabelSet(teacher_id="mixed", iteration=1, split="unlabeled")
    random = np.random.default_rng(0)
    for part in range(3):
        ids = np.arange(12 + part, 72, 3)
        probs = random.dirichlet([0.5] * 3, len(ids)).astype(np.float32)
        batch = LabelBatch(sample_ids=ids, probabilities=probs)
        shards = write_labels(many, label_set, [batch], codec=Codec(), identity=f"m{part}")
        there = many.table("soft_labels").shards(partition=label_set.partition)
        commit_labels(many, shards, lineage={}, transaction=f"m{part}", beside=there)
    monkeypatch.setattr(plans, "_FILES_IN_ORDER", 2)
    balance = Balance(policy="none", min_confidence=0.0)
    view = select(many, Selection(view="m", teachers=["mixed"], balance=balance))

    assert view.record.counts["kept"] == 60


def test_a_confidence_above_1_by_rounding_is_1(many: Store) -> None:
    probs = np.tile(np.array([0.0, 0.0, 1.0000001], np.float32), (60, 1))
    give_labels(many, "sure", 1, probabilities=probs)
    balance = Balance(images_per_class=7)
    view = select(many, Selection(view="s", teachers=["sure"], balance=balance))

    assert view.record.counts["predicted_by_class"] == [0, 0, 60]
    assert view.record.counts["draws_by_class"] == [0, 0, 7]
