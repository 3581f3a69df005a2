"""Architectures: what is published of each, variants of timm's networks, and their sizes.

Sizes are counted without memory: a network on torch's meta device has shapes and no values, and
making one leaves torch's random numbers as they are.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, cast

import timm
import torch
from timm.models import EfficientNet, ResNet
from torch import nn

from plstore.errors import InputError

BATCH_NORM_MOMENTUM: Final = 0.01
"""The share of a new batch in the running statistics, torch's meaning of the word. The official
code has 0.99 in TensorFlow's, the share of the old (efficientnet_builder.py): 1 - 0.99."""

BATCH_NORM_EPS: Final = 1e-3
"""Added to the variance (efficientnet_builder.py of the official code)."""

_VARIANT: Final = "plstore_variant"
_KNOWN: Final = (
    "timm's EfficientNets, such as efficientnet_b0, tf_efficientnet_b0 or mobilenetv2_100, and "
    "its ResNets, such as resnet18, resnet50 or resnext50_32x4d"
)


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is published of an architecture.

    Attributes:
        name: As the papers write it.
        timm_names: By which timm makes it.
        width: Coefficient of the channels; None of a ResNet.
        depth: Coefficient of the blocks; None of a ResNet.
        resolution: Of images to train on, pixels a side.
        test_resolution: Of images to evaluate on, pixels a side.
        dropout: Rate before the classifier; None where the papers are silent.
        parameters: With 1,000 classes, in millions.
        multiply_adds: Of one look at an image of `resolution`, in billions; None where the
            papers are silent.
        randaugment_magnitude: On the scale of the official code, for two operations an image.
            None where its script has no RandAugment (B0, B1) or there is no script (ResNet-50).
    """

    name: str
    timm_names: tuple[str, ...]
    width: float | None = None
    depth: float | None = None
    resolution: int
    test_resolution: int
    dropout: float | None = None
    parameters: float
    multiply_adds: float | None = None
    randaugment_magnitude: float | None = None


def _efficientnet(size: str, *row: float, magnitude: float | None = None) -> Published:
    width, depth, resolution, dropout, parameters, multiply_adds = row
    return Published(
        name=f"EfficientNet-{size}",
        timm_names=(f"efficientnet_{size.lower()}", f"tf_efficientnet_{size.lower()}"),
        width=width,
        depth=depth,
        resolution=int(resolution),
        test_resolution=int(resolution),
        dropout=dropout,
        parameters=parameters,
        multiply_adds=multiply_adds,
        randaugment_magnitude=magnitude,
    )


PUBLISHED: Final = (
    _efficientnet("B0", 1.0, 1.0, 224, 0.2, 5.3, 0.39),
    _efficientnet("B1", 1.0, 1.1, 240, 0.2, 7.8, 0.70),
    _efficientnet("B2", 1.1, 1.2, 260, 0.3, 9.2, 1.0, magnitude=6.0),
    _efficientnet("B3", 1.2, 1.4, 300, 0.3, 12.0, 1.8, magnitude=12.0),
    _efficientnet("B4", 1.4, 1.8, 380, 0.4, 19.0, 4.2, magnitude=15.0),
    _efficientnet("B5", 1.6, 2.2, 456, 0.4, 30.0, 9.9, magnitude=18.0),
    _efficientnet("B6", 1.8, 2.6, 528, 0.5, 43.0, 19.0, magnitude=24.0),
    _efficientnet("B7", 2.0, 3.1, 600, 0.5, 66.0, 37.0, magnitude=27.0),
    Published(
        name="EfficientNet-L2",
        timm_names=("efficientnet_l2", "tf_efficientnet_l2"),
        width=4.3,
        depth=5.3,
        resolution=475,
        test_resolution=800,
        dropout=0.5,
        parameters=480.0,
        randaugment_magnitude=27.0,
    ),
    Published(
        name="ResNet-50",
        timm_names=("resnet50",),
        resolution=224,
        test_resolution=224,
        parameters=26.0,
        multiply_adds=4.1,
    ),
)
"""Sources. Width, depth, resolution and dropout: `efficientnet_params` in the official code,
google-research/noisystudent, efficientnet_builder.py. It has 800 pixels for L2, those of tests;
the 475 of training are the paper's (Xie et al., "Self-training with Noisy Student", 3.1 and the
appendix's table of architectures), and so are its parameters (table 2). Parameters and
multiply-adds of the others: Tan and Le, "EfficientNet", table 2, where they are called FLOPS.
Magnitudes of B2 to B7: local_scripts/imagenet/train.sh of the official code; of L2: the paper,
27 for its largest models (3.1). ResNet-50's 224 pixels: He et al., "Deep Residual Learning for
Image Recognition", 3.4."""

