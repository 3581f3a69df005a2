"""mCE, relative mCE, mFR and mT5D, as Hendrycks and Dietterich define them.

Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019, arXiv
1903.12261, section 4.2; figures of videos as ImageNet-P/test.py of
github.com/hendrycks/robustness computes them. All goes by name. Shares are 0 to 1; what the
paper gives in percent (CE, mCE, mFR, mT5D) is in percent here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError
from trainers.robustness.published import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    ALEXNET_FLIP_PROBABILITIES,
    ALEXNET_TOP5_DISTANCES,
    CORRUPTIONS,
    PERTURBATIONS,
    SEVERITIES,
)

_TOP: Final = 5


def corruption_errors(
    errors: Mapping[tuple[str, int], float], severities: Sequence[int] = SEVERITIES
) -> dict[str, float]:
    """Return the mean error of every corruption over its severities.

    Args:
        errors: Top-1 error, a share, by (corruption, severity).
        severities: Those that every corruption must have.

    Returns:
        A share by corruption, in the order in which they first come.

    Raises:
        InputError: If a corruption lacks a severity or has another, or an error is no share.
    """
    names = list(dict.fromkeys(name for name, _ in errors))
    wanted = [(name, severity) for name in names for severity in severities]
    _check_names("errors", wanted, errors)
    unknown = sorted(set(errors) - set(wanted))
    if unknown:
        raise InputError(
            f"errors has {_list(unknown)}; wanted severities {_list(severities)} alone"
        )
    shares = {key: _share(f"the error of {key}", value) for key, value in errors.items()}
    return {name: _mean(shares[name, severity] for severity in severities) for name in names}


def mean_corruption_error(
    errors: Mapping[str, float], names: Sequence[str] = CORRUPTIONS
) -> float:
    """Return the mean error over corruptions, not normalised: for data other than ImageNet-1k.

    Args:
        errors: Mean error, a share, by corruption, see `corruption_errors`.
        names: Corruptions to take, the 15 of mCE unless given; others in `errors` are left out.

    Returns:
        A share.

    Raises:
        InputError: If one is missing, or is no share.
    """
    _check_names("errors", names, errors)
    return _mean(_share(f"the error of {name}", errors[name]) for name in names)


def normalised_errors(
    errors: Mapping[str, float],
    baseline: Mapping[str, float] = ALEXNET_ERRORS,
    names: Sequence[str] = CORRUPTIONS,
) -> dict[str, float]:
    """Return the corruption error CE of every corruption: a model's error over a baseline's.

    Section 4.2: the sum of errors over severities, divided by that of AlexNet.

    Args:
        errors: Mean error, a share, by corruption, see `corruption_errors`.
        baseline: The same of the model to compare with; AlexNet's hold for ImageNet-1k alone.
        names: Corruptions to take, the 15 of mCE unless given; others are left out.

    Returns:
        Percent, by corruption in the order of `names`.

    Raises:
        InputError: If one is missing, is no share, or the baseline's error is 0.
    """
    return _ratios("errors", errors, baseline, names, largest=1)


def mce(errors: Mapping[str, float], baseline: Mapping[str, float] = ALEXNET_ERRORS) -> float:
    """Return the mean corruption error mCE: the mean CE of 15 corruptions.

    Args:
        errors: Mean error, a share, by corruption, see `corruption_errors`; the extra four are
            left out where they are given.
        baseline: The same of the model to compare with.

    Returns:
        Percent; 100 is as good as the baseline, less is better.

    Raises:
        InputError: As `normalised_errors`; missing corruptions are named.
    """
    return _mean(normalised_errors(errors, baseline).values())


def relative_mce(
    errors: Mapping[str, float],
    clean_error: float,
    baseline: Mapping[str, float] = ALEXNET_ERRORS,
    baseline_clean_error: float = ALEXNET_CLEAN_ERROR,
) -> float:
    """Return the relative mCE: how much of its accuracy a model loses, beside a baseline.

    Section 4.2: as mCE, with the error on clean images taken from each error first.

    Args:
        errors: Mean error, a share, by corruption.
        clean_error: The model's on clean images, a share.
        baseline: Mean error of the model to compare with, a share, by corruption.
        baseline_clean_error: That model's on clean images, a share.

    Returns:
        Percent.

    Raises:
        InputError: If one of the 15 is missing, a value is no share, or the baseline loses
            nothing to a corruption.
    """
    clean = _share("clean_error", clean_error)
    baseline_clean = _share("baseline_clean_error", baseline_clean_error)
    for what, values in (("errors", errors), ("baseline", baseline)):
        _check_names(what, CORRUPTIONS, values)
    lost = {n: _share(f"the error of {n}", errors[n]) - clean for n in CORRUPTIONS}
    theirs = {n: _share(f"baseline {n}", baseline[n]) - baseline_clean for n in CORRUPTIONS}
    spared = [name for name, value in theirs.items() if value <= 0]
    if spared:
        raise InputError(
            f"the baseline's error under {_list(spared)} is not above its clean error "
            f"{baseline_clean:g}, so nothing can be divided by the difference; wanted the "
            "errors of one model on one data set"
        )
    return 100 * _mean(lost[name] / theirs[name] for name in CORRUPTIONS)


def flips(predictions: npt.NDArray[np.integer], *, noise: bool) -> npt.NDArray[np.float64]:
    """Return the share of a video's frames whose prediction is not that of the frame before.

    Args:
        predictions: Integer [videos, frames]: the predicted class.
        noise: Whether frames are draws of noise, not a course of time: each is then compared
            with the first frame, see `published.NOISE_PERTURBATIONS`.

    Returns:
        float64 [videos], 0 to 1.

    Raises:
        InputError: If it is no integer [videos, frames] of at least one video of two frames.
    """
    found = np.asarray(predictions)
    _check_videos("predictions", found, ("videos", "frames"), "integer")
    before = found[:, :1] if noise else found[:, :-1]
    return np.asarray((found[:, 1:] != before).mean(axis=1, dtype=np.float64))


def flip_probability(predictions: npt.NDArray[np.integer], *, noise: bool) -> float:
    """Return the flip probability FP of a perturbation: the mean of `flips` over videos.

    Section 4.2. Args and errors are those of `flips`.

    Returns:
        A share.
    """
    return float(flips(predictions, noise=noise).mean())


def mfr(
    probabilities: Mapping[str, float],
    baseline: Mapping[str, float] = ALEXNET_FLIP_PROBABILITIES,
) -> float:
    """Return the mean flip rate mFR: the mean of FP over the baseline's, of 10 perturbations.

    Args:
        probabilities: Flip probability, a share, by perturbation; others than the 10 are left
            out.
        baseline: The same of the model to compare with.

    Returns:
        Percent.

    Raises:
        InputError: If one of the 10 is missing, is no share, or the baseline's is 0.
    """
    ratios = _ratios("probabilities", probabilities, baseline, PERTURBATIONS, largest=1)
    return _mean(ratios.values())


def top5_distances(scores: npt.NDArray[np.floating], *, noise: bool) -> npt.NDArray[np.float64]:
    """Return how far the five likeliest classes of a video's frames move, in ranks.

    Section 4.2: between two frames, the sum over ranks i = 1 to 5 of the number of ranks j in
    (min(i, s), max(i, s)] with 1 <= j - 1 <= 5, where s is the rank in the second frame of the
    class that has rank i in the first. What leaves the top five counts as rank 6. Of fewer than
    five classes all are taken. Ties go to the class that comes first.

    Args:
        scores: Floating [videos, frames, classes]: logits or probabilities, the larger the
            likelier. Videos may be given in portions: what is returned is by video.
        noise: As in `flips`.

    Returns:
        float64 [videos]: the mean over pairs of frames; 0 if no rank changes, 15 at most.

    Raises:
        InputError: If it is no floating [videos, frames, classes] of at least one video of two
            frames and one class, or a score is NaN.
    """
    found = np.asarray(scores)
    _check_videos("scores", found, ("videos", "frames", "classes"), "floating")
    if np.isnan(found).any():
        raise InputError("scores holds NaN; wanted the logits or probabilities of a model")
    order = np.argsort(-found, axis=2, kind="stable")
    ranks = np.argsort(order, axis=2, kind="stable")  # from 0
    top = order[:, :1] if noise else order[:, :-1]
    now = np.take_along_axis(ranks[:, 1:], top[..., :_TOP], axis=2)
    moved = np.abs(np.minimum(now, _TOP) - np.arange(now.shape[2]))
    return np.asarray(moved.sum(axis=2).mean(axis=1, dtype=np.float64))


def top5_distance(scores: npt.NDArray[np.floating], *, noise: bool) -> float:
    """Return the unnormalised top-5 distance uT5D: the mean of `top5_distances` over videos.

    Args and errors are those of `top5_distances`.

    Returns:
        Ranks.
    """
    return float(top5_distances(scores, noise=noise).mean())


def mt5d(
    distances: Mapping[str, float], baseline: Mapping[str, float] = ALEXNET_TOP5_DISTANCES
) -> float:
    """Return mT5D: the mean of uT5D over the baseline's, of 10 perturbations.

    Args:
        distances: Unnormalised top-5 distance, in ranks, by perturbation; others than the 10
            are left out.
        baseline: The same of the model to compare with.

    Returns:
        Percent.

    Raises:
        InputError: If one of the 10 is missing, is negative, or the baseline's is 0.
    """
    return _mean(_ratios("distances", distances, baseline, PERTURBATIONS).values())


def _ratios(
    what: str,
    values: Mapping[str, float],
    baseline: Mapping[str, float],
    names: Sequence[str],
    largest: float = np.inf,
) -> dict[str, float]:
    """Return percent of the baseline's, by name."""
    ratios = {}
    _check_names(what, names, values)
    _check_names("baseline", names, baseline)
    for name in names:
        of = _share(f"baseline {name}", baseline[name], largest)
        if of == 0:
            raise InputError(f"baseline {name} is 0; wanted a value to divide by, above 0")
        ratios[name] = 100 * _share(f"{what} {name}", values[name], largest) / of
    return ratios


def _check_names(what: str, wanted: Iterable[object], found: Iterable[object]) -> None:
    there = set(found)
    missing = [name for name in wanted if name not in there]
    if missing or not there:
        raise InputError(f"{what} lacks {_list(missing) or 'all values'}; wanted each of them")


def _share(what: str, value: float, largest: float = 1) -> float:
    number = float(value)
    if not 0 <= number <= largest or number == np.inf:
        wanted = "a share from 0 to 1" if largest == 1 else "a finite number of 0 or more"
        raise InputError(f"{what} is {number:g}; wanted {wanted}")
    return number


def _check_videos(
    what: str, found: npt.NDArray[np.generic], axes: tuple[str, ...], kind: str
) -> None:
    right = np.issubdtype(found.dtype, np.integer if kind == "integer" else np.floating)
    if not right or found.ndim != len(axes) or found.size == 0 or found.shape[1] <= 1:
        raise InputError(
            f"{what} is {found.dtype} {list(found.shape)}; wanted {kind} [{', '.join(axes)}] "
            "of at least one video, each of two frames or more"
        )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(np.fromiter(values, np.float64)))


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
