"""Cross-validation of a regression: folds, its strength, and labels that are probably wrong."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import trainers
from plstore.labels import find_teacher
from plstore.query import run_query, run_sql
from plstore.store import Store
from tests.trainers.features.test_probing import recipe, weights
from trainers.features.doubts import ITERATION, QUERY, folds_teacher
from trainers.features.folds import FOLDS, cross_validate, fold_of, is_wanted
from trainers.models.linear import Examples, fit_best

__all__ = ["weights"]

RANDOM = np.random.default_rng(0)
CLASSES = np.arange(120) % 3
VECTORS = (RANDOM.normal(size=(120, 8)) + 2 * np.eye(8)[CLASSES]).astype(np.float32)


def examples(classes: np.ndarray = CLASSES) -> Examples:
    return Examples(
        vectors=VECTORS,
        targets=np.eye(3, dtype=np.float32)[classes],
        weights=np.ones(len(classes), np.float32),
    )


def test_each_class_is_spread_over_the_folds_and_a_lonely_image_stays() -> None:
    classes = np.array([0] * 11 + [1] * 3 + [2])
    folds = fold_of(classes, seed=0)

    assert sorted(np.bincount(folds[:11]).tolist()) == [2, 2, 2, 2, 3]
    assert len(set(folds[11:14].tolist())) == 3
    assert folds[14] == -1
    assert fold_of(classes, seed=0).tolist() == folds.tolist()
    assert fold_of(classes, seed=1).tolist() != folds.tolist()


def test_an_image_is_judged_by_the_fit_that_did_not_see_it() -> None:
    found = cross_validate(examples(), None, seed=0, strengths=[1.0])
    assert found is not None
    folds = fold_of(CLASSES, seed=0)
    expected = np.zeros((120, 3))
    for number in range(FOLDS):
        kept, held_out = VECTORS[folds != number], VECTORS[folds == number]
        centre, scale = kept.mean(0), kept.std(0)
        known = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000)
        known.fit((kept - centre) / scale, CLASSES[folds != number])
        expected[folds == number] = known.predict_proba((held_out - centre) / scale)

    assert np.abs(found.probabilities - expected).max() < 2e-3
    assert found.rows.tolist() == list(range(120))
    assert found.accuracy == pytest.approx(100 * (expected.argmax(1) == CLASSES).mean())
    losses = -np.log(expected[np.arange(120), CLASSES])
    assert found.nll == pytest.approx(losses.mean(), abs=1e-3)


def test_the_strength_is_not_that_of_a_lucky_validation_image() -> None:
    """One image whose label is wrong chooses the weakest model; the labeled ones do not."""
    wrong = Examples(
        vectors=VECTORS[:1],
        targets=np.eye(3, dtype=np.float32)[[1]],
        weights=np.ones(1, np.float32),
    )
    by_one = fit_best(examples(), wrong)
    folded = cross_validate(examples(), wrong, seed=0)

    assert folded is not None
    assert by_one.strength == pytest.approx(10**-4.5)
    assert folded.strength > 100 * 10**-4.5


def test_nothing_can_be_held_out_of_one_image_a_class() -> None:
    alone = Examples(
        vectors=VECTORS[:3],
        targets=np.eye(3, dtype=np.float32),
        weights=np.ones(3, np.float32),
    )
    assert cross_validate(alone, None, seed=0) is None


def test_many_validation_images_choose_alone() -> None:
    assert is_wanted(400, 60)
    assert not is_wanted(400, 500)
    assert not is_wanted(1_000_000, 60)


def test_a_run_of_probes_keeps_what_held_out_fits_say(store: Store, weights: Path) -> None:
    result = trainers.run(recipe(weights), store, device="cpu")
    name = folds_teacher(result["teacher"]["teacher_id"])
    rows = run_sql(
        store,
        f"select split, iteration, count(*) as n from soft_labels where teacher_id = '{name}' "  # noqa: S608
        "group by all",
    ).to_pylist()
    record = find_teacher(store, name)
    found = run_query(store, QUERY, teacher_id=name, iteration=ITERATION)

    assert rows == [{"split": "labeled", "iteration": 0, "n": 12}]
    assert record is not None
    assert record.role == "predictions"
    assert record.checkpoint is None
    assert set(found["split"].to_pylist()) <= {"labeled"}
    assert result["teacher"]["doubted"] == found.num_rows
    assert run_query(store, QUERY, teacher_id=name) == found  # its only iteration
    assert not any(
        row["teacher_id"] == folds_teacher(result["control"]["teacher_id"])
        for row in run_sql(store, "select teacher_id from teachers").to_pylist()
    )
