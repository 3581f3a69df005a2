"""Whose labels a query is about where nobody says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plstore
from plstore.errors import QueryError
from plstore.labels import Member, labels_in_order, make_ensemble
from plstore.query import run_query, saved_query, with_labels
from plstore.query.library import parse_query
from plstore.store import Store, add_tag
from plstore.upkeep import compact
from tests.conftest import give_labels

FILES = "coverage/labels_by_file"
PAIR = "agreement/confused_classes"


def chosen(store: Store, query: str, **given: str | int) -> tuple[dict[str, object], list[str]]:
    """Return the parameters that a query runs with, and what is said of them."""
    notes: list[str] = []
    saved = saved_query(query)
    values = with_labels(store, saved, saved.check_parameters(given), on_note=notes.append)
    return values, notes


def whose(store: Store, **given: str | int) -> tuple[object, object]:
    values, _ = chosen(store, FILES, **given)
    return values["teacher_id"], values["iteration"]


def pair(store: Store, **given: Any) -> tuple[object, ...]:  # noqa: ANN401  as they come
    values, _ = chosen(store, PAIR, **given)
    return tuple(values[n] for n in ("teacher_a", "iteration_a", "teacher_b", "iteration_b"))


@pytest.fixture
def taught(store: Store) -> Store:
    """Labels of two iterations, the second by two teachers: z first, then b."""
    give_labels(store, "a", 1)
    give_labels(store, "z", 2)
    give_labels(store, "b", 2)
    return store


def test_the_last_iteration_counts_and_in_it_who_labeled_last(taught: Store) -> None:
    values, notes = chosen(taught, FILES)

    assert (values["teacher_id"], values["iteration"]) == ("b", 2)
    assert notes == [
        "teacher b, iteration 2: the newest labels; --teacher-id, --iteration for others"
    ]
    give_labels(taught, "z", 2, name="again")
    assert whose(taught) == ("z", 2)
    give_labels(taught, "c", 1)
    assert whose(taught) == ("z", 2)


def test_a_fusion_is_newer_than_its_members(taught: Store) -> None:
    members = [Member(teacher_id=name, iteration=2) for name in ("z", "b")]
    make_ensemble(taught, "aa", members, iteration=2)

    assert labels_in_order(taught) == [("a", 1), ("z", 2), ("b", 2), ("aa", 2)]


def test_who_labeled_last_is_known_after_a_compaction(taught: Store) -> None:
    give_labels(taught, "z", 2, split="validation")
    compact(taught)

    assert labels_in_order(taught)[-1] == ("z", 2)


def test_an_older_snapshot_has_older_newest_labels(taught: Store) -> None:
    add_tag(taught, "before")
    give_labels(taught, "c", 3)
    now, then = (
        run_query(taught, FILES, as_of=as_of).column("teacher_id").unique().to_pylist()
        for as_of in (None, "before")
    )

    assert (now, then) == (["c"], ["b"])


def test_of_a_teacher_the_last_iteration_and_of_an_iteration_the_last_teacher(
    taught: Store,
) -> None:
    give_labels(taught, "a", 2)
    give_labels(taught, "c", 3)
    values, notes = chosen(taught, FILES, teacher_id="a")

    assert (values["teacher_id"], values["iteration"]) == ("a", 2)
    assert notes == [
        "teacher a, iteration 2: the newest labels of that teacher; --iteration for others"
    ]
    assert whose(taught, iteration=1) == ("a", 1)
    assert whose(taught, teacher_id="z", iteration=2) == ("z", 2)
    assert chosen(taught, FILES, teacher_id="z", iteration=2)[1] == []


def test_labels_of_other_splits_do_not_count(taught: Store) -> None:
    give_labels(taught, "v", 9, split="validation")

    assert whose(taught) == ("b", 2)
    assert whose(taught, split="validation") == ("v", 9)
    values, _ = chosen(taught, "calibration/likely_label_errors")
    assert values["teacher_id"] == "v"


def test_two_are_compared_that_follow_on_each_other(taught: Store) -> None:
    values, notes = chosen(taught, PAIR)

    assert list(values.values()) == ["b", 2, "z", 2]
    assert [values[n] for n in ("teacher_a", "teacher_b")] == ["z", "b"]
    assert [note.partition(";")[0] for note in notes] == [
        "teacher b, iteration 2: the newest labels",
        "teacher z, iteration 2: the labels before those",
    ]
    assert notes[1].endswith("; --teacher-a, --iteration-a for others")


def test_nothing_is_compared_with_itself_unasked(taught: Store) -> None:
    give_labels(taught, "a", 3)

    assert pair(taught, teacher_a="a") == ("a", 3, "b", 2)
    assert pair(taught, teacher_b="z") == ("a", 1, "z", 2)
    assert pair(taught, teacher_a="a", teacher_b="a") == ("a", 1, "a", 3)
    one, other = {"teacher_a": "z", "iteration_a": 2}, {"teacher_b": "z", "iteration_b": 2}
    assert pair(taught, **one, **other) == ("z", 2, "z", 2)


@pytest.mark.parametrize(
    ("query", "given", "words"),
    [
        (FILES, {"teacher_id": "q"}, r"no labels of unlabeled images by --teacher-id q; it"),
        (
            FILES,
            {"teacher_id": "a", "iteration": 2},
            r"--teacher-id a --iteration 2; it has those by a \(iteration 1\), z",
        ),
        (FILES, {"split": "all"}, "split is 'all'; wanted labeled, unlabeled, validation, t"),
        (PAIR, {"teacher_a": "a", "teacher_b": "a"}, "no other labels of .* by --teacher-a a;"),
        (PAIR, {"teacher_b": "a"}, r"none before the others .* Name --teacher-a, --iteration-"),
    ],
)
def test_labels_that_are_not_there_are_told_with_those_that_are(
    taught: Store, query: str, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(QueryError, match=words):
        run_query(taught, query, **given)


def test_one_teacher_alone_is_compared_with_no_one(store: Store) -> None:
    give_labels(store, "a", 1)
    with pytest.raises(QueryError, match=r"unlabeled images by a \(iteration 1\): none"):
        run_query(store, PAIR)


def test_where_there_are_no_labels_nothing_is_chosen(store: Store) -> None:
    assert chosen(store, PAIR) == (
        dict.fromkeys(("teacher_a", "iteration_a", "teacher_b", "iteration_b")),
        [],
    )


TEXT = """-- One number.
--
-- grain: one row
-- param whose varchar = newest(unlabeled): who
-- param number integer = newest(unlabeled): of which iteration
-- column a bigint: a number
select count(*) as a from soft_labels where teacher_id = $whose and iteration = $number
"""


def test_a_selection_may_compare_with_the_newest_too(taught: Store, tmp_path: Path) -> None:
    own = tmp_path / "own.sql"
    own.write_text(
        "-- The sure ones.\n--\n-- grain: one row per (sample_id)\n"
        "-- param teacher_id varchar = newest(unlabeled): whose\n"
        "-- param iteration integer = newest(unlabeled): when\n"
        "-- param other varchar = previous(unlabeled): whose\n"
        "-- column sample_id bigint: the image\n"
        "select labels.sample_id, labels.class_id, labels.confidence, 'kept' as outcome, "
        "1 as copies from soft_labels as labels where labels.teacher_id = $teacher_id "
        "and labels.iteration = $iteration and $other = 'z'"
    )
    view = plstore.select(taught, plstore.Selection(view="v", teachers=["b"], query=str(own)))

    assert view.record.counts["kept"] == 60
    assert view.record.parameters["other"] == "z"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("integer = newest(unlabeled)", "integer = newest", "number = newest beside whose ="),
        ("number integer", "number varchar", "wanted one varchar and one integer of the same"),
        ("newest(unlabeled)", "newest($split)", r"newest\(\$split\), and no parameter \$split"),
        (
            "= newest(unlabeled)",
            "= newest(all)",
            r"default newest\(all\) for a varchar",
        ),
        ("integer = newest(unlabeled)", "float = newest", "the default newest for a float"),
    ],
)
def test_defaults_of_labels_that_do_not_fit_together_are_refused(
    before: str, after: str, words: str
) -> None:
    with pytest.raises(QueryError, match=words):
        parse_query("mine/own", TEXT.replace(before, after))


def test_an_even_share_is_what_class_balanced_takes_unless_given(store: Store) -> None:
    give_labels(store, probabilities=np.array([[0.5, 0.3, 0.2]] * 60, np.float32))
    copies = run_query(store, "selection/class_balanced").column("copies").to_pylist()

    assert sum(copies) == 60 // 3
    with pytest.raises(QueryError, match="images_per_class is -1; wanted 0 or more"):
        run_query(store, "selection/class_balanced", images_per_class=-1)
