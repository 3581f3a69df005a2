"""The sections of a recipe: every key with its type, its range and what it means."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from plstore.loaders.noise import OPS, ComposedAugment, Crop, Noise
from plstore.loaders.randaugment import RandAugment
from plstore.views import DEFAULT_QUALITY, Shrink

Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """Where images come from."""

    source: Literal["sample", "parquet", "idx", "folders", "store"] = "sample"
    """The bundled sample, a folder of Parquet files, of IDX files, folders of images, or those
    that the store has already."""
    dataset: str = "fashion_mnist"
    """Name of the collection in the store."""
    path: str | None = None
    """Folder of the Parquet or IDX files."""
    num_labeled: Annotated[int, Field(ge=1)] = 300
    """IDX: labeled images, as many of every class."""
    num_validation: Annotated[int, Field(ge=0)] = 1000
    """IDX: validation images."""
    num_unlabeled: Annotated[int, Field(ge=1)] | None = None
    """IDX: unlabeled images; all the rest unless given."""
    num_test: Annotated[int, Field(ge=1)] | None = None
    """IDX: test images; all unless given."""
    class_names: Annotated[list[str], Field(min_length=2)] | None = None
    """IDX: by label; those of Fashion-MNIST unless given."""
    labeled: str | None = None
    """Folders: a folder for each class below this one."""
    unlabeled: str | None = None
    """Folders: images anywhere below this one."""
    validation: str | None = None
    """Folders: as labeled; split off from it by a seeded hash unless given."""
    test: str | None = None
    """Folders: as labeled; never trained on."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Folders: share of the labeled images that is split off."""
    max_pixels: Annotated[int, Field(ge=1)] = 64_000_000
    """Images of more pixels are refused."""
    limit_unlabeled: Annotated[int, Field(ge=1)] | None = None
    """Import only this many unlabeled images."""

    @model_validator(mode="after")
    def _has_its_paths(self) -> "Data":
        if self.source in {"parquet", "idx"} and self.path is None:
            raise ValueError(f"source {self.source!r} needs path, the folder of its files")
        if self.source == "folders" and (self.labeled is None or self.unlabeled is None):
            raise ValueError("source 'folders' needs labeled and unlabeled, two folders")
        if self.source == "store" and self.limit_unlabeled is not None:
            raise ValueError("limit_unlabeled is of an import, and source 'store' has none")
        return self


class Also(Section):
    """One more first teacher, beside the one of `model`; their labels are fused."""

    teacher: str
    """timm name."""
    weights: str | None = None
    """As `model.weights`."""
    pretrained: bool | None = None
    """As `model.pretrained`."""
    resolution: Annotated[int, Field(ge=8, le=1024)] | None = None
    """As `model.resolution`."""


class Fusion(Section):
    """How several first teachers become one; see `plstore fuse --help`."""

    method: Literal["arithmetic", "geometric", "votes"] = "votes"
    """Mean of probabilities, of their logarithms, or of hard labels."""
    weights: Literal["given", "fitted"] = "given"
    """The same for all, or those that fit the validation images."""


class Model(Section):
    """Which models, and how they see images. Any timm model of images."""

    teacher: str = "resnet18"
    """timm name of the first teacher and, unless `students` says otherwise, of the students."""
    also: list[Also] = Field(default_factory=list)
    """More first teachers; see `fuse`."""
    students: Annotated[list[str], Field(min_length=1)] | None = None
    """timm names by iteration, equal or larger than the teacher; the last one repeats."""
    resolution: Annotated[int, Field(ge=8, le=1024)] = 128
    """Pixels a side."""
    student_resolution: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Of students and control; `resolution` unless given."""
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
    """Drop rate of the last block, linear in depth."""

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

    def student(self, iteration: int) -> str:
        """Return the architecture of an iteration's student; iteration 0 is the teacher."""
        if iteration == 0 or self.students is None:
            return self.teacher
        return self.students[min(iteration, len(self.students)) - 1]


How = Literal["scratch", "finetune", "probe"]
"""How a model comes about: all weights trained from random ones; all trained from given ones;
given ones frozen, with a logistic regression on their features for a classifier."""


class Method(Section):
    """How models come about. From random weights, or all given ones trained, unless said."""

    teacher: How | None = None
    """Of the first teacher. `finetune` where the recipe names weights, else `scratch`."""
    students: How | None = None
    """Of students and control. `finetune` where the recipe names weights, else `scratch`. Each
    starts from random or from the given weights: never from the last student's."""
    lora_rank: Annotated[int, Field(ge=1)] | None = None
    """Of `finetune`: train low-rank updates and the classifier alone; else all weights."""
    targets: Literal["soft", "hard"] = "hard"
    """Probes: what is learnt of a pseudo-label. A linear model that learns the soft labels of
    another of the same features learns the same model."""
    ratio: Annotated[float, Field(gt=0)] = 3.0
    """Probes: what all pseudo-labeled images weigh together, by what all labeled ones do."""


