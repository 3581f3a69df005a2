"""The first blocks of a model stay as they are."""

from timm.models import group_parameters
from torch import nn

from plstore.errors import InputError


def freeze_blocks(network: nn.Module, count: int) -> None:
    """Freeze stem and first blocks: their weights, and what their batch norms have seen.

    As the paper does while it finetunes at a higher resolution (Noisy Student, 4.1, "shallow
    layers"; the official code freezes the stem with the first blocks). Batch norms of these
    blocks are put in evaluation mode.

    Args:
        network: Made by timm, which says what its blocks are; in training mode already.
        count: Blocks, in order; 0 freezes nothing.

    Raises:
        InputError: If timm does not say what its blocks are, or there are not so many.
    """
    if not count:
        return
    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        raise InputError(
            f"{type(network).__name__} does not say what its blocks are; set "
            "finetune.frozen_blocks to 0"
        )
    groups = group_parameters(network, matcher(coarse=False))
    last = len(groups) - 2  # the first is the stem, the last the classifier
    if count > last:
        raise InputError(
            f"finetune.frozen_blocks is {count}; {type(network).__name__} has {last} blocks "
            "between stem and classifier"
        )
    frozen = {name for number in range(count + 1) for name in groups[number]}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen and parameter.requires_grad)
    for name, module in network.named_modules():
        if f"{name}.weight" in frozen and isinstance(module, nn.modules.batchnorm._NormBase):  # noqa: SLF001  all batch norms are one
            module.eval()
