"""How much each member of a fusion should count: weights fitted on validation images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError, MissingExtraError
from plstore.labels.fusion import FLOOR, Floats, Member, Method, at_temperature, fuse
from plstore.labels.truth import Ints, Validation

Doubles = npt.NDArray[np.float64]
Loss = Callable[[Doubles], tuple[float, Doubles]]
"""From float64 [members] weights to the mean negative log-likelihood, and its gradient."""

_CHUNK_ROWS: Final = 512
_UNITS: Final = 10_000  # in 1: finer than a validation split tells, the same on all machines
_PERCENT: Final = 100


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """Weights that were fitted, and what they are worth on the images that they were fitted on.

    Attributes:
        weights: One a member, 0 to 1, together 1.
        nll_before: Mean negative log-likelihood in nats, of equal weights.
        nll_after: Of these.
        accuracy_before: Percent of `num_images`, of equal weights.
        accuracy_after: Of these.
        num_images: Validation images of a known class that all members labeled.
        num_telling: Those of them that the likelihood is of: all but, for votes, those that no
            member is right about, which are as unlikely by any weights.
    """

    weights: tuple[float, ...]
    nll_before: float
    nll_after: float
    accuracy_before: float
    accuracy_after: float
    num_images: int
    num_telling: int


def fit_weights(validation: Validation, members: Sequence[Member], method: Method) -> Weighting:
    """Return the weights whose fused distribution gives the true classes the most likelihood.

    The mean negative log-likelihood is convex in the weights for every method. It is minimised
    over the simplex by L-BFGS, from equal weights, as a function of numbers whose softmax the
    weights are: so its slope is bounded, which that in a weight near 0 is not. Votes that are
    all wrong have a likelihood of 0 whatever the weights: the others alone decide. Weights are
    rounded to 4 decimals, and may be 0; where they are no better than equal ones, these are
    returned.

    Args:
        validation: What the members say, in their order.
        members: Their temperatures; their weights do not count.
        method: How they are averaged.

    Raises:
        InputError: If members vote, and none is right about any image.
        MissingExtraError: If scipy is not installed.
    """
    loss, num_telling = _loss(validation, members, method)
    even = np.full(len(members), 1 / len(members))
    weights = _rounded(_minimised(loss, len(members)))
    if not loss(weights)[0] < loss(even)[0]:
        weights = even
    before, after = (_accuracy(validation, members, w, method) for w in (even, weights))
    return Weighting(
        weights=tuple(weights.tolist()),
        nll_before=loss(even)[0],
        nll_after=loss(weights)[0],
        accuracy_before=before,
        accuracy_after=after,
        num_images=len(validation.classes),
        num_telling=num_telling,
    )


def _minimised(loss: Loss, count: int) -> Doubles:
    """Return the weights of the least loss, each above 0."""
    try:
        from scipy.optimize import minimize
    except ModuleNotFoundError as error:
        raise MissingExtraError("scipy", "train", "fitting weights") from error

    def of_softmax(values: Doubles) -> tuple[float, Doubles]:
        weights = _softmax(values)
        value, slope = loss(weights)
        return value, weights * (slope - weights @ slope)

    found = minimize(
        of_softmax,
        np.zeros(count),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-10, "gtol": 1e-6, "maxiter": 1000},
    )
    return _softmax(found.x)


def _softmax(values: Doubles) -> Doubles:
    exponents = np.exp(values - values.max())
    return np.asarray(exponents / exponents.sum(), np.float64)


def _rounded(weights: Doubles) -> Doubles:
    """Return weights of 4 decimals that sum to 1: the largest remainders are rounded up."""
    exact = weights * _UNITS
    units = np.floor(exact)
    missing = round(_UNITS - units.sum())
    units[np.argsort(units - exact, kind="stable")[:missing]] += 1
    return np.asarray(units / _UNITS, np.float64)


def _loss(
    validation: Validation, members: Sequence[Member], method: Method
) -> tuple[Loss, int]:
    """Return what is to be minimised, and of how many images it is."""
    classes = validation.classes
    sharpened = [
        at_temperature(probs, member.temperature)
        for probs, member in zip(validation.distributions, members, strict=True)
    ]
    if method == "geometric":
        return _loss_of_logarithms(sharpened, classes), len(classes)
    rows = np.arange(len(classes))
    if method == "arithmetic":
        likelihoods = np.stack([p[rows, classes] for p in sharpened], axis=1, dtype=np.float64)
        return _loss_of_mixture(likelihoods), len(classes)
    right = np.stack([p.argmax(axis=1) == classes for p in sharpened], axis=1)
    telling = right.any(axis=1)
    if not telling.any():
        raise InputError(
            f"no member is right about any of {len(classes)} validation images, so no weights "
            "are better than others; look at the members first (plstore calibrate)"
        )
    return _loss_of_mixture(right[telling].astype(np.float64)), int(telling.sum())


def _loss_of_mixture(likelihoods: Doubles) -> Loss:
    """Return the loss of a mean of probabilities, from float64 [images, members]."""

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        mixed = likelihoods @ weights + float(FLOOR)
        gradient = -(likelihoods / mixed[:, None]).mean(axis=0)
        return float(-np.log(mixed).mean()), gradient

    return loss


def _loss_of_logarithms(distributions: Sequence[Floats], classes: Ints) -> Loss:
    """Return the loss of a normalised mean of log-probabilities."""
    logs = [np.log(np.maximum(probs, FLOOR)) for probs in distributions]

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        total, gradient = 0.0, np.zeros(len(weights))
        for start in range(0, len(classes), _CHUNK_ROWS):
            here = slice(start, start + _CHUNK_ROWS)
            parts = np.stack([part[here] for part in logs], dtype=np.float64)
            mean = np.tensordot(weights, parts, axes=1)
            mean -= mean.max(axis=1, keepdims=True)
            probs = np.exp(mean)
            sums = probs.sum(axis=1, keepdims=True)
            rows = np.arange(len(mean))
            total += float((np.log(sums[:, 0]) - mean[rows, classes[here]]).sum())
            expected = np.einsum("mrc,rc->m", parts, probs / sums)
            gradient += expected - parts[:, rows, classes[here]].sum(axis=1)
        return total / len(classes), gradient / len(classes)

    return loss


def _accuracy(
    validation: Validation, members: Sequence[Member], weights: Doubles, method: Method
) -> float:
    """Return how often the fusion is right, in percent."""
    pairs = zip(members, weights.tolist(), strict=True)
    weighted = [replace(member, weight=weight) for member, weight in pairs]
    right = 0
    for start in range(0, len(validation.classes), _CHUNK_ROWS):
        here = slice(start, start + _CHUNK_ROWS)
        copies = [probs[here].copy() for probs in validation.distributions]  # fuse changes them
        fused = fuse(copies, weighted, method)
        right += int((fused.argmax(axis=1) == validation.classes[here]).sum())
    return _PERCENT * right / len(validation.classes)
