"""Models compiled by `torch.compile`: faster on many images, after a while of compiling."""

from dataclasses import replace
from typing import cast

import torch
from torch import nn

from plstore.errors import InputError
from trainers.inference.clean import precision
from trainers.models.model import Bundle


def compiled(bundle: Bundle, device: str) -> Bundle:
    """Return a bundle whose `logits` come from a compiled network, which has run once.

    It is compiled for batches of any size. Its numbers are those of the network as it was, but
    for rounding; `look` is not compiled.

    Args:
        bundle: The model, in evaluation mode.
        device: Where it is: "cpu", which needs a C++ compiler, or a CUDA device.

    Raises:
        InputError: If it cannot be compiled here, as where no compiler is found.
    """
    network = cast("nn.Module", torch.compile(bundle.network, dynamic=True))
    fast, format_ = replace(bundle, network=network), bundle.format
    shape = (2, format_.channels, format_.size, format_.size)
    images = torch.zeros(shape, dtype=torch.uint8, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    lower = torch.autocast("cuda", torch.bfloat16, enabled=precision(device) == "bfloat16")
    try:
        with torch.inference_mode(), lower:
            fast.logits(images)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"the model of {bundle.folder} cannot be compiled for {device}: {reason}. "
            "torch.compile wants a C++ compiler such as g++ on the PATH (or in CXX), for CUDA "
            "also Triton; install them, or leave out --compile"
        ) from error
    return fast
