"""Multinomial logistic regression on embeddings, with soft targets and weights, by L-BFGS.

scikit-learn's has hard targets alone; with those, this one finds the same coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  the name everyone gives it

Floats = npt.NDArray[np.float32]

STRENGTHS: Final = tuple(float(10.0 ** (n / 2)) for n in range(-9, 3))
"""C that are tried, half a decade apart: 3e-5 to 10."""

_ITERATIONS: Final = 100
_TOLERANCE: Final = 1e-6
WORSE_IN_A_ROW: Final = 2
"""Strengths that are worse than the best before a path of them ends."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Logits = vectors @ weight.T + bias.

    Attributes:
        weight: float32 [classes, features].
        bias: float32 [classes].
        strength: C that it was fitted with, where that is known.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    strength: float | None

    def probabilities(self, vectors: Floats, temperature: float = 1.0) -> Floats:
        """Return float32 [images, classes]."""
        logits = torch.tensor(vectors) @ self.weight.T + self.bias
        found: Floats = torch.softmax(logits / temperature, dim=1).numpy()
        return found


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What a regression is fitted on, or measured with.

    Attributes:
        vectors: float32 [images, features].
        targets: float32 [images, classes], each a distribution.
        weights: float32 [images]; a weight of 2 counts as the image twice.
    """

    vectors: Floats
    targets: Floats
    weights: Floats

    def nll(self, linear: Linear) -> float:
        """Return the weighted mean cross-entropy, in nats."""
        probs = np.maximum(linear.probabilities(self.vectors), 1e-12)
        losses = -(self.targets * np.log(probs)).sum(axis=1)
        return float(np.average(losses, weights=self.weights))

    def accuracy(self, linear: Linear) -> float:
        """Return the share whose likeliest class is that of the target, in percent."""
        found = linear.probabilities(self.vectors).argmax(axis=1)
        return float(100 * (found == self.targets.argmax(axis=1)).mean())


def fit(examples: Examples, strength: float, start: Linear | None = None) -> Linear:
    """Minimise the weighted sum of cross-entropies + |W|^2 / (2 C); the bias is free.

    Features are scaled to unit deviation first; what is returned takes them as they are.

    Args:
        examples: What to fit.
        strength: C.
        start: Where to start from, for a path of strengths.
    """
    vectors = torch.from_numpy(examples.vectors)
    centre = vectors.mean(dim=0)
    scale = vectors.std(dim=0, correction=0).clamp_min(_TOLERANCE)
    scaled = (vectors - centre) / scale
    targets = torch.from_numpy(examples.targets)
    weights = torch.from_numpy(examples.weights)
    total = weights.sum()
    weight, bias = _start(targets.shape[1], scale, centre, start)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        tolerance_grad=_TOLERANCE,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        losses = F.cross_entropy(F.linear(scaled, weight, bias), targets, reduction="none")
        value = ((weights * losses).sum() + weight.square().sum() / (2 * strength)) / total
        value.backward()  # type: ignore[no-untyped-call]  # torch's is
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # torch's is
    found = weight.detach() / scale
    return Linear(weight=found, bias=bias.detach() - found @ centre, strength=strength)


def _start(
    num_classes: int, scale: torch.Tensor, centre: torch.Tensor, start: Linear | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of the scaled features, to be trained."""
    if start is None:
        weight, bias = torch.zeros(num_classes, len(scale)), torch.zeros(num_classes)
    else:
        weight, bias = start.weight * scale, start.bias + start.weight @ centre
    return weight.requires_grad_(), bias.requires_grad_()


def fit_best(
    examples: Examples, validation: Examples | None, strengths: Sequence[float] = STRENGTHS
) -> Linear:
    """Fit along a path of strengths; return the one with the lowest validation loss.

    Args:
        examples: What to fit.
        validation: What to choose by; without it, C is 1e-3.
        strengths: C to try, in ascending order; two that are worse in a row end it.
    """
    if validation is None:
        return fit(examples, _UNCHOSEN)
    best, last = None, None
    lowest, worse = float("inf"), 0
    for strength in strengths:
        last = fit(examples, strength, last)
        loss = validation.nll(last)
        worse = 0 if loss < lowest else worse + 1
        if best is None or loss < lowest:
            best, lowest = last, loss
        if worse == WORSE_IN_A_ROW:
            break
    return best or fit(examples, _UNCHOSEN)


_UNCHOSEN: Final = 1e-3
