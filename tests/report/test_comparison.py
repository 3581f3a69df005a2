import numpy as np
import pytest

from plstore.report import comparison
from plstore.report.comparison import KNOWN, compare, previous_labels
from plstore.report.snapshot import Snapshot
from plstore.store import Store


def classes(snapshot: Snapshot, teacher: str, split: str) -> dict[int, tuple[int, float]]:
    rows = snapshot.store.table("soft_labels").read().to_pylist()
    return {
        r["sample_id"]: (r["class_id"], r["confidence"])
        for r in rows
        if (r["teacher_id"], r["split"]) == (teacher, split)
    }


def test_two_teachers_are_counted_against_each_other(snapshot: Snapshot) -> None:
    before, now = snapshot.labels("unlabeled")
    found = compare(snapshot, before, now)
    a, b = classes(snapshot, "t0", "unlabeled"), classes(snapshot, "t1", "unlabeled")
    matrix = np.zeros((3, 3), np.int64)
    for i in a:
        matrix[a[i][0], b[i][0]] += 1

    assert found.matrix.tolist() == matrix.tolist()
    assert found.num_images == 60
    assert found.num_same == matrix.trace()
    assert found.agreement == pytest.approx(matrix.trace() / 60)
    assert found.a_mean == pytest.approx(np.mean([c for _, c in a.values()]))
    assert found.b_mean == pytest.approx(np.mean([c for _, c in b.values()]))
    assert sum(found.shift) == 60
    surer = sum(b[i][1] > a[i][1] for i in a)
    assert sum(found.shift[20:]) >= surer
    pairs = [p.num_images for p in found.pairs]
    assert pairs == sorted(pairs, reverse=True)
    assert sum(pairs) == 60 - found.num_same


def test_a_teacher_is_counted_against_what_people_say(snapshot: Snapshot) -> None:
    labels = snapshot.labels("validation")[-1]
    found = compare(snapshot, labels, KNOWN)
    images = snapshot.store.table("images").read(columns=["sample_id", "label"]).to_pylist()
    known = {r["sample_id"]: r["label"] for r in images}
    said = classes(snapshot, "t1", "validation")

    assert found.num_images == 6
    assert found.num_same == sum(known[i] == c for i, (c, _) in said.items())
    assert found.b_mean is None
    assert found.shift == []


def test_of_very_many_classes_the_most_confused_are_shown(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = snapshot.labels("unlabeled")
    whole = compare(snapshot, *labels)
    monkeypatch.setattr(comparison, "MOST_CLASSES", 2)
    found = comparison._compare(snapshot, *labels)
    wrong = whole.matrix - np.diag(whole.matrix.diagonal())
    often = wrong.sum(axis=0) + wrong.sum(axis=1)

    assert whole.matrix.shape == (3, 3)
    assert found.class_ids == sorted(np.argsort(-often, kind="stable")[:2].tolist())
    assert found.num_classes == 3
    assert found.num_images == 60


def test_labels_before_others_are_of_an_earlier_iteration(snapshot: Snapshot) -> None:
    first, second = snapshot.labels("unlabeled")

    assert previous_labels(snapshot, second) == first
    assert previous_labels(snapshot, first) == second


def test_there_is_nothing_to_compare_one_set_of_labels_with(store: Store) -> None:
    from tests.conftest import give_labels

    give_labels(store)
    snapshot = Snapshot(store)

    assert previous_labels(snapshot, snapshot.labels("unlabeled")[0]) is None
