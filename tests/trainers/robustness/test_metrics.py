"""mCE, mFR and mT5D: published figures, and examples worked by hand."""

import re
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from plstore.errors import InputError
from trainers.robustness.metrics import (
    corruption_errors,
    flip_probability,
    flips,
    mce,
    mean_corruption_error,
    mfr,
    mt5d,
    normalised_errors,
    relative_mce,
    top5_distance,
    top5_distances,
)
from trainers.robustness.published import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    ALEXNET_ERRORS_BY_SEVERITY,
    ALEXNET_FLIP_PROBABILITIES,
    ALEXNET_TOP5_DISTANCES,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    PERTURBATIONS,
    SEVERITIES,
)

RESNET50_CE = {
    "gaussian_noise": 80, "shot_noise": 82, "impulse_noise": 83,
    "defocus_blur": 75, "glass_blur": 89, "motion_blur": 78, "zoom_blur": 80,
    "snow": 78, "frost": 75, "fog": 66, "brightness": 57,
    "contrast": 71, "elastic_transform": 85, "pixelate": 77, "jpeg_compression": 77,
}  # fmt: skip
"""Percent, rounded to whole ones, by which the paper's table 1 leads to mCE 76.7."""
RESNET50_FR = {
    "gaussian_noise": 59, "shot_noise": 58, "motion_blur": 64, "zoom_blur": 72, "snow": 63,
    "brightness": 62, "translate": 44, "rotate": 52, "tilt": 57, "scale": 48,
}  # fmt: skip
"""Percent, rounded to whole ones, of the paper's table of flip rates: mFR 58.0."""


def resnet50_errors() -> dict[str, float]:
    return {name: ce / 100 * ALEXNET_ERRORS[name] for name, ce in RESNET50_CE.items()}


def test_mce_of_resnet50_is_the_published_one() -> None:
    """Fifteen figures rounded to whole percent: their mean is right to half a percent."""
    errors = resnet50_errors()

    assert normalised_errors(errors) == pytest.approx(RESNET50_CE)
    assert mce(errors) == pytest.approx(sum(RESNET50_CE.values()) / 15)
    assert mce(errors) == pytest.approx(76.7, abs=0.5)


def test_mfr_of_resnet50_is_the_published_one() -> None:
    found = mfr({n: r / 100 * ALEXNET_FLIP_PROBABILITIES[n] for n, r in RESNET50_FR.items()})

    assert found == pytest.approx(57.9)
    assert found == pytest.approx(58.0, abs=0.5)


def test_alexnet_by_severity_has_the_published_means_and_is_its_own_hundred() -> None:
    by_severity = {
        (name, severity): error
        for name, errors in ALEXNET_ERRORS_BY_SEVERITY.items()
        for severity, error in zip(SEVERITIES, errors, strict=True)
    }
    errors = corruption_errors(by_severity)

    assert tuple(errors) == CORRUPTIONS
    assert errors == pytest.approx({name: ALEXNET_ERRORS[name] for name in CORRUPTIONS})
    assert mean_corruption_error(errors) == pytest.approx(0.788993, abs=1e-6)
    assert mce(errors) == pytest.approx(100)
    assert relative_mce(errors, ALEXNET_CLEAN_ERROR) == pytest.approx(100)
    assert mfr(ALEXNET_FLIP_PROBABILITIES) == pytest.approx(100)
    assert mt5d(ALEXNET_TOP5_DISTANCES) == pytest.approx(100)


def test_normalising_goes_by_name_and_leaves_the_extras_out() -> None:
    errors = resnet50_errors()
    backwards = dict(reversed(errors.items()))
    with_extras = {**backwards, **dict.fromkeys(EXTRA_CORRUPTIONS, 1.0)}

    assert mce(with_extras) == pytest.approx(mce(errors))
    assert mean_corruption_error(with_extras) == mean_corruption_error(errors)
    assert set(EXTRA_CORRUPTIONS) < set(ALEXNET_ERRORS)
    assert normalised_errors(with_extras, names=["spatter"]) == pytest.approx(
        {"spatter": 100 / 0.718}
    )


def test_missing_corruptions_are_named() -> None:
    errors = resnet50_errors()
    del errors["fog"], errors["snow"]

    with pytest.raises(InputError, match=r"errors lacks snow, fog; wanted"):
        mce(errors)
    with pytest.raises(InputError, match=r"errors lacks snow, fog"):
        relative_mce(errors, 0.2)
    with pytest.raises(InputError, match=r"baseline lacks snow, fog"):
        mce(resnet50_errors(), errors)
    with pytest.raises(InputError, match=r"errors lacks \('fog', 3\), \('fog', 4\)"):
        corruption_errors({("fog", 1): 0.1, ("fog", 2): 0.1, ("fog", 5): 0.1})
    with pytest.raises(InputError, match=r"errors has \('fog', 3\); wanted severities 1, 2"):
        corruption_errors({("fog", s): 0.1 for s in (1, 2, 3)}, severities=(1, 2))
    with pytest.raises(InputError, match="errors lacks all values"):
        corruption_errors({})
    with pytest.raises(InputError, match="probabilities lacks tilt"):
        mfr({name: 0.1 for name in PERTURBATIONS if name != "tilt"})
    with pytest.raises(InputError, match="distances lacks scale"):
        mt5d({name: 2.0 for name in PERTURBATIONS if name != "scale"})


