"""The student's loss."""

import torch.nn.functional as F  # noqa: N812  the name everyone gives it
from torch import Tensor


def combined_cross_entropy(
    logits: Tensor, targets: Tensor, *, num_labeled: int, label_smoothing: float
) -> Tensor:
    """Return the mean cross-entropy over labeled and pseudo-labeled images of one batch.

    The mean over the concatenated batch is the official code's loss, mean(labeled) + ratio x
    mean(pseudo-labeled), up to the factor 1 + ratio. Hard labels are smoothed, soft ones not.

    Args:
        logits: float [batch, classes].
        targets: float [batch, classes]: one-hot for the first `num_labeled`, then soft.
        num_labeled: Labeled images of the batch.
        label_smoothing: Mass, 0 to 1, that hard labels give to all classes evenly.
    """
    if label_smoothing > 0:
        smooth = label_smoothing / targets.shape[1]
        targets = targets.clone()
        targets[:num_labeled] = targets[:num_labeled] * (1 - label_smoothing) + smooth
    return F.cross_entropy(logits, targets)