_BY_NAME: Final = {name: entry for entry in PUBLISHED for name in entry.timm_names}


def published(architecture: str) -> Published | None:
    """Return what is published of an architecture, by its timm name; None if it is not known.

    A tag of weights after a point, as in `tf_efficientnet_b0.ns_jft_in1k`, does not matter.
    """
    return _BY_NAME.get(architecture.split(".", 1)[0])


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a network differs from what timm makes of its name and arguments.

    Nothing of it is in the weights, so a model folder must record it: timm alone loads the
    weights of a variant into the usual network, and its outputs are then others.

    Attributes:
        small_images: Whether `small_images` was applied.
        batch_norm_eps: What `batch_norm_settings` set; None where timm's own are in place.
    """

    small_images: bool = False
    batch_norm_eps: float | None = None

    def recorded(self) -> dict[str, Any]:
        """Return what a model folder's config.json records: nothing of timm's own network."""
        return {name: value for name, value in asdict(self).items() if value}

    def apply(self, network: nn.Module) -> None:
        """Make this variant of a network as timm made it.

        Raises:
            InputError: If it cannot be one.
        """
        if self.small_images:
            small_images(network)
        if self.batch_norm_eps is not None:
            batch_norm_settings(network, momentum=None, eps=self.batch_norm_eps)


def variant_of(network: nn.Module) -> Variant:
    """Return which variant a network is; copies of it, as of `copy.deepcopy`, are the same."""
    return cast("Variant", getattr(network, _VARIANT, Variant()))


def small_images(network: nn.Module) -> tuple[str, ...]:
    """Make a timm network one for images of about 28 to 64 pixels a side, in place.

    Its last feature map has four times as many values along each side, and an image takes up to
    16 times the work. Applied twice it is as applied once.

    EfficientNets: the first blocks of the second and third stage, timm's `blocks.1` and
    `blocks.2`, get stride 1, and the stem keeps its stride of 2. That is the setting of the
    official SVHN example, `small_image_model` in efficientnet_builder.py. An image of 32 pixels
    has 4 x 4 features in the end in place of 1 x 1. Weights keep their names and shapes.

    ResNets: a 3 x 3 convolution of stride 1 in place of the first one, and no pooling after it
    (Chen et al., "SimCLR", appendix B.9). An image of 32 pixels has 4 x 4 features in the end
    in place of 1 x 1. The shape of `conv1.weight` changes and it starts from random numbers, so
    weights of the usual network do not fit. The 3 x 3 convolutions of a deep stem, as of
    resnet50d, stay and only lose their stride.

    Returns:
        Names of weights that were replaced and are random now: `conv1.weight`, or none.

    Raises:
        InputError: If the network is of another family, or has no such strides.
    """
    replaced: tuple[str, ...] = ()
    if variant_of(network).small_images:
        return replaced
    if isinstance(network, EfficientNet):
        _small_efficientnet(network)
    elif isinstance(network, ResNet):
        replaced = _small_resnet(network)
    else:
        raise InputError(
            f"there is no variant for small images of {_name_of(network)}, which is of timm's "
            f"family {type(network).__name__}; known are {_KNOWN}"
        )
    setattr(network, _VARIANT, replace(variant_of(network), small_images=True))
    return replaced


def _small_efficientnet(network: nn.Module) -> None:
    """Set strides alone: paddings of odd kernels are right, and "same" ones see the stride."""
    stages = list(cast("nn.Sequential", network.blocks))[1:3]
    strided = [[layer for layer in stage.modules() if _is_strided(layer)] for stage in stages]
    if len(stages) < 2 or not all(strided):  # noqa: PLR2004  the second and the third
        raise InputError(
            f"there is no variant for small images of {_name_of(network)}: its second and "
            f"third stage do not both begin with a strided convolution; known are {_KNOWN}"
        )
    for layer in (layer for stage in strided for layer in stage):
        cast("nn.Conv2d", layer).stride = (1, 1)
    _divide_reductions(network, {"blocks.0": 1, "blocks.1": 2}, others=4)


def _is_strided(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and max(layer.stride) > 1


def _small_resnet(network: nn.Module) -> tuple[str, ...]:
    stem, pool = network.conv1, cast("nn.Module", network.maxpool)
    first = stem[0] if isinstance(stem, nn.Sequential) else stem
    if not isinstance(first, nn.Conv2d) or next(pool.parameters(), None) is not None:
        raise InputError(
            f"there is no variant for small images of {_name_of(network)}: its stem is none of "
            f"convolutions and a pooling without weights; known are {_KNOWN}"
        )
    if first is stem:
        network.conv1 = _three_by_three(first)
    else:
        first.stride = (1, 1)
    network.maxpool = nn.Identity()
    _divide_reductions(network, {"act1": 2}, others=4)
    return ("conv1.weight",) if first is stem else ()


def _three_by_three(usual: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution of stride 1 that starts as timm's ResNets do: He, by outputs."""
    layer = nn.Conv2d(
        usual.in_channels,
        usual.out_channels,
        kernel_size=3,
        padding=1,
        bias=False,
        device=usual.weight.device,
        dtype=usual.weight.dtype,
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _divide_reductions(network: nn.Module, by: Mapping[str, int], *, others: int) -> None:
    """Tell timm's `feature_info` by how much each feature map is now smaller than the image."""
    for info in cast("list[dict[str, Any]]", network.feature_info):
        info["reduction"] //= by.get(info["module"], others)


def _name_of(network: nn.Module) -> str:
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    return repr(config.get("architecture") or type(network).__name__)


def batch_norm_settings(
    network: nn.Module,
    *,
    momentum: float | None = BATCH_NORM_MOMENTUM,
    eps: float = BATCH_NORM_EPS,
) -> int:
    """Set momentum and epsilon of every batch normalisation of a network, in place.

    In training running statistics become (1 - momentum) * old + momentum * batch, and values
    (x - mean) / sqrt(variance + eps). Unless given, they are those of the official code.

    Args:
        network: Of any family; other normalisations stay as they are.
        momentum: Share of the new batch, above 0 and at most 1: torch's meaning of the word.
            TensorFlow's is 1 minus this. None leaves it as it is.
        eps: Added to the variance, above 0. It counts in evaluation too: see `Variant`.

    Returns:
        How many there are; 0 of a network without any.

    Raises:
        InputError: If a value is out of its range.
    """
    if momentum is not None and not 0 < momentum <= 1:
        raise InputError(
            f"batch normalisation's momentum is {momentum}; wanted above 0 and at most 1, the "
            f"share of the new batch, such as {BATCH_NORM_MOMENTUM}"
        )
    if not 0 < eps < 1:
        raise InputError(
            f"batch normalisation's eps is {eps}; wanted above 0 and below 1, such as "
            f"{BATCH_NORM_EPS}"
        )
    layers = [layer for layer in network.modules() if isinstance(layer, _BATCH_NORMS)]
    for layer in layers:
        layer.eps = eps
        if momentum is not None:
            layer.momentum = momentum
    if layers:
        setattr(network, _VARIANT, replace(variant_of(network), batch_norm_eps=eps))
    return len(layers)


_BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def check_known(architecture: str) -> None:
    """Raise InputError, with names that begin alike, unless timm has a model of this name."""
    if not timm.is_model(architecture):
        near = ", ".join(timm.list_models(f"*{architecture[:6]}*")[:8])
        raise InputError(
            f"timm has no model {architecture!r}; wanted one of timm.list_models()"
            + (f", such as {near}" if near else "")
        )


def on_meta(
    architecture: str,
    *,
    num_classes: int,
    channels: int = 3,
    size: int | None = None,
    small: bool = False,
) -> nn.Module:
    """Make a network of shapes alone: it takes no memory and no random numbers.

    Args:
        architecture: timm name.
        num_classes: Of its outputs.
        channels: Of its images.
        size: Of its images, pixels a side, for architectures that are made for one size.
        small: Whether it is the variant of `small_images`.

    Raises:
        InputError: If timm has no such model, it does not take these settings, or it has no
            such variant.
    """
    check_known(architecture)
    wanted: dict[str, Any] = {"num_classes": num_classes, "in_chans": channels}
    config = timm.get_pretrained_cfg(architecture)
    if size is not None and config is not None and config.fixed_input_size:
        wanted["img_size"] = size
    with torch.device("meta"):
        try:
            network: nn.Module = timm.create_model(architecture, **wanted)
        except Exception as error:
            raise InputError(
                f"model {architecture!r} cannot be made with {wanted}: {error}"
            ) from error
        Variant(small_images=small).apply(network)
    return network


def num_parameters(
    architecture: str, *, num_classes: int, channels: int = 3, small: bool = False
) -> int:
    """Return how many parameters a model has, all of them trained; takes no memory.

    Raises:
        InputError: As `on_meta` does.
    """
    network = on_meta(architecture, num_classes=num_classes, channels=channels, small=small)
    return sum(parameter.numel() for parameter in network.parameters())
