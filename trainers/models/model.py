"""Models: made by timm, averaged over training, kept in a folder that timm loads."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast
from uuid import uuid4

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import save_for_hf
from timm.utils import ModelEmaV3
from torch import nn

from plstore.errors import InputError, StoreError
from plstore.fingerprint import file_hash
from plstore.labels import TeacherRecord
from plstore.loaders import ImageFormat
from plstore.storage import get_folder, is_remote, put_folder
from plstore.store import Store
from trainers.models.architectures import (
    batch_norm_settings,
    check_known,
    small_images,
    variant_of,
)
from trainers.models.checkpoint import WEIGHTS, load_network, match_names, read_config
from trainers.models.linear import Linear
from trainers.models.pretrained import check_start, starting_weights
from trainers.sections import Model

EMBEDDINGS: Final = "probe/embeddings"
"""Of a teacher's metrics: which embeddings its classifier was fitted on."""

_SHOWN: Final = 4


class Ema(ModelEmaV3):  # type: ignore[misc]  # timm's class is untyped here
    """The average of a model's weights and batch statistics: what becomes the teacher."""

    def get_decay(self, step: int | None = None) -> float:
        """Return min(decay, (1 + step) / (10 + step)), the rule of the official code."""
        if step is None:
            return float(self.decay)
        return float(min(self.decay, (1 + step) / (10 + step)))


def build_model(model: Model, architecture: str, num_classes: int) -> nn.Module:
    """Make a model with its noise: dropout before the classifier, stochastic depth.

    Raises:
        InputError: If timm has no such model, it does not take these settings, or its weights
            cannot be had.
    """
    wanted: dict[str, float] = {"num_classes": num_classes, "in_chans": model.channels}
    if model.dropout:
        wanted["drop_rate"] = model.dropout
    if model.stochastic_depth:
        wanted["drop_path_rate"] = model.stochastic_depth
    check_known(architecture)
    config = timm.get_pretrained_cfg(architecture)
    if config is not None and config.fixed_input_size:
        wanted["img_size"] = model.resolution
    overlay = starting_weights(model, architecture)
    try:
        network = timm.create_model(
            architecture,
            pretrained=model.pretrained or model.weights is not None,
            pretrained_cfg_overlay=overlay,
            **wanted,
        )
    except TypeError as error:
        raise InputError(
            f"model {architecture!r} does not take {wanted}: {error}. Settings of 0 are not "
            "passed, such as --set model.stochastic_depth=0"
        ) from error
    except Exception as error:
        raise InputError(
            f"model {architecture!r} cannot be made with {wanted} and "
            f"{_start_of(model)}: {error}"
        ) from error
    check_start(model, network, architecture)
    _make_variant(network, model, architecture)
    return cast("nn.Module", network.to(memory_format=torch.channels_last))


def _make_variant(network: nn.Module, model: Model, architecture: str) -> None:
    if model.small_images:
        random = small_images(network)
        if random and model.has_weights:
            raise InputError(
                f"{architecture!r} for small images has another {', '.join(random)} than the "
                f"weights of {model.weights or 'timm'}; set model.small_images to false, or "
                "take an EfficientNet, whose weights fit"
            )
    if model.batch_norm is not None:
        momentum, eps = model.batch_norm
        batch_norm_settings(network, momentum=1 - momentum, eps=eps)


def look_at_nothing(network: nn.Module, model: Model, architecture: str) -> torch.Tensor:
    """Return what a network says of two black images; it is in evaluation mode afterwards.

    Raises:
        InputError: If it cannot take images of that size.
    """
    image = torch.zeros(2, model.channels, model.resolution, model.resolution)
    try:
        with torch.inference_mode():
            said: torch.Tensor = network.eval()(image)
    except Exception as error:
        raise InputError(
            f"model {architecture!r} cannot take images of {model.resolution} pixels with "
            f"{model.channels} channels: {error}. Change --resolution or --model"
        ) from error
    return said


def _start_of(model: Model) -> str:
    if model.weights is not None:
        return f"the weights of {model.weights}"
    return "timm's weights" if model.pretrained else "weights at random"


