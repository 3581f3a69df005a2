from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from plstore.errors import InputError, QueryError
from plstore.images import ImageRecord, import_images
from plstore.query import run_query
from plstore.selection import Balance, Rule, Selection, select, select_labeled
from plstore.store import Store, Table
from plstore.upkeep import correct, exclude
from plstore.views import open_view
from tests.conftest import CLASS_NAMES, give_labels

FLOOR = 0.5
UNUSED = {"min_confidence": 0.3, "images_per_class": None}  # by a query that does not take them


def selection(images_per_class: int | None = 15, **changes: Any) -> Selection:  # noqa: ANN401  as they come
    balance = changes.pop("balance", {})
    values: dict[str, Any] = {
        "view": "student-1",
        "teachers": ["t0@1"],
        "balance": Balance(
            **{"min_confidence": FLOOR, "images_per_class": images_per_class, **balance}
        ),
    }
    return Selection(**{**values, **changes})


def pseudo_rows(store: Store, view: str = "student-1") -> list[dict[str, Any]]:
    rows = [row for batch in open_view(store, view).batches() for row in batch.to_pylist()]
    return [row for row in rows if row["kind"] == "pseudo"]


@pytest.mark.parametrize("images_per_class", [1, 7, 15, 100])
def test_every_class_adds_up_to_the_quota_with_its_most_confident(
    store: Store, images_per_class: int
) -> None:
    probabilities = give_labels(store)
    select(store, selection(images_per_class))
    copies: Counter[int] = Counter()
    kept: defaultdict[int, list[float]] = defaultdict(list)
    for row in pseudo_rows(store):
        copies[row["class_id"]] += row["copies"]
        kept[row["class_id"]].append(row["confidence"])
    confidence, class_id = probabilities.max(axis=1), probabilities.argmax(axis=1)

    assert set(copies.values()) == {images_per_class}
    for class_, values in kept.items():
        all_ = np.sort(confidence[(class_id == class_) & (confidence > FLOOR)])[::-1]
        assert sorted(values, reverse=True) == all_[:images_per_class].tolist()


def test_copies_differ_by_one_at_most_and_the_seed_draws_which(
    store: Store,
) -> None:
    give_labels(store)
    drawn = []
    for seed in (0, 1):
        select(store, selection(100, view=f"seed-{seed}", balance={"seed": seed}))
        rows = pseudo_rows(store, f"seed-{seed}")
        for class_ in range(3):
            copies = [row["copies"] for row in rows if row["class_id"] == class_]
            assert max(copies) - min(copies) <= 1
        drawn.append({row["sample_id"]: row["copies"] for row in rows})

    assert drawn[0].keys() == drawn[1].keys()
    assert drawn[0] != drawn[1]


def test_a_confidence_at_the_floor_is_not_above_it(store: Store) -> None:
    probabilities = np.tile(np.array([0.3, 0.3, 0.4], np.float32), (60, 1))
    probabilities[0] = [0.5, 0.3, 0.2]
    give_labels(store, probabilities=probabilities)
    view = select(store, selection(5, balance={"min_confidence": 0.4}))

    assert view.record.counts["kept"] == 1


def test_every_image_is_counted_once_with_the_reason_it_was_dropped(store: Store) -> None:
    bad = [ImageRecord(key=f"bad{i}", split="unlabeled", data=b"no") for i in range(3)]
    import_images(store, bad, dataset="pets", class_names=CLASS_NAMES)
    probabilities = give_labels(store, probabilities=labels_for_all(store))
    store.append(
        "exclusions",
        [{"sample_id": 12, "reason": "blurred", "who": "me", "decided_at": datetime.now(UTC)}],
        identity="one",
        step="test",
    )
    counts = select(store, selection(5)).record.counts
    unsure = (probabilities[:60].max(axis=1) <= FLOOR).sum()
    excluded_is_unsure = probabilities[0].max() <= FLOOR

    assert counts["in"] == 63
    assert counts["kept"] + sum(counts["dropped"].values()) == counts["in"]
    assert counts["dropped"]["excluded"] == 1
    assert counts["dropped"]["not_an_image"] == 3
    assert counts["dropped"]["low_confidence"] == unsure - excluded_is_unsure


def labels_for_all(store: Store) -> npt.NDArray[np.float32]:
    rows = store.table("images").read(columns=["split", "verdict"]).to_pylist()
    unlabeled = sum(row["split"] == "unlabeled" for row in rows)
    random = np.random.default_rng(5)
    return random.dirichlet([0.5] * 3, unlabeled).astype(np.float32)


