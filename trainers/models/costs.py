"""What a model takes, counted before there is one: operations, memory, hours of a card.

Models are made on torch's meta device, so that the largest one takes neither memory nor random
numbers. torch counts the operations (`torch.utils.flop_counter`) and shows what it would keep
for the backward pass (`torch.autograd.graph.saved_tensors_hooks`).
"""

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Final, Literal

import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from plstore.errors import InputError
from trainers.models.architectures import on_meta

Precision = Literal["bfloat16", "float32"]
"""Of activations. Weights, gradients and the optimizer's numbers are float32 in both."""

TRAINING_PASSES: Final = 3
"""Forward passes that a training step takes: one, and two of as many operations backward, for
the gradients of a layer's input and of its weights."""

PAPER_UTILISATION: Final = 0.106
"""Share that the paper's own figure comes to, by the counts here: an EfficientNet-L2 trained on
350 epochs of 1,281,167 labeled images with 14 unlabeled ones each, at 475 pixels, in 6 days on
2,048 cores of TPU v3 (Noisy Student, 4.1). The teacher's looks are not in it, nor what moved
the data."""

_DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_FLOAT32_BYTES: Final = 4
_BFLOAT16_BYTES: Final = 2
_COUNTED_BATCH: Final = 2  # batch statistics need two images where a feature map is 1 x 1


@dataclass(frozen=True, kw_only=True)
class Card:
    """An accelerator, by its vendor's data sheet.

    Attributes:
        peak_flops: Operations a second of dense matrix products of bfloat16: without the factor
            two that data sheets give to sparse ones.
        memory_bytes: Of its memory.
    """

    peak_flops: float
    memory_bytes: int


def _card(teraflops: float, gigabytes: int, unit: int = 10**9) -> Card:
    return Card(peak_flops=teraflops * 1e12, memory_bytes=gigabytes * unit)


CARDS: Final = MappingProxyType(
    {
        "A100 40GB": _card(312, 40),
        "A100 80GB": _card(312, 80),
        "L4": _card(121, 24),
        "H100 SXM": _card(989, 80),
        "H200 SXM": _card(989, 141),
        "TPU v3 core": _card(61.5, 16, 2**30),
        "TPU v4": _card(275, 32, 2**30),
    }
)
"""By name, from vendors' data sheets: NVIDIA's of each card, and Google's pages "TPU v3" and
"TPU v4"; a chip of TPU v3 has 123 TFLOP/s and 32 GiB for two cores."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that training a model takes on its device.

    Attributes:
        weights: Parameters and batch statistics, float32.
        copies: Of parameters, as autocast makes them for bfloat16; 0 with float32.
        gradients: float32.
        optimizer: What it keeps between steps.
        average: The running average of the weights.
        activations: What the backward pass needs of one batch.
    """

    weights: int
    copies: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(int(getattr(self, field.name)) for field in fields(self))


def forward_flops(
    architecture: str,
    *,
    size: int,
    channels: int = 3,
    num_classes: int = 1000,
    small: bool = False,
) -> int:
    """Return the floating-point operations of one look at one image: twice its multiply-adds.

    Counted are matrix products, convolutions and attention. Normalisations, activations and
    sums are not: they take time, and few operations.

    Args:
        architecture: timm name.
        size: Of its images, pixels a side.
        channels: Of its images.
        num_classes: Of its outputs.
        small: Whether it is the variant of `trainers.models.architectures.small_images`.

    Raises:
        InputError: If it cannot be made, or cannot take the images.
    """
    network = on_meta(
        architecture, num_classes=num_classes, channels=channels, size=size, small=small
    ).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _look(network, architecture, _images(1, channels, size, torch.float32))
    return int(counter.get_total_flops())


def training_flops(
    architecture: str,
    *,
    size: int,
    channels: int = 3,
    num_classes: int = 1000,
    small: bool = False,
) -> int:
    """Return the operations of training on one image: three times those of `forward_flops`.

    That is a little too much: the first layer needs no gradient of the image.

    Raises:
        InputError: As `forward_flops` does.
    """
    return TRAINING_PASSES * forward_flops(
        architecture, size=size, channels=channels, num_classes=num_classes, small=small
    )


