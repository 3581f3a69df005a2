"""Self-supervised training of a network on unlabeled images, before there is a teacher."""

from typing import Annotated

from pydantic import Field

from plstore.loaders.noise import ComposedAugment, Crop, Noise
from trainers.sections.section import Section


class Pretrain(Section):
    """What the network of `model` learns from unlabeled images alone, by SimCLR.

    Chen et al. 2020, "A simple framework for contrastive learning of visual representations".
    Teacher and students then start from its weights (`finetune`), and the control from random
    ones, as it shows what labels alone give.
    """

    steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps; 0 for none."""
    batch: Annotated[int, Field(ge=2)] = 256
    """Images a step, each noised twice."""
    temperature: Annotated[float, Field(gt=0)] = 0.2
    """Of similarities; 0.1 to 1 are tried in table 5 of the paper."""
    projection: Annotated[int, Field(ge=1)] = 128
    """Numbers of the vector that is compared; the head that makes it is left off afterwards."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.003
    """The largest, of `optimizer.name`; a cosine leads to it and down."""
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability of a horizontal flip."""
    crop_min_area: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Random-resized crop: smallest share of the area. Small crops matter most (section 3)."""
    num_ops: Annotated[int, Field(ge=0, le=8)] = 3
    """Operations that an image gets."""
    ops: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"brightness": 0.4, "contrast": 0.4, "saturation": 0.8}
    )
    """Operations with their largest magnitude, as `noise.ops` of the dialect `composed`."""

    @property
    def is_wanted(self) -> bool:
        """Whether there is any."""
        return self.steps > 0

    def as_noise(self) -> Noise:
        """Return the noise of each of the two versions of an image."""
        return Noise(
            crop=Crop(min_area=self.crop_min_area),
            flip=self.flip,
            augment=ComposedAugment(n=self.num_ops, ops=self.ops),
        )
