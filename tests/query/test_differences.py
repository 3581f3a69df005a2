from collections import Counter

import numpy as np
import pytest

import plstore
from plstore.codec import Codec
from plstore.errors import InputError
from plstore.labels import LabelBatch, LabelSet, commit_labels, write_labels
from plstore.query import diff, diff_labels
from plstore.store import Store, add_tag
from tests.conftest import give_labels

Changes = dict[tuple[str, int | None, int | None], tuple[int, float | None, float | None]]


def as_dict(store: Store, before: str, after: str) -> Changes:
    return {
        (row["change"], row["class_before"], row["class_after"]): (
            row["images"],
            row["confidence_before"],
            row["confidence_after"],
        )
        for row in diff(store, before, after).to_pylist()
    }


def put(store: Store, teacher: str, iteration: int, ids: list[int], seed: int) -> LabelBatch:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([0.5] * 3, len(ids)).astype(np.float32)
    batch = LabelBatch(sample_ids=np.array(ids), probabilities=probabilities)
    label_set = LabelSet(iteration=iteration, teacher_id=teacher, split="unlabeled")
    name = f"{teacher}-{iteration}"
    shards = write_labels(store, label_set, [batch], codec=Codec(), identity=name)
    commit_labels(store, shards, lineage={}, transaction=name)
    return batch


def expected(old: LabelBatch, new: LabelBatch) -> Changes:
    sides = [dict(zip(b.sample_ids.tolist(), b.probabilities, strict=True)) for b in (old, new)]
    sums: dict[tuple[str, int | None, int | None], list[float]] = {}
    counts: Counter[tuple[str, int | None, int | None]] = Counter()
    for sample_id in sides[0].keys() | sides[1].keys():
        a, b = (side.get(sample_id) for side in sides)
        classes = [None if p is None else int(p.argmax()) for p in (a, b)]
        change = "left" if b is None else "entered" if a is None else "flipped"
        if None not in classes and classes[0] == classes[1]:
            change = "kept"
        key = (change, classes[0], classes[1])
        counts[key] += 1
        total = sums.setdefault(key, [0.0, 0.0])
        for n, p in enumerate((a, b)):
            total[n] += 0 if p is None else float(p.max())
    return {
        key: (  # type: ignore[misc]  # approx stands for a float
            n,
            None if key[1] is None else pytest.approx(sums[key][0] / n, rel=1e-6),
            None if key[2] is None else pytest.approx(sums[key][1] / n, rel=1e-6),
        )
        for key, n in counts.items()
    }


@pytest.mark.parametrize("shard_ids", [16, 65_536])
def test_labels_that_line_up_are_compared_in_place(
    store: Store, shard_ids: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plstore.labels import writing

    monkeypatch.setattr(writing, "SHARD_IDS", shard_ids)
    old = put(store, "a", 1, list(range(12, 72)), 1)
    new = put(store, "b", 2, list(range(12, 72)), 2)

    assert as_dict(store, "1", "2") == expected(old, new)


def test_labels_that_do_not_line_up_are_joined(store: Store) -> None:
    old = put(store, "a", 1, [12, 13, 15, 19, 22, 40, 41], 1)
    new = put(store, "b", 2, [13, 15, 16, 22, 23, 41], 2)

    assert as_dict(store, "a", "b@2") == expected(old, new)


def test_gaps_with_the_same_bounds_are_not_taken_for_the_same_ids(store: Store) -> None:
    old = put(store, "a", 1, [12, 13, 16], 1)
    new = put(store, "b", 2, [12, 15, 16], 2)

    assert as_dict(store, "a", "b") == expected(old, new)


def test_ranges_of_which_some_line_up_are_summed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plstore.labels import writing
    from plstore.query import differences

    monkeypatch.setattr(writing, "SHARD_IDS", 16)
    monkeypatch.setattr(differences, "_PENDING_ROWS", 2)
    old = put(store, "a", 1, list(range(12, 72)), 1)
    new = put(store, "b", 2, list(range(12, 70)), 2)

    assert as_dict(store, "1", "2") == expected(old, new)


def test_labels_are_compared_as_they_were(store: Store) -> None:
    first = give_labels(store, "a", 1)
    give_labels(store, "b", 2, probabilities=first)
    add_tag(store, "same")
    give_labels(store, "b", 2, probabilities=np.roll(first, 1, axis=1), name="again")
    then, now = diff(store, "a", "b", as_of="same"), diff(store, "a", "b")

    assert set(then["change"].to_pylist()) == {"kept"}
    assert set(now["change"].to_pylist()) == {"flipped"}


def test_an_empty_side_is_all_entered(store: Store) -> None:
    put(store, "a", 1, [12, 13], 1)
    rows = diff_labels(store, [], [LabelSet(iteration=1, teacher_id="a", split="unlabeled")])

    assert set(rows["change"].to_pylist()) == {"entered"}


def test_images_enter_and_leave_a_view(store: Store) -> None:
    give_labels(store)
    for quota in (3, 6):
        balance = plstore.Balance(min_confidence=0.3, images_per_class=quota, seed=0)
        plstore.select(
            store,
            plstore.Selection(view="v", teachers=["t0@1"], balance=balance),
        )
    changes = as_dict(store, "v@1", "v@2")
    entered = sum(n for (change, *_), (n, *_) in changes.items() if change == "entered")
    left = sum(n for (change, *_), (n, *_) in changes.items() if change == "left")

    assert (entered, left) == (9, 0)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("1", "nobody", "'nobody' is no teacher, iteration or view"),
        ("7", "1", "'7' is no teacher"),
        ("1", "v", "are labels and a view"),
        ("2", "1", "iteration 2 has labels by b, c; name one as b@2"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    store: Store, before: str, after: str, words: str
) -> None:
    give_labels(store, "t0", 1)
    give_labels(store, "b", 2)
    give_labels(store, "c", 2)
    balance = plstore.Balance(min_confidence=0.3, images_per_class=3, seed=0)
    plstore.select(
        store,
        plstore.Selection(view="v", teachers=["t0@1"], balance=balance),
    )

    with pytest.raises(InputError, match=words):
        diff(store, before, after)
