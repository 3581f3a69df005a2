"""Weights of pseudo-labels: from a query to a view, to what is exported and selected again."""

import csv
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import plstore
from plstore.errors import QueryError
from plstore.query import run_sql
from plstore.selection import Balance, Selection, preview, select
from plstore.store import Store
from plstore.upkeep import erase, verify
from plstore.views import View, open_view
from tests.conftest import give_labels
from tests.store.test_format import FROZEN

OWN = """-- Everything, once, with a weight.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar: the teacher
-- param iteration integer: the iteration
-- column sample_id bigint: the image
select
    sample_id, class_id, confidence, {weight} as weight,
    case when sample_id % 2 = 0 then 'kept' else 'odd' end as outcome, 2 as copies
from soft_labels
where teacher_id = $teacher_id and iteration = $iteration and split = 'unlabeled'
"""
HALVES = "1.0 / (1 + sample_id % 4)"  # of those that are kept: 1 and 1/3


def selection(folder: Path, weight: str = HALVES, **changes: Any) -> Selection:  # noqa: ANN401  as they come
    own = folder / "own.sql"
    own.write_text(OWN.format(weight=weight))
    values = {"view": "v", "teachers": ["t0@1"], "query": str(own)}
    return Selection(**{**values, **changes})


@pytest.fixture
def view(store: Store, tmp_path: Path) -> View:
    give_labels(store)
    return select(store, selection(tmp_path))


def weights(view: View) -> dict[int, float]:
    rows = [row for batch in view.batches() for row in batch.to_pylist()]
    return {row["sample_id"]: row["weight"] for row in rows}


def expected(view: View) -> dict[int, float]:
    """Return a weight by sample id: 1 of labeled images."""
    wanted = {n: np.float32(1 / (1 + n % 4)) for n in range(12, 72, 2)}
    return {n: float(wanted.get(n, 1)) for n in weights(view)}


def test_a_query_gives_weights_and_labeled_images_have_1(store: Store, view: View) -> None:
    stored = run_sql(store, "select sample_id, weight from view_rows").to_pydict()

    assert len(weights(view)) == 12 + 30
    assert weights(view) == expected(view)
    assert dict(zip(stored["sample_id"], stored["weight"], strict=True)) == expected(view)
    assert view.record.counts["mean_weight"] == pytest.approx((15 + 15 / 3) / 30, abs=1e-4)
    assert view.record.counts["dropped"] == {"odd": 30}
    assert verify(store) == []


def test_a_selection_that_says_nothing_weighs_nothing(store: Store) -> None:
    give_labels(store)
    balance = Balance(min_confidence=0.4, images_per_class=9)
    view = select(store, Selection(view="v", teachers=["t0@1"], balance=balance))

    assert set(weights(view).values()) == {1.0}
    assert "mean_weight" not in view.record.counts


@pytest.mark.parametrize("weight", ["0", "1.0000002", "-0.5", "'nan'::float", "1e-60"])
def test_a_weight_that_is_none_is_refused(store: Store, tmp_path: Path, weight: str) -> None:
    give_labels(store)

    with pytest.raises(QueryError, match=r"30 of the images .* sample_id 12; wanted above 0"):
        preview(store, selection(tmp_path, weight))


@pytest.mark.parametrize(
    ("weight", "words"),
    [("'much'", "weight as string; wanted"), ("null::float", "gives nulls in weight")],
)
def test_a_column_that_holds_no_weights_is_refused(
    store: Store, tmp_path: Path, weight: str, words: str
) -> None:
    give_labels(store)

    with pytest.raises(QueryError, match=words):
        preview(store, selection(tmp_path, weight))


def test_what_is_dropped_needs_no_weight(store: Store, tmp_path: Path) -> None:
    give_labels(store)
    weight = "case when sample_id % 2 = 0 then 0.5 else 'nan'::float end"
    counts = preview(store, selection(tmp_path, weight))

    assert (counts["kept"], counts["mean_weight"]) == (30, 0.5)


def test_new_labels_keep_the_weights(store: Store, view: View) -> None:
    give_labels(store, "t1", 2)
    again = select(store, Selection(view="again", teachers=["t1@2"], relabel=view.key))

    assert weights(again) == expected(view)
    assert again.record.counts["mean_weight"] == view.record.counts["mean_weight"]


def test_a_deletion_keeps_the_weights_of_the_others(store: Store, view: View) -> None:
    erase(store, [14], reason="asked")
    left = weights(open_view(store, "v"))

    assert left == {n: w for n, w in expected(view).items() if n != 14}


def test_exports_carry_the_weights(view: View, tmp_path: Path) -> None:
    wanted = expected(view)
    plstore.export(view.store, "v", tmp_path / "parquet", kind="parquet")
    plstore.export(view.store, "v", tmp_path / "folder", kind="folder")
    plstore.export(view.store, "v", tmp_path / "webdataset", kind="webdataset")
    rows = pq.read_table(tmp_path / "parquet/data/train.parquet").to_pydict()
    with (tmp_path / "folder/metadata.csv").open() as file:
        lines = list(csv.DictReader(file))
    with tarfile.open(next((tmp_path / "webdataset").glob("*.tar"))) as tar:
        members = [m for m in tar if m.name.endswith(".json")]
        abouts = [json.load(tar.extractfile(m)) for m in members]  # type: ignore[arg-type]  # a file

    assert dict(zip(rows["sample_id"], rows["weight"], strict=True)) == wanted
    assert {int(line["sample_id"]): float(line["weight"]) for line in lines} == wanted
    assert {about["sample_id"]: about["weight"] for about in abouts} == wanted


def test_a_view_of_before_there_were_weights_weighs_nothing(tmp_path: Path) -> None:
    store = plstore.open(shutil.copytree(FROZEN, tmp_path / "store"))
    before = open_view(store, "v")
    old = weights(before)
    own = selection(tmp_path, "0.25", view="new", teachers=["topk@1"])
    new = select(store, own)  # the table gets the column
    erase(store, [10], reason="asked")  # and an old file is written anew

    assert set(old.values()) == {1.0}
    assert {n: w for n, w in old.items() if n != 10} == weights(open_view(store, "v"))
    assert weights(new)[12] == 0.25
    assert {problem.what for problem in verify(store)} <= {"orphan_file"}
