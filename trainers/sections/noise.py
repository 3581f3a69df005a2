"""What noise a model is trained with."""

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, model_validator

from plstore.loaders.noise import INPUT_PARTS, OPS, ComposedAugment, Crop, InputPart, Noise
from plstore.loaders.randaugment import RandAugment
from trainers.sections.section import Fraction, Section

NoisePart = Literal["crop", "flip", "augment", "dropout", "stochastic_depth"]
"""Of the noise: of the input, random-resized crop, flip and RandAugment; of the model, dropout
and stochastic depth (Noisy Student, 3.1)."""

NOISE_PARTS: Final[tuple[NoisePart, ...]] = get_args(NoisePart)


class NoiseSection(Section):
    """Input noise of students, teacher and control alike, and who gets which part of it."""

    labeled: list[NoisePart] = Field(default_factory=lambda: list(NOISE_PARTS))
    """Parts that labeled images get while a model trains; all of them unless given."""
    pseudo: list[NoisePart] = Field(default_factory=lambda: list(NOISE_PARTS))
    """Parts that pseudo-labeled images get. Without some it is the ablation of table 6."""
    teacher: list[NoisePart] = Field(default_factory=list)
    """Parts that a teacher has while it labels: none in the paper, whose table 6 shows why."""

    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    crop_min_area: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Random-resized crop: smallest share of the area."""
    crop_max_aspect: Annotated[float, Field(ge=1, le=4)] = 4 / 3
    """Random-resized crop: aspect ratios from 1 / this to this."""
    fill: Annotated[int, Field(ge=0, le=255)] | None = None
    """Value of pixels from outside the image; unless given, the dialect's, and for `composed`
    the repeated edge."""
    num_ops: Annotated[int, Field(ge=0, le=8)] = 2
    """RandAugment operations an image gets."""
    dialect: Literal["composed", "noisystudent", "timm", "torchvision", "dali"] = "composed"
    """What a magnitude means: `composed` takes `ops`, the others `m`."""
    m: Annotated[float, Field(ge=0)] = 9.0
    """Magnitude on the dialect's scale; the paper has 27 of `noisystudent` for its largest."""
    translate_const: Annotated[float, Field(ge=0)] | None = None
    """Of `noisystudent`: pixels of a translation at magnitude 10; 100 unless given."""
    cutout_const: Annotated[float, Field(ge=0)] | None = None
    """Of `noisystudent`: half a side of the square at magnitude 10; 40 pixels unless given."""
    magnitude: Literal["uniform", "fixed"] = "uniform"
    """Up to the largest magnitude, or always the largest; for `composed` alone."""
    ops: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {
            "identity": 0.0,
            "rotate": 20.0,
            "shear_x": 0.2,
            "shear_y": 0.2,
            "translate_x": 0.15,
            "translate_y": 0.15,
            "brightness": 0.4,
            "contrast": 0.4,
            "saturation": 0.4,
        }
    )
    """Operations with their largest magnitude, for `composed` alone."""

    @model_validator(mode="after")
    def _is_one_dialect(self) -> "NoiseSection":
        unknown = sorted(set(self.ops) - set(OPS))
        if unknown:
            raise ValueError(
                f"ops {', '.join(unknown)} unknown; wanted some of {', '.join(OPS)}"
            )
        pixels = (self.translate_const, self.cutout_const)
        if self.dialect != "noisystudent" and pixels != (None, None):
            raise ValueError(
                "translate_const and cutout_const are of the dialect 'noisystudent'; this one "
                f"is {self.dialect!r}"
            )
        if self.dialect == "composed" and "m" in self.model_fields_set:
            raise ValueError(
                "m is the magnitude of another dialect; 'composed' takes ops, or set dialect"
            )
        self.as_noise()  # refuses what the dialect does not know
        return self

    def input_parts(self, kind: Literal["labeled", "pseudo"]) -> tuple[InputPart, ...]:
        """Return the parts of the input noise that a kind of image gets."""
        gets = self.labeled if kind == "labeled" else self.pseudo
        return tuple(part for part in INPUT_PARTS if part in gets)

    def as_noise(self) -> Noise:
        """Return the input noise as the loader wants it."""
        return Noise(
            crop=Crop(min_area=self.crop_min_area, max_aspect=self.crop_max_aspect),
            flip=self.flip,
            augment=self._augment(),
            fill=self.fill,
        )

    def _augment(self) -> RandAugment | ComposedAugment:
        if self.dialect == "composed":
            return ComposedAugment(n=self.num_ops, ops=self.ops, magnitude=self.magnitude)
        pixels = {"translate_const": self.translate_const, "cutout_const": self.cutout_const}
        given: dict[str, Any] = {k: value for k, value in pixels.items() if value is not None}
        return RandAugment(n=self.num_ops, m=self.m, dialect=self.dialect, **given)
