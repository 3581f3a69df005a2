"""Self-supervised training of a network on unlabeled images, before there is a teacher."""

from typing import Annotated, Final, Literal

from pydantic import Field

from plstore.loaders.noise import ComposedAugment, Crop, Noise
from trainers.sections.section import Section

Task = Literal["rotation", "simclr"]

_CROPS: Final = {"rotation": 0.5, "simclr": 0.2}
_OPS: Final = {"rotation": 0, "simclr": 3}


class Pretrain(Section):
    """What the network of `model` learns from unlabeled images alone.

    Teacher and students then start from its weights (`finetune`), and the control from random
    ones, as it shows what labels alone give.
    """

    steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps; 0 for none."""
    task: Task = "rotation"
    """`rotation`: by which quarter turn an image was turned (Gidaris et al. 2018, "Unsupervised
    representation learning by predicting image rotations"); of photos, which have an up.
    `simclr`: which two noised versions are of one image (Chen et al. 2020, "A simple framework
    for contrastive learning of visual representations"); of any images, at twice the cost."""
    batch: Annotated[int, Field(ge=2)] = 256
    """Images a step; `simclr` noises each twice."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.003
    """The largest, of `optimizer.name`; a cosine leads to it and down."""
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability of a horizontal flip."""
    crop_min_area: Annotated[float, Field(gt=0, le=1)] | None = None
    """Random-resized crop: smallest share of the area; 0.5 of `rotation`, 0.2 of `simclr`
    unless given."""
    num_ops: Annotated[int, Field(ge=0, le=8)] | None = None
    """Operations that an image gets; 0 of `rotation`, 3 of `simclr` unless given."""
    ops: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"brightness": 0.4, "contrast": 0.4, "saturation": 0.8}
    )
    """Operations with their largest magnitude, as `noise.ops` of the dialect `composed`."""
    temperature: Annotated[float, Field(gt=0)] = 0.2
    """Of `simclr`: similarities are divided by it (Chen et al. 2020, table 5: 0.05 to 1)."""
    projection: Annotated[int, Field(ge=1)] = 128
    """Of `simclr`: numbers of the vector that is compared."""

    @property
    def is_wanted(self) -> bool:
        """Whether there is any."""
        return self.steps > 0

    @property
    def versions(self) -> int:
        """How often a step noises each of its images."""
        return 2 if self.task == "simclr" else 1

    def as_noise(self) -> Noise:
        """Return the noise of each version of an image."""
        area = self.crop_min_area or _CROPS[self.task]
        num_ops = _OPS[self.task] if self.num_ops is None else self.num_ops
        return Noise(
            crop=Crop(min_area=area),
            flip=self.flip,
            augment=ComposedAugment(n=num_ops, ops=self.ops),
        )