def test_refused_images_are_never_selected_even_if_someone_labeled_them(store: Store) -> None:
    bad = [ImageRecord(key="bad", split="unlabeled", data=b"no")]
    import_images(store, bad, dataset="pets", class_names=CLASS_NAMES)
    give_labels(store, probabilities=labels_for_all(store))
    view = select(store, selection(200))
    ids = {row["sample_id"] for row in pseudo_rows(store)}

    assert 84 not in ids
    assert len(ids) == view.record.counts["kept"]


def test_classes_without_a_candidate_are_named(store: Store) -> None:
    probabilities = np.tile(np.array([0.9, 0.05, 0.05], np.float32), (60, 1))
    give_labels(store, probabilities=probabilities)
    counts = select(store, selection()).record.counts

    assert counts["classes_without_candidate"] == ["dog", "owl"]
    assert counts["draws_by_class"] == [15, 0, 0]


def test_a_selection_done_twice_is_one_view(store: Store) -> None:
    give_labels(store)
    first = select(store, selection(), identity="same")
    versions = store.versions()
    second = select(store, selection(), identity="same")

    assert first.key == second.key == "student-1@1"
    assert store.versions() == versions


def test_a_view_reads_the_same_after_another_selection(store: Store) -> None:
    give_labels(store)
    select(store, selection(15))
    before = pseudo_rows(store)
    give_labels(store, "t1", 2)
    select(store, selection(3, teachers=["t1@2"]))
    again = open_view(store, "student-1", 1)
    rows = [row for batch in again.batches() for row in batch.to_pylist()]

    assert [row for row in rows if row["kind"] == "pseudo"] == before
    assert open_view(store, "student-1").record.version == 2


def test_the_view_holds_labeled_images_and_their_corrections(store: Store) -> None:
    decision = {"sample_id": 0, "label": 2, "who": "me", "decided_at": datetime.now(UTC)}
    store.append("corrections", [decision], identity="one", step="test")
    view = select_labeled(store, "labeled")
    rows = [row for batch in view.batches() for row in batch.to_pylist()]

    by_id = {row["sample_id"]: row for row in rows}

    assert sorted(by_id) == list(range(12))
    assert by_id[0]["class_id"] == 2
    assert all(row["image"] for row in rows)


def test_a_corrected_unlabeled_image_is_labeled_and_not_pseudo_labeled(store: Store) -> None:
    give_labels(store)
    decision = {"sample_id": 20, "label": 1, "who": "me", "decided_at": datetime.now(UTC)}
    store.append("corrections", [decision], identity="one", step="test")
    view = select(store, selection(200))
    rows = [row for batch in view.batches() for row in batch.to_pylist()]
    (found,) = [row for row in rows if row["sample_id"] == 20]

    assert (found["kind"], found["class_id"], found["label"]) == ("labeled", 1, None)
    assert view.record.counts["dropped"]["corrected"] == 1
    assert run_query(store, "audit/truth_in_training").num_rows == 0


OWN = """-- Everything, once.
--
-- grain: one row per (sample_id)
-- param teacher_id varchar: the teacher
-- param iteration integer: the iteration
-- column sample_id bigint: the image
select sample_id, class_id, confidence, 'kept' as outcome, {copies} as copies
from soft_labels
where teacher_id = $teacher_id and iteration = $iteration and split = 'unlabeled'
{more}
"""


def test_a_sql_file_of_ones_own_decides(store: Store, tmp_path: Path) -> None:
    give_labels(store)
    own = tmp_path / "everything.sql"
    own.write_text(OWN.format(copies=2, more=""))
    view = select(store, selection(query=str(own), balance=UNUSED))

    assert view.record.counts["kept"] == 60
    assert view.record.counts["draws"] == 120
    assert "Everything, once" in view.record.sql


@pytest.mark.parametrize(
    ("copies", "more", "words"),
    [
        ("0", "", "keeps images with fewer than 1 copy"),
        ("1", "union all select 12, 0, 1, 'kept', 1", "61 rows for 60 images"),
    ],
)
def test_a_sql_file_that_decides_nonsense_is_refused(
    store: Store, tmp_path: Path, copies: str, more: str, words: str
) -> None:
    give_labels(store)
    own = tmp_path / "odd.sql"
    own.write_text(OWN.format(copies=copies, more=more))

    with pytest.raises(QueryError, match=words):
        select(store, selection(query=str(own), balance=UNUSED))


