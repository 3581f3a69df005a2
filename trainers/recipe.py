"""Recipes: what a run does, as typed TOML; every key is checked, all errors at once."""

import reprlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from plstore.errors import RecipeError
from plstore.fingerprint import value_hash
from trainers.sections import (
    Data,
    Finetune,
    Fusion,
    How,
    Label,
    Loss,
    Method,
    Model,
    NoiseSection,
    Optimizer,
    Pretrain,
    Schedule,
    Section,
    Select,
    Train,
)

_EXCLUSIVE: Final[Mapping[str, Sequence[frozenset[str]]]] = {
    "train": (frozenset({"steps", "epochs"}),),
    "schedule": (frozenset({"warmup_steps", "warmup_epochs"}),),
    "finetune": (frozenset({"steps", "epochs"}),),
}
"""Keys that say the same in two ways: where an iteration has one, the other is let go of."""

_MOVED: Final = {
    "model.teacher": "model.architecture",
    "model.students": "iteration.1.model.architecture",
    "model.student_resolution": "iteration.1.model.resolution",
    "train.optimizer": "optimizer.name",
    "train.learning_rate": "optimizer.learning_rate",
    "train.weight_decay": "optimizer.weight_decay",
    "train.warmup_steps": "schedule.warmup_steps",
    "train.label_smoothing": "loss.label_smoothing",
}
"""Where keys of earlier versions are now."""


_FINETUNE_RATE: Final = 0.1
_NET: Final = ("architecture", "small_images", "channels")
"""Of `model`: what weights are of."""

Changes = dict[str, dict[str, Any]]
"""Values by section and key, as in TOML."""

SECTIONS_BY_ITERATION: Final = (
    *("model", "train", "optimizer", "schedule", "loss", "finetune"),
    *("noise", "label", "select"),
)


