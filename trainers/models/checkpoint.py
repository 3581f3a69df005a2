"""Checkpoints: model folders as timm writes them, checked in full before one labels anything.

A folder holds `config.json` and `model.safetensors`. The config says the architecture, how
images reach the model, and the class of each output, in `label_names`. Every weight must be
found and used, and all that counts classes must agree: else labels would come from a head that
nobody trained.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

import timm
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from plstore.errors import InputError
from plstore.loaders import ImageFormat
from plstore.loaders.work import LARGEST_SIDE
from trainers.models.architectures import Variant
from trainers.recipe import problems
from trainers.sections import Fraction

WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"
_CONFIG_BYTES: Final = 64 << 20
_CHANNELS: Final = (1, 3)
_SHOWN: Final = 4
_REMEDY: Final = "timm.models.save_for_hf(model, folder) writes a folder that fits"
_STARTS: Final = (
    (b"version https://git-lfs", "a pointer of Git LFS: run 'git lfs pull'"),
    (b"<", "a web page, as a failed download leaves it: download it again"),
    (b"PK\x03\x04", "a pickle of torch: save it with safetensors.torch.save_file"),
    (b"\x80", "a pickle of torch: save it with safetensors.torch.save_file"),
)

Names = tuple[str, ...]


class _Section(BaseModel):
    """Of what timm writes; keys that nothing here reads are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Preprocessing(_Section):
    """How images reach the model: the section `pretrained_cfg`."""

    input_size: Annotated[
        list[Annotated[int, Field(ge=1, le=LARGEST_SIDE)]], Field(min_length=3, max_length=3)
    ]
    """Channels, height, width."""
    mean: list[Fraction]
    std: list[Annotated[float, Field(gt=0, le=1)]]
    interpolation: Literal["bilinear", "bicubic"]
    crop_pct: Annotated[float, Field(gt=0, le=1)]
    crop_mode: str = "center"
    num_classes: int | None = None
    label_names: Any = None

    @model_validator(mode="after")
    def _is_a_square_of_its_channels(self) -> "Preprocessing":
        channels, height, width = self.input_size
        if channels not in _CHANNELS or height != width:
            raise ValueError(
                f"input_size is {self.input_size}; wanted 1 or 3 channels and a square, such "
                "as [3, 224, 224]"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise ValueError(f"{name} has {len(values)} values for {channels} channels")
        return self

    @property
    def format(self) -> ImageFormat:
        """Return it as the loader wants it."""
        channels, size, _ = self.input_size
        return ImageFormat(
            size=size,
            channels=channels,
            mean=tuple(self.mean),
            std=tuple(self.std),
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
        )


class Config(_Section):
    """`config.json`."""

    architecture: str
    num_classes: int | None = None
    label_names: Any = None
    model_args: dict[str, Any] = Field(default_factory=dict)
    pretrained_cfg: Preprocessing
    scaled_decoding: bool = True
    """Not timm's: see `plstore.loaders.ImageFormat`."""
    small_images: bool = False
    """Not timm's: see `trainers.models.architectures.small_images`."""
    batch_norm_eps: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Not timm's: see `trainers.models.architectures.batch_norm_settings`."""

    @property
    def variant(self) -> Variant:
        """How the network differs from what timm makes of its name and arguments."""
        return Variant(small_images=self.small_images, batch_norm_eps=self.batch_norm_eps)

    @property
    def format(self) -> ImageFormat:
        """Return how images reach the model, as the loader wants it."""
        return replace(self.pretrained_cfg.format, scaled_decoding=self.scaled_decoding)

    @property
    def notes(self) -> Iterator[str]:
        """Yield what is not done as the config says."""
        mode = self.pretrained_cfg.crop_mode
        if mode != "center":
            yield f"its crop_mode is {mode!r}; here images are cropped to their centre"


def _check_is_model(folder: Path) -> None:
    if all((folder / name).is_file() for name in (CONFIG, WEIGHTS)):
        return
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    raise InputError(
        f"{folder} is no model folder; wanted {CONFIG} and {WEIGHTS} in it, found "
        f"{', '.join(there[:8]) or 'nothing'}. {_REMEDY}"
    )


def read_config(folder: Path) -> tuple[Config, Names]:
    """Return the config of a model folder and the class of each output.

    Raises:
        InputError: If the folder, a value or a count is not as it must be.
    """
    path = folder / CONFIG
    _check_is_model(folder)
    values = _read_json(path)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        lines = "\n".join(f"  {problem}" for problem in problems(error, CONFIG))
        raise InputError(f"{path}: {error.error_count()} wrong\n{lines}") from error
    if not timm.is_model(config.architecture):
        raise InputError(
            f"{path}: architecture is {config.architecture!r}, which timm {timm.__version__} "
            "does not know; wanted one of timm.list_models()"
        )
    names = _names(config, path)
    _check_counts(config, names, path)
    return config, names


def load_network(folder: Path, config: Config, names: Names) -> nn.Module:
    """Return the model of a folder, all of its weights loaded.

    Raises:
        InputError: If a weight is missing, left over or of another shape.
    """
    path = folder / WEIGHTS
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=False)
    except Exception as error:
        raise InputError(
            f"{folder / CONFIG}: timm cannot make {config.architecture!r} with model_args "
            f"{config.model_args}: {error}"
        ) from error
    config.variant.apply(network)
    _check_fit(path, network)
    try:
        network.load_state_dict(load_file(path), strict=True)
    except Exception as error:
        raise InputError(f"{path} cannot be loaded: {error}. {_REMEDY}") from error
    _check_output(folder, network.eval(), config, names)
    return cast("nn.Module", network)


