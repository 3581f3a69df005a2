"""Who gets which part of a model's noise: labeled images, pseudo-labeled ones, or both.

Both kinds go through the model as one batch. So dropout and stochastic depth are drawn for all
of it, and what an image is not to get is put back to what it was (Noisy Student, table 6, where
noise is removed on unlabeled images alone).
"""

from collections.abc import Callable, Sequence

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from trainers.sections import NoisePart

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]


def split_model_noise(
    network: nn.Module,
    *,
    labeled: Sequence[NoisePart],
    pseudo: Sequence[NoisePart],
    num_labeled: int,
    num_pseudo: int,
) -> None:
    """Take dropout and stochastic depth from the images that are not to get them.

    Where both kinds get all of it, nothing is touched.

    Args:
        network: Made by timm, in training.
        labeled: Parts of the noise that labeled images get.
        pseudo: Parts that pseudo-labeled ones get.
        num_labeled: The first images of every batch, of `num_labeled + num_pseudo`.
        num_pseudo: The rest.
    """
    for part, kinds in (("dropout", (nn.Dropout,)), ("stochastic_depth", (DropPath,))):
        gets = torch.tensor([part in labeled] * num_labeled + [part in pseudo] * num_pseudo)
        if gets.all():
            continue
        if part == "dropout":
            dropout_as_module(network)
        put_back = _put_back(gets)
        for module in network.modules():
            if isinstance(module, kinds):
                module.register_forward_hook(put_back)


def _put_back(gets: Tensor) -> Hook:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not module.training:
            return None
        rows = gets.to(output.device).view(-1, *(1,) * (output.ndim - 1))
        return torch.where(rows, output, inputs[0])

    return hook


def dropout_as_module(network: nn.Module) -> None:
    """Make dropout before the classifier, where timm has it as a function, a module."""
    rate = float(getattr(network, "drop_rate", 0.0) or 0.0)
    is_module = any(isinstance(m, nn.Dropout) and m.p == rate for m in network.modules())
    if not rate or is_module:
        return
    classifier: nn.Module = network.get_classifier()  # type: ignore[operator]  # timm's
    drop = nn.Dropout(rate)
    network.drop_rate = 0.0  # type: ignore[assignment]  # a number of timm's
    network.add_module("dropout_before_classifier", drop)
    classifier.register_forward_pre_hook(lambda _, inputs: (drop(inputs[0]), *inputs[1:]))
