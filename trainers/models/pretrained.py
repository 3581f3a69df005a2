"""Weights to start from: timm's, from a cache or the network, or those of a file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import timm
import torch
from safetensors.torch import save_file
from timm.models import PretrainedCfg
from torch import nn

from plstore.errors import InputError
from plstore.fingerprint import file_hash
from plstore.reach import hub_endpoint, why_hub_is_out_of_reach, why_url_is_out_of_reach
from plstore.scratch import put_in_place
from trainers.models.checkpoint import CONFIG, WEIGHTS, stored_shapes
from trainers.sections import Model

_HUB_FILES: Final = (WEIGHTS, "pytorch_model.bin")
_PICKLES: Final = (".pth", ".pt", ".bin")
_WRAPPERS: Final = ("model_ema", "state_dict", "model")  # of what trainers save around weights
_SHOWN: Final = 4


def starting_weights(model: Model, architecture: str) -> Mapping[str, Any] | None:
    """Return where timm is to load from, for `pretrained_cfg_overlay`; None for its own way.

    What is in a cache is taken from there, without a question to the network.

    Raises:
        InputError: If there are none, or a network would be needed and does not answer within
            6 seconds.
    """
    if model.weights is not None:
        return {"file": str(weights_file(model.weights, architecture))}
    if not model.pretrained:
        return None
    config = timm.get_pretrained_cfg(architecture)
    if config is None or not config.has_weights:
        raise InputError(
            f"timm has no weights for {architecture!r}; leave --weights hub out, or bring some "
            "with --weights"
        )
    if config.hf_hub_id:
        return _from_hub(config, architecture)
    _check_url(config, architecture)
    return None


def weights_file(place: str, architecture: str) -> Path:
    """Return the file of weights that a recipe names, itself or by its folder.

    A pickle of torch is read without running its code, and kept as safetensors in the cache.

    Raises:
        InputError: If there is none, or a pickle holds anything but weights.
    """
    path = Path(place)
    names = [f"{architecture}.safetensors", WEIGHTS]
    names += [f"{architecture}{ending}" for ending in _PICKLES]
    there = [path] if path.is_file() else [path / n for n in names if (path / n).is_file()]
    if not there or there[0].suffix not in {".safetensors", *_PICKLES}:
        raise InputError(
            f"--weights is {place!r}; wanted a .safetensors or .pth file, or a folder with "
            f"{names[0]} or {WEIGHTS}"
        )
    return there[0] if there[0].suffix == ".safetensors" else as_safetensors(there[0])


def as_safetensors(path: Path) -> Path:
    """Return a file of safetensors with the weights of a pickle of torch.

    Raises:
        InputError: If it holds anything but weights, by name, or cannot be read.
    """
    target = _cache() / f"{file_hash(path)}.safetensors"
    if target.is_file():
        return target
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as weights of torch: {str(error).splitlines()[0]}. Only "
            "weights are read, no code: save its state_dict()"
        ) from error
    for key in _WRAPPERS:
        found = found[key] if isinstance(found, Mapping) and key in found else found
    weights = dict(found) if isinstance(found, Mapping) else {}
    if not weights or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        kinds = sorted({type(value).__name__ for value in weights.values()} - {"Tensor"})
        raise InputError(
            f"{path} holds {', '.join(kinds) or type(found).__name__}; wanted weights by name, "
            "as state_dict() gives them"
        )
    plain = {name.removeprefix("module."): w.contiguous() for name, w in weights.items()}
    with put_in_place(target) as temporary:
        save_file(plain, temporary)
    return target


def _cache() -> Path:
    home = os.environ.get("PLSTORE_CACHE") or Path.home() / ".cache" / "plstore"
    folder = Path(home, "weights")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def architecture_of(place: str) -> str | None:
    """Return which timm model weights are of, by config.json or by name; None if nothing says.

    A file `resnet50.safetensors`, a folder `resnet50`, or timm's folder with `architecture`.
    """
    path = Path(place)
    folder = path if path.is_dir() else path.parent
    said = _config_of(folder).get("architecture")
    files = sorted(f for f in folder.iterdir() if f.suffix in {".safetensors", *_PICKLES})
    names = [said, path.stem, *(file.stem for file in files), folder.resolve().name]
    return next((name for name in names if name and timm.is_model(name)), None)


def _config_of(folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return config if isinstance(config, dict) else {}


def weights_hash(model: Model, architecture: str) -> str | None:
    """Return the hash of the file of weights that a recipe names, None where it names none."""
    if model.weights is None:
        return None
    return file_hash(weights_file(model.weights, architecture))


def start_identity(model: Model, architecture: str) -> str | None:
    """Return what the weights are that a recipe starts from; None where they are random.

    The hash of a file, or timm's name of what it brings.
    """
    if model.weights is not None:
        return weights_hash(model, architecture)
    config = timm.get_pretrained_cfg(architecture)
    if not model.pretrained or config is None:
        return None
    return str(config.hf_hub_id or config.url)


def check_start(model: Model, network: nn.Module, architecture: str) -> None:
    """Check that a recipe's file of weights has all of a model's, but for its classifier.

    Raises:
        InputError: If one is missing: it would start at random, without a word. If they are of
            a model for small images, and the recipe's is none: they fit, and see other strides.
    """
    if model.weights is None:
        return
    path = weights_file(model.weights, architecture)
    if _config_of(path.parent).get("small_images") and not model.small_images:
        raise InputError(
            f"{path} has the weights of a model for small images, by {CONFIG} beside it; set "
            "model.small_images to true"
        )
    stored = stored_shapes(path)
    missing = [
        name
        for name in network.state_dict()
        if name not in stored and not name.startswith(classifier_prefixes(network))
    ]
    if missing:
        raise InputError(
            f"{path} lacks {len(missing)} weights of {architecture!r}, such as "
            f"{', '.join(missing[:_SHOWN])}; it has {', '.join(sorted(stored)[:_SHOWN])}. "
            "Wanted a file of the same model, as timm writes it"
        )


def classifier_prefixes(network: nn.Module) -> tuple[str, ...]:
    """Return how the names of a timm model's weights begin that are of its classifier."""
    heads: Any = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))


def _from_hub(config: PretrainedCfg, architecture: str) -> Mapping[str, Any] | None:
    import huggingface_hub

    name, _, revision = config.hf_hub_id.partition("@")
    files = (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES
    for file in files:
        cached = huggingface_hub.try_to_load_from_cache(name, file, revision=revision or None)
        if isinstance(cached, str):
            return {"file": cached, "custom_load": config.custom_load}
    reason = why_hub_is_out_of_reach(name, files[0], revision=revision or None)
    if reason is not None:
        cache = huggingface_hub.constants.HF_HUB_CACHE
        raise InputError(
            f"the weights of {architecture!r} are not in the cache {cache}, and cannot be got "
            f"from {hub_endpoint()}: {reason}. Where there is a network, run 'hf download "
            f"{name} {files[0]} --local-dir FOLDER', bring the folder here and name it with "
            "--weights FOLDER; or copy that machine's cache here "
            "(HF_HOME names its place); or leave --weights hub out"
        )
    return None


def _check_url(config: PretrainedCfg, architecture: str) -> None:
    url = config.url if isinstance(config.url, str) else config.url[0]
    cached = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(url))  # noqa: PTH119  of a URL
    if cached.is_file():
        return
    reason = why_url_is_out_of_reach(url)
    if reason is not None:
        raise InputError(
            f"the weights of {architecture!r} cannot be got from {url}: {reason}. Download "
            f"them where there is a network and put them at {cached} (TORCH_HOME names its "
            "place); or leave --weights hub out"
        )