class Train(Section):
    """How long, and with which optimizer. The control takes as many steps and images."""

    steps: Annotated[int, Field(ge=1)] = 2000
    """Optimizer steps of every model."""
    labeled_batch: Annotated[int, Field(ge=1)] = 32
    """Labeled images a step of a student."""
    ratio: Annotated[int, Field(ge=1)] = 3
    """Pseudo-labeled images a step, per labeled image (Noisy Student, table 14)."""
    optimizer: str = "adamw"
    """timm name."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak; cosine to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Not on biases and norms."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of hard labels; soft labels are left as they are."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Of the weights that become the teacher; min(this, (1 + t) / (10 + t)) at step t."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; they change the last bits, so a recipe that fixes them repeats exactly."""
    backend: Literal["auto", "dali", "threads", "torch"] = "auto"
    """Of the loader; pixels differ in their last bits. `auto`: DALI on a GPU, else threads."""
    looks: Annotated[int, Field(ge=0)] = 10
    """How often validation is looked at while a model trains."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """A training ends after so many looks without a better one. Never unless given."""
    shuffle: Literal["global", "windowed"] = "global"
    """Of all draws, from a copy of the view in the cache; or within windows, without a copy."""
    window: Annotated[int, Field(ge=1)] = 4096
    """Draws of such a window."""

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> "Train":
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is not below steps {self.steps}"
            )
        return self

    @property
    def pseudo_batch(self) -> int:
        """Pseudo-labeled images a step."""
        return self.labeled_batch * self.ratio


class NoiseSection(Section):
    """Input noise of students, teacher and control alike."""

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
        if self.dialect == "composed" and "m" in self.model_fields_set:
            raise ValueError(
                "m is the magnitude of another dialect; 'composed' takes ops, or set dialect"
            )
        self.as_noise()  # refuses what the dialect does not know
        return self

    def as_noise(self) -> Noise:
        """Return it as the loader wants it."""
        return Noise(
            crop=Crop(min_area=self.crop_min_area, max_aspect=self.crop_max_aspect),
            flip=self.flip,
            augment=self._augment(),
            fill=self.fill,
        )

    def _augment(self) -> RandAugment | ComposedAugment:
        if self.dialect == "composed":
            return ComposedAugment(n=self.num_ops, ops=self.ops, magnitude=self.magnitude)
        return RandAugment(n=self.num_ops, m=self.m, dialect=self.dialect)


class Label(Section):
    """How a teacher labels."""

    codec: Literal["topk", "dense", "hard"] = "topk"
    """How soft labels are kept; `dense` for a student that learns at a temperature above 1."""
    topk: Annotated[int, Field(ge=1)] = 20
    """Classes kept of a soft label."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of the teacher's softmax."""
    best: bool = False
    """In the end the model that is best by validation labels the pool as well."""


class Select(Section):
    """What a student trains on."""

    policy: Literal["exact", "reference", "cap", "none"] = "exact"
    """How classes are balanced; see `plstore select --help`."""
    min_confidence: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Pseudo-labels above this are kept (Noisy Student, 3.1)."""
    images_per_class: Annotated[int, Field(ge=1)] | None = None
    """K: the most confident kept, fewer duplicated up to it. Unlabeled images divided by
    classes unless given."""
    relabel: bool = False
    """From the second student on, keep the first selection and replace its labels alone, as the
    official code does."""
    query: str | None = None
    """Saved query that decides in place of all that, or the path of a .sql file of your own.
    Of the saved ones: selection/adaptive_floor, class_balanced, diverse, in_distribution,
    near_labeled, soft_weight."""
    parameters: dict[str, float | int | str] = Field(default_factory=dict)
    """Further parameters of that query."""
    held_out: bool = False
    """Also train on images whose very bytes are in validation or test."""
    max_side: Annotated[int, Field(ge=1, le=65_500)] | None = None
    """Views hold images of a longer side as JPEGs shrunk to so many pixels."""
    quality: Annotated[int, Field(ge=1, le=100)] | None = None
    """Of those JPEGs, on libjpeg's scale; 90 unless given."""

    @model_validator(mode="after")
    def _who_decides(self) -> "Select":
        if self.query is not None and (self.relabel or self.policy != "exact"):
            raise ValueError("query decides in place of policy and relabel: leave them out")
        if self.parameters and self.query is None:
            raise ValueError("parameters are of a query of your own, and there is none")
        if self.quality is not None and self.max_side is None:
            raise ValueError("quality is of images that are shrunk: set max_side")
        return self

    @property
    def shrink(self) -> Shrink | None:
        """To what images are shrunk, None where they stay as they are."""
        if self.max_side is None:
            return None
        return Shrink(max_side=self.max_side, quality=self.quality or DEFAULT_QUALITY)