def match_names(theirs: Sequence[str], ours: Sequence[str], where: str) -> list[int] | None:
    """Return which of their outputs is each of our classes; None where the order is the same.

    Names are equal however Unicode composes them.

    Raises:
        InputError: If they are not the same names.
    """
    places = {_composed(name): index for index, name in enumerate(theirs)}
    wanted = [_composed(name) for name in ours]
    if set(places) != set(wanted):
        only = (sorted(set(places) - set(wanted)), sorted(set(wanted) - set(places)))
        theirs_only, ours_only = (_some(side) or "none" for side in only)
        raise InputError(
            f"the classes of {where} are not the store's: only the model has {theirs_only}, "
            f"only the store has {ours_only}"
        )
    order = [places[name] for name in wanted]
    return None if order == list(range(len(order))) else order


def stored_shapes(path: Path) -> dict[str, tuple[list[int], str]]:
    """Return shape and type of every tensor of a safetensors file, from its header.

    Raises:
        InputError: If it is no such file, or is cut off.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no dict
            return {name: (s.get_shape(), s.get_dtype()) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no safetensors file: {_kind_of(path, error)}") from error


def _kind_of(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as unreadable:
        return str(unreadable)
    if not start:
        return "it is empty"
    known = (what for begin, what in _STARTS if start.startswith(begin))
    return next(known, f"{error}; was its download or copy cut off? Get it again")


def _check_fit(path: Path, network: nn.Module) -> None:
    stored, wanted = stored_shapes(path), network.state_dict()
    wrong = []
    for what, names in (
        ("missing", sorted(set(wanted) - set(stored))),
        ("left over", sorted(set(stored) - set(wanted))),
    ):
        if names:
            wrong.append(f"{what} {_some(names)}")
    for name in sorted(set(wanted) & set(stored)):
        shape, kind = stored[name]
        tensor = wanted[name]
        if shape != list(tensor.shape) or _is_float(kind) != tensor.is_floating_point():
            wrong.append(f"{name} is {kind} {shape}, wanted {list(tensor.shape)}")
    if wrong:
        raise InputError(
            f"{path} does not hold the weights of the model that {CONFIG} describes: "
            f"{'; '.join(wrong[:_SHOWN])}"
            + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
            + f". {_REMEDY}"
        )


def _is_float(kind: str) -> bool:
    return kind.startswith(("F", "BF"))


def _check_output(folder: Path, network: nn.Module, config: Config, names: Names) -> None:
    """Show the model a gray image: it must give one finite number a class."""
    channels, size, _ = config.pretrained_cfg.input_size
    try:
        with torch.inference_mode():
            output = network(torch.zeros(1, channels, size, size))
    except Exception as error:
        raise InputError(
            f"the model of {folder} cannot take images of {size} pixels with {channels} "
            f"channels, the input_size of {CONFIG}: {error}"
        ) from error
    shape = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if shape != [1, len(names)]:
        raise InputError(
            f"the model of {folder} gives {shape} for an image; wanted [1, {len(names)}], one "
            f"number for each of the label_names of {CONFIG}"
        )
    if not torch.isfinite(output).all():
        raise InputError(
            f"the model of {folder} gives values that are not finite: its weights are damaged, "
            "or its training went astray"
        )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _CONFIG_BYTES:
            raise InputError(
                f"{path} has {path.stat().st_size:,} bytes; wanted at most {_CONFIG_BYTES:,}"
            )
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no JSON: {error}. {_REMEDY}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds {type(values).__name__}; wanted a JSON object")
    return values


def _names(config: Config, path: Path) -> Names:
    given = config.label_names
    if given is None:  # where timm puts them of a model that was loaded and saved again
        given = config.pretrained_cfg.label_names
    if not given:
        raise InputError(
            f"{path} has no label_names; wanted the class of each output, in their order: "
            'timm.models.save_for_hf(model, folder, model_config={"label_names": [...]})'
        )
    if isinstance(given, dict):  # by output number, as timm allows
        given = _by_number(given, path)
    is_list = isinstance(given, list)
    names = [str(name) for name in given if type(name) in {str, int}] if is_list else []
    if not is_list or len(names) != len(given) or not all(names):
        raise InputError(f"{path}: label_names is no list of names; wanted a name an output")
    twice = sorted(n for n, count in Counter(map(_composed, names)).items() if count > 1)
    if twice:
        raise InputError(f"{path}: label_names repeat {_some(twice)}; wanted each once")
    return tuple(names)


def _by_number(given: Mapping[str, Any], path: Path) -> list[Any]:
    numbers = [str(index) for index in range(len(given))]
    if set(numbers) != set(given):
        raise InputError(
            f"{path}: label_names has the keys {_some(sorted(given))}; wanted the numbers of "
            f"all outputs, 0 to {len(given) - 1}"
        )
    return [given[number] for number in numbers]


def _check_counts(config: Config, names: Names, path: Path) -> None:
    counts = {
        "num_classes": config.num_classes,
        "pretrained_cfg.num_classes": config.pretrained_cfg.num_classes,
        "model_args.num_classes": config.model_args.get("num_classes"),
        "label_names": len(names),
    }
    known = {name: count for name, count in counts.items() if count is not None}
    if set(known.values()) != {len(names)}:
        said = ", ".join(f"{name} {count}" for name, count in known.items())
        raise InputError(f"{path}: the numbers of classes differ: {said}; wanted them equal")


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
