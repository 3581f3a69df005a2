"""Recipes: what a run does, as typed TOML; every key is checked, all errors at once."""

import reprlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from plstore.errors import RecipeError
from plstore.fingerprint import value_hash
from trainers.sections import (
    Data,
    Fusion,
    How,
    Label,
    Method,
    Model,
    NoiseSection,
    Section,
    Select,
    Train,
)


class Recipe(Section):
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
