"""Pseudo-labels that a student gives itself at each step: FixMatch (Sohn et al. 2020).

The other way to learn from unlabeled images, beside Noisy Student's teacher, to compare it
with: the student itself says what is on each image with crop and flip alone, and learns its
class from the same image with all noise, where it is surer than `FLOOR`. It looks at every
pseudo-labeled image once more, so a step takes a quarter longer at three for a labeled one.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn

from plstore.errors import PlstoreError
from plstore.loaders import Batch

FLOOR: Final = 0.95
"""Confidence above which an image counts (Sohn et al. 2020, table 4)."""

WEAK: Final = ("crop", "flip")
"""Parts of the noise that the student sees when it labels."""


def labeled_by_itself(
    batch: Batch, weak: Batch, network: nn.Module, logits_of: Callable[[Tensor], Tensor]
) -> Batch:
    """Return a batch whose pseudo-labels are those of a student in training.

    Args:
        batch: Of labeled images, then pseudo-labeled ones, whose targets are replaced.
        weak: The same images with weak noise.
        network: The student; it labels in evaluation mode, and is in training again after that.
        logits_of: Returns float [images, classes] for uint8 images.

    Returns:
        The batch with one-hot targets of the pseudo-labeled images, and weights of 1 where the
        student is sure, else 0: the sum of losses is still over all of them, as in FixMatch.

    Raises:
        PlstoreError: If the two batches are not of the same images.
    """
    first = batch.num_labeled
    if not torch.equal(batch.sample_ids, weak.sample_ids):
        raise PlstoreError(
            f"the images of step {batch.step} with weak noise are others than those with all "
            "of it: one was damaged or deleted meanwhile; import the images anew"
        )
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    with torch.no_grad():
        probs = torch.softmax(logits_of(weak.images[first:]), dim=1)
    for part, was_training in modes:  # frozen blocks were not
        part.training = was_training
    confidence, classes = probs.max(dim=1)
    targets, weights = batch.targets.clone(), batch.weights.clone()
    targets[first:] = nn.functional.one_hot(classes, probs.shape[1]).to(targets.dtype)
    weights[first:] = (confidence > FLOOR).to(weights.dtype)
    return replace(batch, targets=targets, weights=weights)
