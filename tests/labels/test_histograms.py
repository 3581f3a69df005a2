"""Counts by class and bucket of confidence: NumPy and SQL put a label into the same one."""

from contextlib import closing

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plstore
from plstore.labels import LabelSet, commit_labels, histograms, writing
from plstore.labels.histograms import bucket_of, count_labels, find_counts
from plstore.query.macros import BUCKET_SQL
from plstore.selection import Selection
from plstore.selection.counting import count_by_sql
from plstore.store import Store
from tests.conftest import give_labels

EDGES = (np.arange(1001) / 1000).astype(np.float32)


def by_sql(confidence: np.ndarray) -> list[int]:
    rows = pa.table({"c": pa.array(confidence, pa.float32())})
    with closing(duckdb.connect(":memory:")) as connection:
        connection.register("rows", rows)
        found = connection.sql(f"select {BUCKET_SQL.format('c')} as bucket from rows")  # noqa: S608
        return [row[0] for row in found.fetchall()]


def test_every_edge_and_its_neighbours_are_in_the_bucket_that_sql_says() -> None:
    values = np.concatenate([EDGES, np.nextafter(EDGES, 0), np.nextafter(EDGES, 2)])
    values = values.astype(np.float32)

    assert bucket_of(values).tolist() == by_sql(values)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1.0009765625, width=32), min_size=1, max_size=50))
def test_any_confidence_is_in_the_bucket_that_sql_says(values: list[float]) -> None:
    confidence = np.array(values, np.float32)

    assert bucket_of(confidence).tolist() == by_sql(confidence)


def test_counts_are_those_of_the_rows(store: Store) -> None:
    give_labels(store)
    shards = store.table("soft_labels").shards(partition={"split": "unlabeled"})
    rows = store.table("soft_labels").dataset_of(shards).to_table()
    pairs = zip(
        rows["class_id"].to_pylist(), bucket_of(rows["confidence"].to_numpy()), strict=True
    )
    wanted: dict[tuple[int, int], int] = {}
    for pair in pairs:
        wanted[pair] = wanted.get(pair, 0) + 1
    counts = count_labels(store, shards)
    assert count_by_sql(store, shards) == counts
    found = {(r["class_id"], r["bucket"]): r["num_labels"] for r in counts.to_pylist()}

    assert found == wanted
    assert counts["class_id"].to_pylist() == sorted(counts["class_id"].to_pylist())


def test_counts_are_the_same_for_many_classes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_labels(store)
    shards = store.table("soft_labels").shards(partition={"split": "unlabeled"})
    few = count_labels(store, shards)
    monkeypatch.setattr(histograms, "_MOST_CELLS", 0)

    assert count_labels(store, shards) == few


def test_a_commit_of_many_files_leaves_the_counts_to_the_first_selection(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_labels(store)
    table = store.table("soft_labels")
    (shard,) = table.shards(partition={"split": "unlabeled"})
    label_set = LabelSet(iteration=7, teacher_id="late", split="unlabeled")
    rows = table.dataset_of([shard]).to_table(columns=table.spec.file_schema.names)
    two = [
        table.write_shard(f"half-{n}", rows.slice(n, 1), label_set.partition) for n in (0, 1)
    ]
    monkeypatch.setattr(writing, "COUNTED_AT_ONCE", 1)

    commit_labels(store, two, lineage={}, transaction="late")
    assert find_counts(store, label_set, two).uncovered == two

    plstore.select(store, Selection(view="of_two", teachers=("late@7",)))
    assert not find_counts(store, label_set, two).uncovered


def test_counts_of_many_files_are_merged_by_the_first_selection(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_labels(store)
    label_set = LabelSet(iteration=1, teacher_id="t0", split="unlabeled")
    table = store.table("soft_labels")
    (shard,) = table.shards(partition=label_set.partition)
    rows = table.dataset_of([shard]).to_table(columns=table.spec.file_schema.names)
    shards = []
    for number in range(12):
        ids = pa.array(rows["sample_id"].to_numpy()[number * 5 :][:5])
        part = rows.slice(number * 5, 5).set_column(0, "sample_id", ids)
        shards.append(table.write_shard(f"part-{number}", part, label_set.partition))
    table.commit(shards, lineage={}, transaction="parts", replace=True)
    for each in shards:
        histograms.write_histograms(store, [each])
    parts = find_counts(store, label_set, shards)
    monkeypatch.setattr(histograms, "_FILES_AT_ONCE", 5)
    selection = Selection(view="v", teachers=["t0"])
    before = plstore.preview(store, selection)
    merged = find_counts(store, label_set, shards)
    stale = [entry.path for entry in histograms.stale_counts(store)]

    assert len(parts.paths) == 12
    assert len(merged.paths) == 1
    assert (merged.uncovered, parts.uncovered) == ([], [])
    assert merged.read() == parts.read() == count_labels(store, shards)
    assert plstore.preview(store, selection) == before
    assert (
        len(stale) == 12
    )  # the parts; the counts of the first labels are of a file still there
    assert not any(path.endswith(merged.paths[0].name) for path in stale)
