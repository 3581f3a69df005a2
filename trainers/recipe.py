"""Recipes: what a run does, as typed TOML; every key is checked, all errors at once."""

import reprlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plstore.errors import RecipeError
from plstore.fingerprint import value_hash
from plstore.loaders.noise import OPS, ComposedAugment, Crop, Noise
from plstore.loaders.randaugment import RandAugment
from plstore.views import DEFAULT_QUALITY, Shrink

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(_Section):
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


class Also(_Section):
    """One more first teacher, beside the one of `model`; their labels are fused."""

    teacher: str
    """timm name."""
    weights: str | None = None
    """As `model.weights`."""
    pretrained: bool | None = None
    """As `model.pretrained`."""
    resolution: Annotated[int, Field(ge=8, le=1024)] | None = None
    """As `model.resolution`."""


class Fusion(_Section):
    """How several first teachers become one; see `plstore fuse --help`."""

    method: Literal["arithmetic", "geometric", "votes"] = "votes"
    """Mean of probabilities, of their logarithms, or of hard labels."""
    weights: Literal["given", "fitted"] = "given"
    """The same for all, or those that fit the validation images."""


class Model(_Section):
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


class Method(_Section):
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


class Train(_Section):
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


class NoiseSection(_Section):
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


class Label(_Section):
    """How a teacher labels."""

    codec: Literal["topk", "dense", "hard"] = "topk"
    """How soft labels are kept; `dense` for a student that learns at a temperature above 1."""
    topk: Annotated[int, Field(ge=1)] = 20
    """Classes kept of a soft label."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of the teacher's softmax."""


class Select(_Section):
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


class Recipe(_Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    seed: Annotated[int, Field(ge=0)] = 0
    iterations: Annotated[int, Field(ge=1, le=99)] = 3
    control: bool = True
    """Also train the control: the last student's model, labels alone."""
    teacher: str | None = None
    """Of the store: it labels first, or has labels. The run trains one unless given."""
    data: Data = Data()
    model: Model = Model()
    method: Method = Method()
    train: Train = Train()
    noise: NoiseSection = NoiseSection()
    label: Label = Label()
    fuse: Fusion = Fusion()
    select: Select = Select()

    @model_validator(mode="after")
    def _has_weights_to_start_from(self) -> "Recipe":
        asked = {self.method.teacher, self.method.students} - {None, "scratch"}
        if asked and not self.model.has_weights:
            raise ValueError(
                f"method {' and '.join(sorted(map(str, asked)))} starts from weights, and the "
                "recipe names none; wanted model.weights (--weights) or model.pretrained"
            )
        return self

    def member(self, number: int) -> "Recipe":
        """Return the recipe as the first teacher of a number sees it: 1 is that of `model`."""
        changes: dict[str, object] = {"also": []}
        if number > 1:
            other = self.model.also[number - 2].model_dump(exclude_none=True)
            changes |= {"weights": None, **other} if "pretrained" in other else other
        model = self.model.model_copy(update=changes)
        return self.model_copy(update={"model": model})

    def lora_rank(self, iteration: int) -> int | None:
        """Return the rank of the updates of an iteration's model; None to train all weights."""
        return self.method.lora_rank if self.how(iteration) == "finetune" else None

    def how(self, iteration: int) -> How:
        """Return how the model of an iteration comes about; iteration 0 is the teacher."""
        said = self.method.students if iteration else self.method.teacher
        return said or ("finetune" if self.model.has_weights else "scratch")

    def model_of(self, iteration: int) -> Model:
        """Return the section `model` as the model of an iteration sees it."""
        model, changes = self.model, dict[str, object]()
        if iteration and model.student_resolution is not None:
            changes["resolution"] = model.student_resolution
        if self.how(iteration) == "scratch":
            changes |= {"pretrained": False, "weights": None}
        return model.model_copy(update=changes)

    @property
    def hash(self) -> str:
        """Identity of all that the recipe says."""
        return value_hash(self.model_dump(mode="json"))


def recipes_folder() -> Path:
    """Return the folder of the recipes that ship with plstore."""
    return Path(__file__).parent / "recipes"


def load_recipe(
    name: str | Path,
    overrides: Sequence[str] = (),
    values: Mapping[str, Mapping[str, object]] | None = None,
) -> Recipe:
    """Read a recipe.

    Args:
        name: A file, or the name of one that ships with plstore, such as "fashion_mnist".
        overrides: ``path.to.key=value`` each, the value as in TOML; quotes may be left off.
            ``path.to.key=`` takes out what the recipe says.
        values: Values by section, applied before the overrides.

    Raises:
        RecipeError: If the file is not there or no TOML, or any value is not as it must be;
            the message lists all of them.
    """
    path = Path(name)
    if not path.is_file():
        path = recipes_folder() / f"{name}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in recipes_folder().glob("*.toml")))
        raise RecipeError(f"no recipe {str(name)!r}: no such file, and plstore ships {shipped}")
    try:
        recipe = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is no TOML: {error}") from error
    for section, changes in (values or {}).items():
        recipe.setdefault(section, {}).update(changes)
    for override in overrides:
        _apply(recipe, override)
    return check_recipe(recipe, str(path))


def check_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Return values as a recipe, or raise RecipeError with everything that is wrong."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        lines = "\n".join(f"  {problem}" for problem in problems(error, "recipe"))
        raise RecipeError(f"{where}: {error.error_count()} wrong\n{lines}") from error


def problems(error: ValidationError, whole: str) -> Iterator[str]:
    """Yield a line for each value that is wrong: where it is, what was found and wanted.

    Args:
        error: Of a recipe's validation, or of another model's.
        whole: Name of what is wrong where no single value is.
    """
    for detail in error.errors():
        path = ".".join(str(part) for part in detail["loc"]) or whole
        if detail["type"] == "extra_forbidden":
            yield f"{path}: unknown key; known are {', '.join(_known_keys(detail['loc']))}"
        elif detail["type"] == "missing":
            yield f"{path}: missing, and there is no default"
        elif detail["type"] == "value_error":
            yield f"{path}: {detail['msg'].removeprefix('Value error, ')}"
        else:
            yield f"{path}: found {reprlib.repr(detail['input'])}; {detail['msg'].lower()}"


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    section: Any = Recipe
    for part in loc[:-1]:
        section = section.model_fields[str(part)].annotation
    return sorted(section.model_fields)


def _apply(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise RecipeError(f"--set {override!r}: wanted path.to.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--set {override!r}: {key!r} is a value, not a section")
    if text.strip():
        values[keys[-1]] = value
    elif values.pop(keys[-1], None) is None:
        raise RecipeError(f"--set {override!r}: the recipe says nothing of it to take out")