class Recipe(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    seed: Annotated[int, Field(ge=0)] = 0
    iterations: Annotated[int, Field(ge=1, le=99)] = 3
    patience: Annotated[int, Field(ge=1)] | None = None
    """The run ends after so many students none of which was better on validation images than
    the best model before them. All iterations are done unless given."""
    control: bool = True
    """Also train the control: the last student's model, labels alone."""
    teacher: str | None = None
    """Of the store: it labels first, or has labels. The run trains one unless given."""
    data: Data = Data()
    model: Model = Model()
    method: Method = Method()
    pretrain: Pretrain = Pretrain()
    train: Train = Train()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    finetune: Finetune = Finetune()
    noise: NoiseSection = NoiseSection()
    label: Label = Label()
    fuse: Fusion = Fusion()
    select: Select = Select()
    iteration: dict[Annotated[int, Field(ge=0, le=99)], Changes] = Field(default_factory=dict)
    """What is otherwise from an iteration on: ``[iteration.3.train] ratio = 28`` holds for
    student 3 and those after it, ``[iteration.0.model]`` for the first teacher alone. Sections
    model, train, optimizer, schedule, loss, finetune, noise; label and select, of the labels
    and the view that the student of that iteration learns from."""

    @model_validator(mode="after")
    def _has_weights_to_start_from(self) -> "Recipe":
        needing = {"probe"} if self.pretrain.is_wanted else {"finetune", "probe"}
        asked = {self.method.teacher, self.method.students} & needing
        if asked and not self.model.has_weights:
            raise ValueError(
                f"method {' and '.join(sorted(map(str, asked)))} starts from weights, and the "
                "recipe names none; wanted model.weights (--weights) or model.pretrained"
            )
        if self.method.teacher == "warm":
            raise ValueError("method.teacher is 'warm': there is no model before the first")
        return self

    @model_validator(mode="after")
    def _pretrains_what_it_starts_from(self) -> "Recipe":
        if not self.pretrain.is_wanted:
            return self
        if self.model.has_weights or self.model.also:
            found = (
                "model.also names more first teachers" if self.model.also else "names weights"
            )
            raise ValueError(
                f"pretrain.steps is {self.pretrain.steps}, and the recipe {found}; wanted one "
                "of the two: pretraining is of the one network that begins at random"
            )
        for number, changes in self.iteration.items():
            own = changes.get("model", {})
            other = any(
                own.get(n, getattr(self.model, n)) != getattr(self.model, n) for n in _NET
            )
            if other and self.how(number) == "finetune":
                raise ValueError(
                    f"iteration.{number}.model is another network than the one that is "
                    "pretrained, and it is to start from its weights; set "
                    f"method.{'students' if number else 'teacher'} to scratch"
                )
        return self

    @model_validator(mode="after")
    def _has_noised_views(self) -> "Recipe":
        if self.label.views and self.method.students == "probe":
            raise ValueError(
                "label.views is of images with noise, and method.students is 'probe', whose "
                "images have none; wanted scratch, finetune or warm"
            )
        return self

    @model_validator(mode="after")
    def _has_labels_to_replay(self) -> "Recipe":
        if self.label.views and self.loss.pseudo_labels == "online":
            raise ValueError(
                "label.views keeps what a teacher says, and loss.pseudo_labels is 'online', "
                "the student's own; wanted one of the two"
            )
        return self

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> "Recipe":
        warmup = self.schedule.warmup_steps or 0
        if self.train.epochs is None and warmup >= self.train.num_steps(0):
            raise ValueError(
                f"schedule.warmup_steps {warmup} is not below train.steps "
                f"{self.train.num_steps(0)}"
            )
        return self

    @model_validator(mode="after")
    def _knows_its_iterations(self) -> "Recipe":
        for number, changes in sorted(self.iteration.items()):
            if unknown := sorted(set(changes) - set(SECTIONS_BY_ITERATION)):
                raise ValueError(
                    f"iteration.{number}.{unknown[0]}: not by iteration; wanted sections "
                    f"{', '.join(SECTIONS_BY_ITERATION)}"
                )
            try:
                self.at(number)
            except ValidationError as error:
                lines = [f"iteration.{number}.{line}" for line in problems(error, "recipe")]
                raise ValueError("; ".join(lines)) from error
        return self

    def at(self, iteration: int) -> "Recipe":
        """Return the recipe as an iteration sees it: its changes, and those before, made.

        Args:
            iteration: 0 is the first teacher, whose changes are its own; a student's hold for
                those after it too.
        """
        if not self.iteration:
            return self
        first = min(iteration, 1)
        named = [number for number in sorted(self.iteration) if first <= number <= iteration]
        values = self.model_dump(exclude_unset=True, exclude={"iteration"})
        for section, changes in chain.from_iterable(self.iteration[n].items() for n in named):
            before = values.setdefault(section, {})
            for clash in _EXCLUSIVE.get(section, ()):
                if clash & set(changes):
                    before = {k: v for k, v in before.items() if k not in clash}
            values[section] = {**before, **changes}
        return Recipe.model_validate(values)

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

    def how(self, iteration: int, *, is_control: bool = False) -> How:
        """Return how the model of an iteration comes about; iteration 0 is the teacher.

        There is no teacher that a control could start from: where students do, it comes about
        as the first teacher did. Nor does it start from what was learnt of unlabeled images.
        """
        if is_control and self.pretrain.is_wanted:
            return "scratch"
        said = self.method.students if iteration else self.method.teacher
        if said == "warm" and is_control:
            return self.how(0)
        has_start = self.model.has_weights or self.pretrain.is_wanted
        return said or ("finetune" if has_start else "scratch")

    def model_of(self, iteration: int, *, is_control: bool = False) -> Model:
        """Return the section `model` as the model of an iteration sees it."""
        model = self.at(iteration).model
        if self.how(iteration, is_control=is_control) in {"finetune", "probe"}:
            return model
        return model.model_copy(update={"pretrained": False, "weights": None})

    def finetuning(self) -> "Recipe":
        """Return the recipe of its `finetune`, of labeled images alone; of `at`'s recipe."""
        last, train, changes = self.finetune, self.train, dict[str, Any]()
        labeled = last.labeled_batch or train.labeled_batch
        length: dict[str, float | None] = {"steps": last.steps, "epochs": last.epochs}
        wanted = {"resolution": last.resolution, "crop_pct": last.crop_pct}
        model = {name: value for name, value in wanted.items() if value is not None}
        if not last.noise:
            model |= {"dropout": 0.0, "stochastic_depth": 0.0}
            changes["noise"] = self.noise.model_copy(update={"labeled": []})
        rate = last.learning_rate or self.optimizer.learning_rate * _FINETUNE_RATE
        return self.model_copy(
            update={
                **changes,
                "model": self.model.model_copy(update=model),
                "train": train.model_copy(
                    update={**length, "labeled_batch": labeled, "ratio": 0, "images": "both"}
                ),
                "optimizer": self.optimizer.model_copy(update={"learning_rate": rate}),
                "schedule": self.schedule.model_copy(
                    update={"warmup_steps": 0, "warmup_epochs": None}
                ),
            }
        )

    @property
    def hash(self) -> str:
        """Identity of all that the recipe says; of some sections, where they are asked for."""
        values = self.model_dump(mode="json")
        if not self.label.views:  # recipes of before have the same identity
            del values["label"]["views"], values["label"]["view_epochs"]
        if not self.pretrain.is_wanted:
            del values["pretrain"]
        if self.data.imbalance is None and self.data.classes_out is None:
            del (
                values["data"]["imbalance"],
                values["data"]["classes_out"],
                values["data"]["pool"],
            )
        return value_hash(values)


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
    changed = f", with --set {' '.join(overrides)}" if overrides else ""
    return check_recipe(recipe, f"{path}{changed}")


def check_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Return values as a recipe, or raise RecipeError with everything that is wrong."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        lines = "\n".join(f"  {problem}" for problem in problems(error, "recipe"))
        raise RecipeError(f"{where}: {error.error_count()} wrong\n{lines}") from error


def problems(
    error: ValidationError, whole: str, model: type[BaseModel] = Recipe
) -> Iterator[str]:
    """Yield a line for each value that is wrong: where it is, what was found and wanted.

    Args:
        error: Of a recipe's validation, or of another model's.
        whole: Name of what is wrong where no single value is.
        model: That was validated.
    """
    for detail in error.errors():
        path = ".".join(str(part) for part in detail["loc"]) or whole
        if detail["type"] == "extra_forbidden" and path in _MOVED and model is Recipe:
            yield f"{path}: unknown key; it is {_MOVED[path]} now"
        elif detail["type"] == "extra_forbidden":
            known = ", ".join(_known_keys(detail["loc"], model))
            yield f"{path}: unknown key; known are {known}"
        elif detail["type"] == "missing":
            yield f"{path}: missing, and there is no default"
        elif detail["type"] == "value_error":
            yield f"{path}: {detail['msg'].removeprefix('Value error, ')}"
        else:
            yield f"{path}: found {reprlib.repr(detail['input'])}; {detail['msg'].lower()}"


def _known_keys(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    found: Any = model
    for part in loc[:-1]:
        if isinstance(found, type) and issubclass(found, BaseModel):
            found = found.model_fields[str(part)].annotation
        else:  # of a list or a dict
            found = get_args(found)[-1]
    return sorted(found.model_fields)


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
