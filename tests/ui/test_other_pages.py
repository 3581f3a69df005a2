"""Data of the pages Overview, Views, Runs, SQL and Review."""

import io
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import plstore
from plstore.errors import InputError, QueryError
from plstore.report.lineage import lineage
from plstore.report.lineage import models as lineage_models
from plstore.report.snapshot import FAILURES, Snapshot, find_labels, newest_labels
from plstore.store import Store, add_tag
from plstore.ui import asking, models, overview, review, selections
from plstore.ui.desk import Desk
from plstore.ui.pages.runs import _single
from plstore.upkeep import erase
from tests.looked_at import select


def test_the_overview_counts_what_there_is(decided: Snapshot) -> None:
    counts = overview.totals(decided)

    assert counts.images == {"labeled": 12, "test": 6, "unlabeled": 60, "validation": 6}
    assert (counts.refused, counts.labels) == (0, 132)
    assert (counts.excluded, counts.corrected) == (2, 1)
    assert counts.tables["views"] == 2


def test_tags_and_commits_are_those_of_the_log(own: Store) -> None:
    add_tag(own, "before", message="the new photos")
    found = overview.tagged(Snapshot(own))

    assert [(t.name, t.message) for t in found] == [("before", "the new photos")]
    assert found[0].number == Snapshot(own).number
    assert overview.last_commits(Snapshot(own))[0].number == found[0].number


def test_a_view_says_what_it_left_out_and_what_is_newer(own: Store) -> None:
    rows = own.table("view_rows").read(columns=["view", "kind", "sample_id"]).to_pylist()
    held = next(r["sample_id"] for r in rows if (r["view"], r["kind"]) == ("second", "pseudo"))
    erase(own, [held], reason="asked")
    select(own, "third", "t1@2")
    snapshot = Snapshot(own)
    view = selections.find_view(snapshot, "second")
    counts = selections.counts_of(snapshot, view)

    assert counts.view.key == "second@1"
    assert counts.kept + sum(counts.dropped.values()) == counts.num_in == 60
    assert counts.by_class["kept"] == view.record.counts["kept_by_class"]
    assert {"images", "soft_labels", "deletions"} <= counts.older.keys()
    assert counts.deleted == 1
    assert selections.list_views(snapshot)[0].key == "third@1"


@pytest.mark.parametrize("key", ["nothing@1", "second@9", "second@x", "nothing"])
def test_a_view_that_is_not_there_is_refused(snapshot: Snapshot, key: str) -> None:
    with pytest.raises(InputError, match=r"view '(nothing|second)"):
        selections.find_view(snapshot, key)


def test_two_views_differ_by_what_entered_left_and_flipped(snapshot: Snapshot) -> None:
    first, second = (selections.find_view(snapshot, key) for key in ("first@1", "second@1"))
    found = selections.differ(snapshot, first, second)
    rows = snapshot.store.table("view_rows").read().to_pylist()
    held = {
        key: {r["sample_id"]: r["class_id"] for r in rows if r["view"] == key}
        for key in ("first", "second")
    }
    both = held["first"].keys() & held["second"].keys()

    assert found.images["entered"] == len(held["second"].keys() - both)
    assert found.images["left"] == len(held["first"].keys() - both)
    assert found.images["flipped"] == sum(held["first"][i] != held["second"][i] for i in both)
    assert sum(n for _, _, n in found.flips) == found.images["flipped"]


