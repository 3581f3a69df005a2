"""The student's loss."""

from typing import Final, Literal

import torch.nn.functional as F  # noqa: N812  the name everyone gives it
from torch import Tensor

Weighting = Literal["mean", "paper_code", "equal"]

_TINY: Final = 1e-30


def combined_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    num_labeled: int,
    label_smoothing: float,
    weights: Tensor | None = None,
    weighting: Weighting = "mean",
    hard: bool = False,
) -> Tensor:
    """Return the cross-entropy over labeled and pseudo-labeled images of one batch.

    How the two parts weigh, "mean" is their mean over the concatenated batch (Noisy Student,
    3.1). "paper_code" is mean(labeled) + ratio x mean(pseudo-labeled), the official code's,
    which is (1 + ratio) times that. "equal" is mean(labeled) + mean(pseudo-labeled), of
    algorithm 1. Hard labels are smoothed, soft ones not. A batch of one part has its mean.

    With weights the pseudo-labeled part is sum(weight x cross-entropy) over the *number* of
    pseudo-labeled images, as in SoftMatch (Chen et al., arXiv 2301.10921, whose unlabeled loss
    is divided by the size of the unlabeled batch), and not over the sum of their weights: a
    batch that the teacher is unsure of then teaches less, instead of each of its images more.

    Args:
        logits: float [batch, classes].
        targets: float [batch, classes]: one-hot for the first `num_labeled`, then soft.
        num_labeled: Labeled images of the batch.
        label_smoothing: Mass, 0 to 1, that hard labels give to all classes evenly.
        weights: float [batch], 1 for labeled images; all 1 unless given. Cross-entropy is
            linear in its target, so they scale targets: 1 leaves every bit as it is.
        weighting: How the two parts weigh.
        hard: Whether the pseudo-labels are hard ones too, and so smoothed.
    """
    if label_smoothing > 0:
        smooth, num_hard = label_smoothing / targets.shape[1], len(targets)
        if not hard:
            num_hard = num_labeled
        targets = targets.clone()
        targets[:num_hard] = targets[:num_hard] * (1 - label_smoothing) + smooth
    if weights is not None:
        targets = targets * weights[:, None]
    if weighting == "mean" or num_labeled in {0, len(targets)}:
        return F.cross_entropy(logits, targets)
    if weighting == "paper_code":
        return F.cross_entropy(logits, targets) * (len(targets) / num_labeled)
    labeled = F.cross_entropy(logits[:num_labeled], targets[:num_labeled])
    return labeled + F.cross_entropy(logits[num_labeled:], targets[num_labeled:])


def pseudo_targets(
    targets: Tensor, *, num_labeled: int, hard: bool = False, temperature: float = 1.0
) -> Tensor:
    """Return targets whose pseudo-labels are hardened, or sharpened by a temperature.

    Args:
        targets: float [batch, classes]: those of `num_labeled` images stay as they are.
        num_labeled: Labeled images of the batch, the first ones.
        hard: One-hot of the most probable class (the official code's temperature of -1).
        temperature: p^(1 / temperature), normalised again: what the softmax of the teacher's
            logits would be at that temperature. 1 leaves every bit as it is.
    """
    soft = targets[num_labeled:]
    if not len(soft) or (not hard and temperature == 1):
        return targets
    if hard:
        changed = F.one_hot(soft.argmax(dim=1), soft.shape[1]).to(soft.dtype)
    else:
        powers = soft.clamp_min(0) ** (1 / temperature)
        changed = powers / powers.sum(dim=1, keepdim=True).clamp_min(_TINY)
    targets = targets.clone()
    targets[num_labeled:] = changed
    return targets
