"""Probabilities that were rounded, logits, and what is neither."""

from pathlib import Path

import numpy as np
import pytest

import plstore
from plstore.errors import InputError
from plstore.exchange.distributions import as_distributions, softmax
from plstore.images import import_images
from plstore.store import Store
from tests.conftest import CLASS_NAMES, make_records
from tests.exchange.predicted import (
    KEYS,
    PROBS,
    Floats,
    distributions,
    keep,
    kept,
    taken,
    wide,
    written,
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """For tests that write nothing."""
    store = plstore.create(tmp_path_factory.mktemp("images") / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    return store


def rounded(probs: Floats, decimals: int) -> Floats:
    return np.round(probs.astype(np.float64), decimals).astype(np.float32)


def bfloat16(values: Floats) -> Floats:
    bits = values.view(np.uint32)
    even = bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)
    return (even & np.uint32(0xFFFF0000)).view(np.float32)


def place(row: int) -> str:
    return f"row {row}"


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100, 1000, 5000])
@pytest.mark.parametrize("decimals", [2, 3, 4, 5, 6])
def test_rounded_probabilities_are_moved_no_further_than_rounding(
    num_classes: int, decimals: int
) -> None:
    probs = distributions(1, num_classes, 64)
    probs = np.concatenate([probs, np.full((1, num_classes), 1 / num_classes, np.float32)])
    values = rounded(probs, decimals)
    values = values[values.max(axis=1) > 0]
    found = as_distributions(values, place)
    half = 0.5 * 10.0**-decimals

    assert np.abs(found.sum(axis=1, dtype=np.float64) - 1).max() < 1e-3
    assert np.abs(found - values).max() <= half + 3 * 2.0**-9
    assert (found.argmax(axis=1) == values.argmax(axis=1)).all()
    if num_classes == 1000 and decimals == 3:
        assert np.abs(values.sum(axis=1) - 1).max() > 0.02  # or this tests nothing


def test_a_softmax_in_bfloat16_is_normalised() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (512, 1000)).astype(np.float32)
    exact = softmax(logits, place)
    terms = bfloat16(np.exp(logits - logits.max(axis=1, keepdims=True)))
    coarse = bfloat16(terms / bfloat16(terms.sum(axis=1, keepdims=True)))
    found = as_distributions(coarse, place)

    assert np.abs(coarse.sum(axis=1) - 1).max() > 1.5e-3
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-3
    assert np.abs(found.max(axis=1) - exact.max(axis=1)).max() < 0.01


def test_distributions_stay_bit_for_bit() -> None:
    assert as_distributions(PROBS, place) is PROBS


def test_probabilities_of_three_decimals_are_imported(store: Store, tmp_path: Path) -> None:
    coarse = rounded(PROBS, 3)
    keep(store, wide(tmp_path / "p.csv", KEYS, probs=coarse, text="{:.3f}"))

    assert np.abs(kept(store) - PROBS).max() < 3e-3
    assert abs(kept(store).max(axis=1).mean() - PROBS.max(axis=1).mean()) < 1e-3


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([-1.5, 2, 0.5], "Logits want --logits"),
        ([4, 0, 0], "Logits want --logits"),
        ([-0.2, -1.6, -3], "Logits want --logits"),
        ([0.9, 0.8, 0.1], "no probabilities. Wanted values of 0 to 1 that sum to 1"),
        ([0.3, 0.3, 0.3], "no probabilities. Wanted values of 0 to 1 that sum to 1"),
        ([0, 0, 0], "no probabilities. Wanted"),
        ([87.5, 10, 2.5], "percents. Divide them by 100"),
        ([np.nan, 0.5, 0.5], "holds nan for class 0"),
        ([0.5, 0.5, np.inf], "holds inf for class 2"),
    ],
)
def test_rows_that_are_no_distribution_are_named(
    images: Store, tmp_path: Path, row: list[float], words: str
) -> None:
    probs = PROBS.copy()
    probs[7] = row
    values, ids = written(tmp_path, "a", probs)
    with pytest.raises(InputError, match=rf"a\.npy row 7 \('unlabeled/0019\.png'\) .*{words}"):
        taken(images, values, ids=ids)
    path = wide(tmp_path / "p.csv", KEYS, probs=probs)
    with pytest.raises(InputError, match=rf"p\.csv row 8 \('unlabeled/0019\.png'\) .*{words}"):
        taken(images, path)


def test_logits_of_distributions_are_refused(images: Store, tmp_path: Path) -> None:
    for name, probs in (("exact", PROBS), ("rounded", rounded(PROBS, 3))):
        values, ids = written(tmp_path, name, probs)
        with pytest.raises(InputError, match=r"probabilities already.* leave out --logits"):
            taken(images, values, ids=ids, logits=True)


def test_logits_may_rule_classes_out_and_hold_no_other_infinity(
    images: Store, tmp_path: Path
) -> None:
    logits = np.log(PROBS)
    logits[3] = [0, -np.inf, 0]
    values, ids = written(tmp_path, "a", logits)
    _, found = taken(images, values, ids=ids, logits=True)

    assert found[3].tolist() == [0.5, 0, 0.5]
    for row in ([np.nan, 0, 0], [np.inf, 0, 0], [-np.inf] * 3):
        logits[3] = row
        values, ids = written(tmp_path, "b", logits)
        with pytest.raises(InputError, match=r"row 3 \('unlabeled/0015\.png'\) holds"):
            taken(images, values, ids=ids, logits=True)