def test_curves_are_what_was_measured_while_models_trained(snapshot: Snapshot) -> None:
    found = models.curves(snapshot, ["t0", "t1"])

    assert found.by_name["train/loss"]["t0"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert found.single == {"t0": {}, "t1": {"test_accuracy": 81.5}}
    assert models.run_names(snapshot) == ["t0", "t1"]
    assert models.curves(snapshot, ["'; drop"]).by_name == {}
    assert len(models.thinned([(n, n) for n in range(10_001)])) <= 401


def test_what_was_measured_at_one_step_is_a_number_and_no_chart(own: Store) -> None:
    rows = [
        {"run": run, "step": 7, "name": "top5_accuracy", "value": value}
        for run, value in (("t0", 90.0), ("t1", 91.0), ("t1", 92.0))
    ]
    own.append("runs", rows, identity="again", step="evaluate")
    found = models.curves(Snapshot(own), ["t0", "t1"])
    shown = str(_single(found))

    assert list(found.by_name) == ["train/loss"]
    assert found.single["t1"] == {"test_accuracy": 81.5, "top5_accuracy": 92.0}
    assert re.findall(r"<th[^>]*>(\w+)</th>", shown) == ["Metric", "Model", "Value"]
    assert re.findall(r"<b>(\w+)</b>", shown) == ["test_accuracy", "top5_accuracy"]
    assert shown.count("<tr>") == 4


def test_metrics_of_labels_are_those_of_the_saved_query(snapshot: Snapshot) -> None:
    found = models.metrics(snapshot, "validation")

    assert [(r["teacher_id"], r["num_images"]) for r in found] == [("t0", 6), ("t1", 6)]
    assert models.metrics(snapshot, "test") == []
    assert models.robustness(snapshot) == []


def test_sql_of_the_user_is_answered_and_taken_out(snapshot: Snapshot) -> None:
    found = asking.ask(snapshot, "select class_id, name from classes order by 1")

    assert found.shown == [
        {"class_id": n, "name": c} for n, c in enumerate(("cat", "dog", "owl"))
    ]
    assert found.csv() == b"class_id,name\n0,cat\n1,dog\n2,owl\n"
    assert pq.read_table(io.BytesIO(found.parquet())).equals(found.rows)


@pytest.mark.parametrize("sql", ["", "drop table images", "select 1; select 2", "selec 1"])
def test_what_is_no_select_is_refused(snapshot: Snapshot, sql: str) -> None:
    with pytest.raises(QueryError):
        asking.ask(snapshot, sql)


def test_a_saved_query_takes_what_was_typed(snapshot: Snapshot) -> None:
    query = asking.find_query("coverage/labels_per_class")
    assert query is not None
    values = asking.read_values(query, {"min_confidence": "0.5", "other": "1"})
    found = asking.ask_saved(snapshot, query.name, values)

    assert values == {"min_confidence": 0.5}
    assert found.rows.num_rows
    with pytest.raises(QueryError, match="--min-confidence is 'x'; wanted float"):
        asking.read_values(query, {"min_confidence": "x"})
    assert asking.find_query("../../../etc/passwd") is None
    assert asking.find_query("own.sql") is None


@pytest.mark.parametrize(
    ("rows", "along", "series"),
    [
        ({"name": ["a", "b"], "n": [1, 2]}, "name", {"n": [1.0, 2.0]}),
        ({"step": [1, 2, 3], "loss": [3.0, None, 1.0]}, "step", {"loss": [3.0, None, 1.0]}),
    ],
)
def test_numbers_become_a_chart(
    rows: dict[str, list[object]], along: str, series: dict[str, list[float | None]]
) -> None:
    found = asking.chart_of(pa.table(rows))

    assert found is not None
    assert (found.along, found.series) == (along, series)
    assert found.is_line == (along == "step")


def test_what_has_no_numbers_is_no_chart() -> None:
    assert asking.chart_of(pa.table({"name": ["a", "b"]})) is None
    assert asking.chart_of(pa.table({"n": pa.array([], pa.int64())})) is None


def test_the_queue_is_that_of_the_saved_query(snapshot: Snapshot) -> None:
    waiting = review.queue(snapshot)
    rows = plstore.run_query(snapshot.store, "review/worth_a_look", num_images=0).to_pylist()

    assert [one.sample_id for one in waiting] == [r["sample_id"] for r in rows]
    assert all(0 <= one.score <= 1 for one in waiting)
    filed = next(one for one in waiting if one.label_name is not None)
    assert filed.accepted_name == filed.label_name


@pytest.mark.parametrize(
    ("typed", "found"),
    [("owl", "owl"), ("O", "owl"), ("ca", "cat"), ("c", None), ("lynx", None), ("", None)],
)
def test_the_only_class_that_begins_so_is_meant(typed: str, found: str | None) -> None:
    assert review.class_named(["cat", "cow", "owl"], typed) == found


def test_decisions_are_written_with_who_made_them_and_can_be_undone(own: Store) -> None:
    waiting = [one for one in review.queue(Snapshot(own)) if one.split == "unlabeled"]
    first, second, third, fourth = waiting[:4]
    accepted = review.accept(own, [first], who="ann")
    corrected = review.correct_to(own, [second, third], "owl", who="ann")
    excluded = review.leave_out(own, [fourth], who="ann")
    after = {one.sample_id for one in review.queue(Snapshot(own))}
    rows = own.table("corrections").read().to_pylist()

    assert {r["sample_id"]: (r["label"], r["who"]) for r in rows} == {
        first.sample_id: (("cat", "dog", "owl").index(first.class_name), "ann"),
        second.sample_id: (2, "ann"),
        third.sample_id: (2, "ann"),
    }
    assert not after & {one.sample_id for one in (first, second, third, fourth)}
    assert review.decided_now(own, waiting) == {one.sample_id for one in waiting[:4]}
    assert corrected.said == "2 images corrected: owl"
    assert review.undo(own, corrected, who="ann") == 2
    assert review.undo(own, excluded, who="ann") == 1
    with pytest.raises(InputError, match="nothing to take back"):
        review.undo(own, corrected, who="ann")
    left = own.table("corrections").read()["sample_id"].to_pylist()
    assert left == [first.sample_id]
    assert own.table("exclusions").read().num_rows == 0
    assert accepted.num_written == 1
    assert plstore.verify(own) == []


def test_an_app_that_only_reads_gives_no_store_to_write_to(own: Store) -> None:
    with pytest.raises(InputError, match="plstore ui --review"):
        Desk(str(own.root)).for_review()
    assert Desk(str(own.root), is_review=True).for_review().root == own.root


def test_a_snapshot_stays_what_it_was_until_it_is_refreshed(own: Store) -> None:
    desk = Desk(str(own.root))
    before = desk.snapshot()
    select(own, "third", "t1@2")

    assert before.is_old()
    assert len(selections.list_views(before)) == 2
    after = desk.refresh()
    assert len(selections.list_views(after)) == 3
    assert not after.is_old()
    assert after.number > before.number


def test_files_that_were_collected_since_are_said_and_a_newer_snapshot_is_taken(
    own: Store,
) -> None:
    desk = Desk(str(own.root))
    desk.recover()
    before = desk.snapshot()
    erase(own, [20], reason="asked")
    plstore.collect(own)
    with pytest.raises(FAILURES):
        overview.totals(before)
    desk.recover()

    assert desk.snapshot() is not before
    assert overview.totals(desk.snapshot()).images["unlabeled"] == 59


def test_a_store_that_went_away_is_said_and_is_there_again_when_it_is_back(own: Store) -> None:
    desk = Desk(str(own.root))
    away = own.root.with_name("away")
    own.root.rename(away)
    with pytest.raises(plstore.PlstoreError, match="no plstore store at"):
        desk.refresh()
    with pytest.raises(plstore.PlstoreError, match="no plstore store at"):
        desk.snapshot()
    away.rename(own.root)

    assert overview.totals(desk.snapshot()).labels == 132


def test_an_empty_store_has_nothing_and_says_so(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    store = plstore.create(tmp_path_factory.mktemp("empty") / "store")
    snapshot = Snapshot(store)

    assert snapshot.class_names == ()
    assert overview.totals(snapshot).images == {}
    assert lineage(snapshot, lineage_models(snapshot)).nodes == {}
    assert newest_labels(snapshot) is None
    assert find_labels(snapshot, "t0@1") is None
    assert review.queue(snapshot) == []
    assert selections.list_views(snapshot) == []
    assert models.finished(snapshot) == []
    assert snapshot.class_id("0") is None