def test_values_that_are_no_shares_and_baselines_of_0_are_refused() -> None:
    errors = resnet50_errors()

    with pytest.raises(InputError, match=re.escape("errors fog is 66; wanted a share")):
        mce({**errors, "fog": 66})
    with pytest.raises(InputError, match=r"the error of fog is nan; wanted a share"):
        mean_corruption_error({**errors, "fog": float("nan")})
    with pytest.raises(InputError, match=r"baseline fog is 0; wanted a value to divide by"):
        mce(errors, {**errors, "fog": 0})
    with pytest.raises(InputError, match=r"distances snow is -1; wanted a finite number"):
        mt5d({**dict.fromkeys(PERTURBATIONS, 2.0), "snow": -1})
    with pytest.raises(InputError, match=r"under brightness is not above its clean error 0.57"):
        relative_mce(errors, 0.2, ALEXNET_ERRORS, 0.57)


def test_relative_mce_compares_what_is_lost() -> None:
    """A model that loses half of what the baseline does, whatever its clean error."""
    half = {n: 0.2 + (ALEXNET_ERRORS[n] - ALEXNET_CLEAN_ERROR) / 2 for n in CORRUPTIONS}

    assert relative_mce(half, 0.2) == pytest.approx(50)


def test_flips_are_counted_from_the_frame_before_or_the_first() -> None:
    """The first video goes 1 1 2 2 1, the second 3 3 3 3 4."""
    predictions = np.array([[1, 1, 2, 2, 1], [3, 3, 3, 3, 4]])

    assert flips(predictions, noise=False).tolist() == [2 / 4, 1 / 4]
    assert flips(predictions, noise=True).tolist() == [2 / 4, 1 / 4]
    other = np.array([[1, 2, 1, 2, 2], [3, 4, 4, 4, 4]])
    assert flips(other, noise=False).tolist() == [3 / 4, 1 / 4]
    assert flips(other, noise=True).tolist() == [3 / 4, 4 / 4]
    assert flip_probability(other, noise=False) == pytest.approx(0.5)
    assert flip_probability(other, noise=True) == pytest.approx(0.875)


def distance_by_definition(first: list[int], second: list[int]) -> int:
    """Return d of section 4.2 for two rankings, each a list of classes, likeliest first."""
    total = 0
    for i in range(1, min(5, len(first)) + 1):
        s = second.index(first[i - 1]) + 1
        total += sum(1 <= j - 1 <= 5 for j in range(min(i, s) + 1, max(i, s) + 1))
    return total


def scores_of(rankings: list[list[int]]) -> npt.NDArray[np.float32]:
    """Return [1, frames, classes] in whose frames classes are ranked so."""
    scores = np.zeros((1, len(rankings), len(rankings[0])), np.float32)
    for frame, ranking in enumerate(rankings):
        scores[0, frame, ranking] = -np.arange(len(ranking))
    return scores


def test_top5_distance_by_hand() -> None:
    """Two neighbours that change places are 2; the first that leaves the five is 5 and 4."""
    same, swapped = [0, 1, 2, 3, 4, 5, 6], [1, 0, 2, 3, 4, 5, 6]
    fallen = [1, 2, 3, 4, 5, 6, 0]

    assert top5_distances(scores_of([same, same]), noise=False).tolist() == [0]
    assert top5_distances(scores_of([same, swapped]), noise=False).tolist() == [2]
    assert top5_distances(scores_of([same, fallen]), noise=False).tolist() == [5 + 4]
    assert top5_distances(scores_of([same, swapped, same]), noise=False).tolist() == [2]
    assert top5_distances(scores_of([same, swapped, same]), noise=True).tolist() == [1]
    gone = [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]
    assert top5_distance(scores_of([sorted(gone), gone]), noise=False) == 15


@pytest.mark.parametrize("num_classes", [2, 5, 6, 40])
@pytest.mark.parametrize("noise", [True, False])
def test_top5_distance_is_the_definition(num_classes: int, noise: bool) -> None:
    random = np.random.default_rng(num_classes)
    scores = random.normal(size=(3, 7, num_classes)).astype(np.float32)
    expected = []
    for video in scores:
        rankings = [[int(c) for c in np.argsort(-frame)] for frame in video]
        pairs = [(rankings[0], r) for r in rankings[1:]] if noise else pairwise(rankings)
        expected.append(np.mean([distance_by_definition(a, b) for a, b in pairs]))

    assert top5_distances(scores, noise=noise) == pytest.approx(np.array(expected))
    assert top5_distance(scores, noise=noise) == pytest.approx(np.mean(expected))


def test_videos_of_one_frame_and_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"predictions is int64 \[3, 1\]; wanted integer"):
        flips(np.zeros((3, 1), np.int64), noise=False)
    with pytest.raises(InputError, match=r"predictions is float64 \[3, 2\]"):
        flips(np.zeros((3, 2)), noise=False)  # type: ignore[arg-type]  # the wrong kind
    with pytest.raises(InputError, match=r"predictions is int64 \[0, 2\]"):
        flip_probability(np.zeros((0, 2), np.int64), noise=True)
    with pytest.raises(InputError, match=r"scores is float64 \[3, 2\]; wanted floating"):
        top5_distances(np.zeros((3, 2)), noise=False)
    with pytest.raises(InputError, match="scores holds NaN"):
        top5_distances(np.full((1, 2, 3), np.nan), noise=False)