def image_format(model: Model, network: nn.Module) -> ImageFormat:
    """Return how images reach a model: the recipe's wish, else timm's data config."""
    config = resolve_model_data_config(network)

    def by_channel(values: list[float] | None, name: str) -> tuple[float, ...]:
        given = tuple(values) if values is not None else tuple(config[name])
        if len(given) != model.channels:
            return (sum(given) / len(given),) * model.channels
        return given

    return ImageFormat(
        size=model.resolution,
        channels=model.channels,
        mean=by_channel(model.mean, "mean"),
        std=by_channel(model.std, "std"),
        interpolation=model.interpolation,
        crop_pct=model.crop_pct,
        scaled_decoding=model.scaled_decoding,
    )


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A trained model in a folder: safetensors, classes, preprocessing.

    Attributes:
        folder: Where it is.
        network: In evaluation mode.
        format: How images reach it.
        class_names: Of what `logits` returns, in its order.
        output_names: Of the network's own outputs.
        order: int64 [classes], the output of each class; None where that is its number.
        notes: What people should know of it.
        embeddings: Of a probe: the name of those that its classifier stands on.
    """

    folder: Path
    network: nn.Module
    format: ImageFormat
    class_names: tuple[str, ...]
    output_names: tuple[str, ...]
    order: torch.Tensor | None
    notes: tuple[str, ...]
    embeddings: str | None = None

    def head(self) -> Linear:
        """Return its classifier as a function of embeddings, in the order of `class_names`.

        Raises:
            InputError: If it is no linear layer.
        """
        layer = self.network.get_classifier()  # type: ignore[operator]  # timm models have it
        if not isinstance(layer, nn.Linear):
            raise InputError(
                f"the classifier of {self.folder} is {type(layer).__name__}; wanted a linear "
                "layer on embeddings"
            )
        weight, bias = layer.weight.detach().cpu(), layer.bias.detach().cpu()
        order = slice(None) if self.order is None else self.order.cpu()
        return Linear(weight=weight[order].float(), bias=bias[order].float(), strength=None)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 [batch, classes] of uint8 images, in the order of `class_names`."""
        outputs: torch.Tensor = self.network(self.format.normalise(images))
        return self._in_order(outputs)

    def look(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits, as `logits` does, and what the classifier makes them of.

        That is float32 [batch, features]: what timm's `forward_features` finds, pooled by
        `forward_head` with `pre_logits`, in one pass.
        """
        network: Any = self.network
        features = network.forward_features(self.format.normalise(images))
        pooled: torch.Tensor = network.forward_head(features, pre_logits=True)
        return self._in_order(network.forward_head(features)), pooled.float()

    def _in_order(self, outputs: torch.Tensor) -> torch.Tensor:
        outputs = outputs.float()
        return outputs if self.order is None else outputs[:, self.order]

    def check_features(self) -> None:
        """Show the model a gray image, to know before long work whether `look` can be asked.

        Raises:
            InputError: If it has no pooled features before its classifier, or its logits are
                not made of them alone.
        """
        shape = (1, self.format.channels, self.format.size, self.format.size)
        device = next(self.network.parameters()).device
        images = torch.zeros(shape, dtype=torch.uint8, device=device)
        try:
            with torch.inference_mode():
                (logits, pooled), whole = self.look(images), self.logits(images)
        except Exception as error:
            raise InputError(f"{self._no_features}: {error}") from error
        if pooled.ndim != 2 or not torch.allclose(logits, whole, rtol=1e-3, atol=1e-4):  # noqa: PLR2004  images and features
            raise InputError(f"{self._no_features}: they have shape {list(pooled.shape)}")

    @property
    def _no_features(self) -> str:
        return (
            f"the model of {self.folder} does not give its pooled features, by timm's "
            "forward_features and forward_head, so there are no embeddings"
        )


def _data_config(format_: ImageFormat) -> dict[str, Any]:
    return {
        "input_size": (format_.channels, format_.size, format_.size),
        "mean": format_.mean,
        "std": format_.std,
        "interpolation": format_.interpolation,
        "crop_pct": format_.crop_pct,
        "crop_mode": "center",
    }


def save_bundle(
    folder: Path,
    network: nn.Module,
    format_: ImageFormat,
    class_names: Sequence[str],
    provenance: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Write a folder that ``timm.create_model("local-dir:...", pretrained=True)`` loads.

    A variant of what timm makes (see `trainers.models.architectures.Variant`) is one to plstore
    alone.

    Args:
        folder: Where; what is there is replaced.
        network: The model.
        format_: How images reach it.
        class_names: Of its outputs, in their order.
        provenance: What made it, for people: kept in config.json.

    Returns:
        The hash of the weights' file.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    save_for_hf(
        network.cpu().to(memory_format=torch.contiguous_format),  # safetensors wants it plain
        str(temporary),
        model_config={
            "label_names": list(class_names),
            "scaled_decoding": format_.scaled_decoding,
            **variant_of(network).recorded(),
            **({"provenance": dict(provenance)} if provenance else {}),
        },
        data_config=_data_config(format_),
        safe_serialization=True,
    )
    digest = file_hash(temporary / WEIGHTS)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return digest


def keep_bundle(
    store: Store,
    teacher_id: str,
    network: nn.Module,
    format_: ImageFormat,
    output_names: Sequence[str],
    provenance: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, str]:
    """Keep a model in a store; return its name there and the hash of its weights."""
    name = f"checkpoints/{teacher_id}"
    target = store.checkpoint(name)
    if not is_remote(target):
        return name, save_bundle(target, network, format_, output_names, provenance)
    local = store.cache_folder("checkpoints", teacher_id)
    digest = save_bundle(local, network, format_, output_names, provenance)
    put_folder(local, target)
    return name, digest


def fetch_bundle(store: Store, name: str, digest: str) -> Path:
    """Return the local folder of a model of a store, its weights checked.

    Raises:
        StoreError: If they are gone, or not those that were kept.
    """
    place, cache = store.checkpoint(name), store.cache_folder("checkpoints")
    folder = get_folder(place, cache)
    if is_remote(place) and file_hash(folder / WEIGHTS) != digest:
        shutil.rmtree(folder)  # a copy of another store of that name
        folder = get_folder(place, cache)
    check_weights(folder, digest)
    return folder


def load_bundle(
    folder: Path, *, class_names: Sequence[str] | None = None, device: str = "cpu"
) -> Bundle:
    """Load a model from its folder, in evaluation mode.

    Args:
        folder: With config.json and model.safetensors, as `save_bundle` and timm write them.
        class_names: What its outputs are matched with, by name; its own unless given.
        device: "cpu" or a CUDA device.

    Raises:
        InputError: If a weight is missing or left over, counts of classes do not agree, its
            classes are others, or a value of its config is not as it must be.
    """
    config, output_names = read_config(folder)
    ours = output_names if class_names is None else tuple(class_names)
    order = match_names(output_names, ours, str(folder))
    network = load_network(folder, config, output_names)
    notes = list(config.notes)
    if order is not None:
        notes.append("its classes stand in another order than the store's: matched by name")
    return Bundle(
        folder=folder,
        network=network.to(device).to(memory_format=torch.channels_last).eval(),
        format=config.format,
        class_names=ours,
        output_names=output_names,
        order=None if order is None else torch.tensor(order, device=device),
        notes=tuple(notes),
    )


def load_teacher(store: Store, teacher: TeacherRecord, *, device: str) -> Bundle:
    """Load the model of a teacher, its outputs in the order of the store's classes.

    Raises:
        InputError: If it has none, as a fusion or imported labels.
        StoreError: If its weights are gone, or not those that were kept.
    """
    folder = _folder_of(store, teacher)
    bundle = load_bundle(folder, class_names=store.class_names, device=device)
    return replace(bundle, embeddings=(teacher.metrics or {}).get(EMBEDDINGS))


def _folder_of(store: Store, teacher: TeacherRecord) -> Path:
    """Return the local folder of a teacher's model, its weights checked."""
    if teacher.role == "pretrained":
        raise InputError(
            f"{teacher.teacher_id!r} of {store.root} has features and no classifier: models "
            "started from it; name one of those, a teacher or a student"
        )
    if teacher.checkpoint is None or teacher.checkpoint_hash is None:
        raise InputError(
            f"teacher {teacher.teacher_id!r} of {store.root} has labels and no model: its role "
            f"is {teacher.role!r}"
        )
    return fetch_bundle(store, teacher.checkpoint, teacher.checkpoint_hash)


def check_weights(folder: Path, digest: str) -> None:
    """Raise StoreError unless a folder's weights are those that a teacher was saved with."""
    if not (folder / WEIGHTS).is_file():
        raise StoreError(
            f"{folder / WEIGHTS} is gone, and the store says that it was trained. Restore it, "
            "or run the recipe in a new store"
        )
    found = file_hash(folder / WEIGHTS)
    if found != digest:
        raise StoreError(
            f"{folder / WEIGHTS} has hash {found}; the store recorded {digest}. The file was "
            "changed after training: restore it, or train again"
        )
