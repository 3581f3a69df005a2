"""The student's loss."""

import torch.nn.functional as F  # noqa: N812  the name everyone gives it
from torch import Tensor


def combined_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    num_labeled: int,
    label_smoothing: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the mean cross-entropy over labeled and pseudo-labeled images of one batch.

    The mean over the concatenated batch is the official code's loss, mean(labeled) + ratio x
    mean(pseudo-labeled), up to the factor 1 + ratio. Hard labels are smoothed, soft ones not.

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
    """
    if label_smoothing > 0:
        smooth = label_smoothing / targets.shape[1]
        targets = targets.clone()
        targets[:num_labeled] = targets[:num_labeled] * (1 - label_smoothing) + smooth
    if weights is not None:
        targets = targets * weights[:, None]
    return F.cross_entropy(logits, targets)