def memory_bytes(
    architecture: str,
    *,
    size: int,
    batch: int,
    channels: int = 3,
    num_classes: int = 1000,
    precision: Precision = "bfloat16",
    optimizer: str = "adamw",
    small: bool = False,
) -> Memory:
    """Return what training a model takes on its device, as far as it can be counted.

    Not counted are the passing memory of a layer at work and of its gradient, the masks of
    dropout and stochastic depth, workspaces of convolutions, what the allocator holds in
    reserve, the CUDA context, the next batches of the loader, and buckets of several processes.
    With bfloat16 all activations count two bytes a number, though autocast keeps some, such as
    layer normalisation's, in float32. Attention is counted with its matrices, which fused
    kernels do not keep. Leave a share of the card for all that.

    Args:
        architecture: timm name.
        size: Of its images, pixels a side.
        batch: Images a step on this device, labeled and pseudo-labeled together.
        channels: Of its images.
        num_classes: Of its outputs.
        precision: Of activations.
        optimizer: timm name.
        small: Whether it is the variant of `trainers.models.architectures.small_images`.

    Raises:
        InputError: If the model cannot be made or cannot take the images, timm does not know
            the optimizer, its state cannot be counted, or batch or precision is out of range.
    """
    if batch < 1 or precision not in _DTYPES:
        raise InputError(
            f"batch is {batch} and precision {precision!r}; wanted at least 1 image and one of "
            "bfloat16 and float32"
        )
    network = on_meta(
        architecture, num_classes=num_classes, channels=channels, size=size, small=small
    )
    numbers = sum(parameter.numel() for parameter in network.parameters())
    weights = sum(value.nbytes for value in network.state_dict().values())
    state = _optimizer_bytes(network, optimizer)
    network = network.to(_DTYPES[precision]).train()
    images = _images(batch, channels, size, _DTYPES[precision])
    return Memory(
        weights=weights,
        copies=numbers * _BFLOAT16_BYTES if precision == "bfloat16" else 0,
        gradients=numbers * _FLOAT32_BYTES,
        optimizer=state,
        average=weights,
        activations=_activation_bytes(network, architecture, images),
    )


def card_hours(flops: float, card: str, utilisation: float = PAPER_UTILISATION) -> float:
    """Return for how many hours one card of a name works on so many operations.

    Args:
        flops: All of them, such as `training_flops` times the images of all steps.
        card: One of `CARDS`.
        utilisation: Share of the card's peak, above 0 and at most 1: an assumption.

    Raises:
        InputError: If no such card is known, or the share is out of its range.
    """
    if card not in CARDS:
        raise InputError(f"no card {card!r} is known; wanted one of {', '.join(CARDS)}")
    if not 0 < utilisation <= 1:
        raise InputError(
            f"utilisation is {utilisation}; wanted above 0 and at most 1, such as "
            f"{PAPER_UTILISATION}"
        )
    return flops / (CARDS[card].peak_flops * utilisation) / 3600


def _images(batch: int, channels: int, size: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(batch, channels, size, size, dtype=dtype, device="meta")


def _look(network: nn.Module, architecture: str, images: torch.Tensor) -> torch.Tensor:
    try:
        outputs: torch.Tensor = network(images)
    except Exception as error:
        raise InputError(
            f"model {architecture!r} cannot take images of {images.shape[-1]} pixels with "
            f"{images.shape[1]} channels: {error}"
        ) from error
    return outputs


def _activation_bytes(network: nn.Module, architecture: str, images: torch.Tensor) -> int:
    """Return `_saved_bytes` of a batch from those of two small ones: they lie on a line."""
    one, two = (
        _saved_bytes(network, architecture, images.new_empty(number, *images.shape[1:]))
        for number in (_COUNTED_BATCH, 2 * _COUNTED_BATCH)
    )
    return one + (len(images) - _COUNTED_BATCH) * (two - one) // _COUNTED_BATCH


def _saved_bytes(network: nn.Module, architecture: str, images: torch.Tensor) -> int:
    """Return the bytes that torch keeps of a forward pass, apart from the network's own.

    What several layers keep is counted once.
    """
    own = {_identity(tensor) for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[StorageWeakRef, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        identity = _identity(tensor)
        if identity not in own:
            kept[identity] = tensor.untyped_storage().nbytes()
        return tensor

    targets = torch.zeros(len(images), dtype=torch.long, device=images.device)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        cross_entropy(_look(network, architecture, images).float(), targets)
    return sum(kept.values())


def _identity(tensor: torch.Tensor) -> StorageWeakRef:
    """Return what tells one tensor's memory from another's: on meta there are no addresses."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # torch's


def _optimizer_bytes(network: nn.Module, name: str) -> int:
    """Return the bytes that an optimizer keeps, which it makes at its first step."""
    for parameter in network.parameters():
        parameter.grad = torch.empty_like(parameter)
    try:
        optimizer = create_optimizer_v2(network, opt=name, lr=1.0)
        optimizer.step()
    except Exception as error:
        raise InputError(
            f"the memory of optimizer {name!r} cannot be counted: {error}; wanted a name that "
            "timm knows, such as adamw, sgd or rmsproptf"
        ) from error
    network.zero_grad(set_to_none=True)
    states = (state for state in optimizer.state.values())
    values = (value for state in states for value in state.values())
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))
