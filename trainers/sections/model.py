"""Which models, how they see images, and how they come about."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainers.sections.section import Fraction, Section

_Momentum = Annotated[float, Field(ge=0, lt=1)]
_Epsilon = Annotated[float, Field(gt=0, lt=1)]


class Also(Section):
    """One more first teacher, beside the one of `model`; their labels are fused."""

    architecture: str
    """timm name."""
    weights: str | None = None
    """As `model.weights`."""
    pretrained: bool | None = None
    """As `model.pretrained`."""
    resolution: Annotated[int, Field(ge=8, le=1024)] | None = None
    """As `model.resolution`."""


class Model(Section):
    """Which models, and how they see images. Any timm model of images."""

    architecture: str = "resnet18"
    """timm name. A student is equal to its teacher or larger (Noisy Student, algorithm 1)."""
    also: list[Also] = Field(default_factory=list)
    """More first teachers; see `fuse`."""
    resolution: Annotated[int, Field(ge=8, le=1024)] = 128
    """Pixels a side."""
    small_images: bool = False
    """The variant for images of 28 to 64 pixels: early strides of 1, as the official code has
    for SVHN. Of timm's EfficientNets and ResNets."""
    channels: Literal[1, 3] = 3
    """1 reads images as grayscale."""
    mean: list[Fraction] | None = None
    """By channel; the model's own unless given."""
    std: list[Annotated[float, Field(gt=0, le=1)]] | None = None
    """By channel; the model's own unless given."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Of the resize."""
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the shorter side that a clean image keeps."""
    scaled_decoding: bool = True
    """JPEGs whose crop has at least twice the resolution are decoded at 1/2, 1/4 or 1/8, the
    smallest that has the resolution; false decodes every image whole."""
    pretrained: bool = False
    """Start from the weights that timm brings. The paper's students start from scratch."""
    weights: str | None = None
    """Start from those of a .safetensors file in timm's names, or of a folder with one."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Before the classifier."""
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Drop rate of the last block, linear in depth: 0.2 in the paper (Noisy Student, 4.1)."""
    batch_norm: tuple[_Momentum, _Epsilon] | None = None
    """Momentum and epsilon of batch norms, as TensorFlow says them: the official code has
    [0.99, 0.001], torch by default [0.9, 0.00001]. The model's own unless given."""

    @model_validator(mode="after")
    def _has_a_value_per_channel(self) -> "Model":
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(
                    f"{name} has {len(values)} values for {self.channels} channels"
                )
        return self

    @property
    def has_weights(self) -> bool:
        """Whether it names weights to start from."""
        return self.pretrained or self.weights is not None


How = Literal["scratch", "finetune", "probe", "warm"]
"""How a model comes about: all weights trained from random ones; all trained from given ones;
given ones frozen, with a logistic regression on their features for a classifier; all trained
from those of the model before it (Noisy Student, table 15)."""


class Method(Section):
    """How models come about. From random weights, or all given ones trained, unless said."""

    teacher: How | None = None
    """Of the first teacher. `finetune` where the recipe names weights or pretrains, else
    `scratch`."""
    students: How | None = None
    """Of students and control. `finetune` where the recipe names weights or pretrains, else
    `scratch`; the control of a recipe that pretrains is always `scratch`. Each starts from
    random or from the given weights; `warm` from its teacher's, which then has the
    same architecture. The control of a warm student starts as the first teacher did."""
    lora_rank: Annotated[int, Field(ge=1)] | None = None
    """Of `finetune`: train low-rank updates and the classifier alone; else all weights."""
    targets: Literal["soft", "hard"] = "hard"
    """Probes: what is learnt of a pseudo-label. A linear model that learns the soft labels of
    another of the same features learns the same model."""
    ratio: Annotated[float, Field(gt=0)] = 3.0
    """Probes: what all pseudo-labeled images weigh together, by what all labeled ones do."""