def test_a_query_cannot_choose_what_people_or_the_import_ruled_out(
    store: Store, tmp_path: Path
) -> None:
    give_labels(store)
    exclude(store, [12], reason="blurred", who="ann")
    correct(store, {13: "owl"}, who="ann")
    own = tmp_path / "everything.sql"
    own.write_text(OWN.format(copies=1, more="union all select 0, 0, 1::float, 'kept', 1"))
    view = select(store, selection(query=str(own), balance=UNUSED))
    rows = [row for batch in view.batches() for row in batch.to_pylist()]

    assert len({row["sample_id"] for row in rows}) == len(rows) == 12 + 1 + 58
    assert view.record.counts["kept"] == 58
    assert view.record.counts["dropped"] == {"corrected": 1, "excluded": 1, "not_in_pool": 1}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("union all select 7, -1, 1, 'kept', 1", "gives classes -1 to 2; wanted 0 to 2"),
        ("union all select 7, 3, 1, 'kept', 1", "gives classes 0 to 3; wanted 0 to 2"),
        ("union all select 7, 1, 1, 'kept', null", "gives nulls in copies"),
    ],
)
def test_a_query_that_gives_no_class_or_copies_is_refused(
    store: Store, tmp_path: Path, more: str, words: str
) -> None:
    give_labels(store)
    own = tmp_path / "odd.sql"
    own.write_text(OWN.format(copies=1, more=more))

    with pytest.raises(QueryError, match=words):
        select(store, selection(query=str(own), balance=UNUSED))


def test_a_floor_that_a_query_does_not_take_is_refused(store: Store, tmp_path: Path) -> None:
    give_labels(store)
    own = tmp_path / "own.sql"
    own.write_text(OWN.format(copies=1, more=""))

    with pytest.raises(InputError, match="min_confidence and images_per_class with the query"):
        select(store, selection(query=str(own)))


def test_parameters_of_a_query_are_checked(store: Store) -> None:
    give_labels(store)
    query = "selection/class_balanced"
    view = select(store, selection(query=query))

    assert view.record.parameters["min_confidence"] == FLOOR
    assert view.record.counts["draws_by_class"] == [15, 15, 15]
    with pytest.raises(QueryError, match="'colour' is unknown"):
        select(store, selection(query=query, parameters={"colour": 1}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relabel": "v", "query": "q"}, "both relabel and query"),
        ({"relabel": "v"}, "by relabel with settings that it does not use"),
        ({"query": "q", "rule": Rule(agree=1)}, "by query with settings that it does not use"),
        ({"query": "q", "balance": {"policy": "cap"}}, "by query with settings"),
        ({"parameters": {"a": 1}}, "parameters without a query"),
        ({"teachers": "t0"}, "wanted a list of one or more"),
        ({"mode": "zip"}, "mode is 'zip'; wanted 'packed' or 'reference'"),
        ({"engine": "ray"}, "engine is 'ray'; wanted 'duckdb' or 'spark'"),
        ({"engine": "spark", "query": "q"}, "the engine 'spark' balances"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        selection(**changes)


def test_a_teacher_without_labels_is_named(store: Store) -> None:
    give_labels(store)
    with pytest.raises(InputError, match="no labels by 't9' of iteration 1; it has"):
        select(store, selection(teachers=["t9@1"]))


def test_evaluation_reads_the_truth_that_selection_does_not(store: Store) -> None:
    probabilities = give_labels(store)
    select(store, selection(200))
    (row,) = run_query(store, "calibration/pseudo_label_accuracy").to_pylist()
    truth = np.arange(12, 72) % 3
    kept = probabilities.max(axis=1) > FLOOR
    expected = (probabilities.argmax(axis=1) == truth)[kept].mean()

    assert row["accuracy"] == pytest.approx(expected)
    assert row["num_images"] == kept.sum()


def test_a_selection_cut_short_before_its_record_takes_up_its_own_version(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_labels(store)
    append = Table.append

    def die(self: Table, *args: object, **options: object) -> int:
        if self.spec.name == "views":
            raise KeyboardInterrupt
        return append(self, *args, **options)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(Table, "append", die)
    with pytest.raises(KeyboardInterrupt):
        select(store, selection(), identity="cut")
    monkeypatch.undo()
    other = select(store, selection(3), identity="other")
    again = select(store, selection(), identity="cut")
    rows = [row for batch in again.batches() for row in batch.to_pylist()]

    assert (again.record.version, other.record.version) == (1, 2)
    assert len(rows) == again.record.num_images == len({row["sample_id"] for row in rows})


def test_a_selection_reads_the_versions_it_is_told_to(store: Store) -> None:
    first = give_labels(store)
    pins = store.versions()
    give_labels(store, probabilities=np.roll(first, 1, axis=1), name="again")
    view = select(store, selection(200), as_of=pins)
    kept = {row["sample_id"]: row["class_id"] for row in pseudo_rows(store)}

    assert view.record.pins["soft_labels"] == pins["soft_labels"]
    assert all(first[sample_id - 12].argmax() == c for sample_id, c in kept.items())
