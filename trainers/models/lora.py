"""LoRA: low-rank updates beside frozen weights, by `peft`, folded into them in the end.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685, section 4.1;
alpha is twice the rank. What is kept is a plain model: who labels or predicts needs no peft.
"""

from typing import Any, cast

from torch import nn

from plstore.errors import InputError, MissingExtraError


def with_lora(network: nn.Module, rank: int) -> nn.Module:
    """Return a model whose weights are frozen but for low-rank updates and its classifier.

    Args:
        network: A timm model.
        rank: Of the updates of linear layers and of convolutions of one group.

    Raises:
        MissingExtraError: If peft is not installed.
        InputError: If the model has no layer to update.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("peft", "lora", "method.lora_rank") from error
    head = _classifier(network)
    targets = [
        name
        for name, layer in network.named_modules()
        if name != head and _can_be_updated(layer)
    ]
    if not targets:
        raise InputError(
            f"{type(network).__name__} has no linear layer and no convolution of one group for "
            "LoRA; leave method.lora_rank out, or choose another --model"
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=targets,
        modules_to_save=[head] if head else None,
    )
    return cast("nn.Module", get_peft_model(network, config))


def without_lora(network: nn.Module) -> nn.Module:
    """Return the plain model with the updates folded into its weights."""
    wrapped: Any = network
    return cast("nn.Module", wrapped.merge_and_unload())


def _can_be_updated(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _classifier(network: Any) -> str | None:  # noqa: ANN401  a timm model
    found = network.pretrained_cfg.get("classifier")
    return found if isinstance(found, str) else None
