"""Logistic regression: what scikit-learn finds, soft targets, weights, the choice of C."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from trainers.models.linear import Examples, fit, fit_best

RANDOM = np.random.default_rng(0)
CLASSES = RANDOM.integers(0, 3, 90)
VECTORS = (RANDOM.normal(size=(90, 6)) + 1.5 * np.eye(6)[CLASSES] * 2 + 5).astype(np.float32)


def examples(targets: np.ndarray | None = None, weights: np.ndarray | None = None) -> Examples:
    return Examples(
        vectors=VECTORS,
        targets=np.eye(3, dtype=np.float32)[CLASSES] if targets is None else targets,
        weights=np.ones(90, np.float32) if weights is None else weights,
    )


@pytest.mark.parametrize("strength", [0.01, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_finds_what_scikit_learn_finds(strength: float, weighted: bool) -> None:
    weights = RANDOM.uniform(0.2, 3, 90).astype(np.float32) if weighted else np.ones(90)
    scaled = (VECTORS - VECTORS.mean(0)) / VECTORS.std(0)
    known = LogisticRegression(C=strength, tol=1e-8, max_iter=5000)
    known.fit(scaled, CLASSES, sample_weight=weights)

    found = fit(examples(weights=weights.astype(np.float32)), strength)

    expected = known.predict_proba(scaled)
    assert np.abs(found.probabilities(VECTORS) - expected).max() < 2e-3


def test_a_soft_target_is_its_classes_by_their_shares() -> None:
    soft = np.full((90, 3), 0.2, np.float32)
    soft[np.arange(90), CLASSES] = 0.6
    thrice = Examples(
        vectors=np.tile(VECTORS, (3, 1)),
        targets=np.repeat(np.eye(3, dtype=np.float32), 90, axis=0),
        weights=soft.T.reshape(-1),
    )

    one, three = fit(examples(soft), 0.1), fit(thrice, 0.1)

    assert np.abs(one.probabilities(VECTORS) - three.probabilities(VECTORS)).max() < 2e-3


def test_the_strength_is_the_one_that_validation_likes_best() -> None:
    flipped = np.eye(3, dtype=np.float32)[(CLASSES + 1) % 3]
    contrary = Examples(vectors=VECTORS, targets=flipped, weights=np.ones(90, np.float32))

    agreeing = fit_best(examples(), examples(), [1e-4, 1e-2, 1.0])
    doubtful = fit_best(examples(), contrary, [1e-4, 1e-2, 1.0])

    assert (agreeing.strength, doubtful.strength) == (1.0, 1e-4)
    assert fit_best(examples(), None).strength == 1e-3
    assert examples().accuracy(agreeing) > 90


def test_it_is_the_same_to_the_last_bit_each_time() -> None:
    one, two = fit(examples(), 0.1), fit(examples(), 0.1)

    assert one.weight.equal(two.weight)
    assert one.bias.equal(two.bias)
