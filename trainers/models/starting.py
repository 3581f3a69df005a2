"""A network starts from the weights of a model that a store has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from safetensors.torch import load_file
from torch import nn

from plstore.errors import InputError
from trainers.models.checkpoint import WEIGHTS, read_config
from trainers.models.pretrained import classifier_prefixes

_SHOWN: Final = 4


def take_weights(network: nn.Module, folder: Path, class_names: Sequence[str]) -> None:
    """Load all weights of a kept model into one of the same architecture and classes.

    Args:
        network: Made by `build_model`.
        folder: As `save_bundle` writes it.
        class_names: Of the network's outputs, in their order.

    Raises:
        InputError: If they are those of another architecture, or of other classes.
    """
    _, theirs = read_config(folder)
    if tuple(theirs) != tuple(class_names):
        raise InputError(
            f"the model of {folder} has classes {', '.join(theirs[:_SHOWN])} in that order, "
            f"the store {', '.join(class_names[:_SHOWN])}; a model that starts from its "
            "weights needs the same. Set method.students to scratch"
        )
    try:
        network.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except RuntimeError as error:
        raise InputError(
            f"the weights of {folder} are of another model than the one that starts from them "
            f"({type(network).__name__}): {str(error).splitlines()[1].strip()}. A warm student "
            "has its teacher's architecture and resolution"
        ) from error


def take_backbone(network: nn.Module, folder: Path) -> None:
    """Load the weights of a network without a classifier into one with one, or without.

    Args:
        network: Made by `build_model`, of the same architecture and variant.
        folder: With `model.safetensors`, as `save_bundle` writes it.

    Raises:
        InputError: If they are those of another network.
    """
    try:
        missing, left = network.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    except RuntimeError as error:
        missing, left = [str(error).splitlines()[-1].strip()], []
    wrong = [name for name in missing if not name.startswith(classifier_prefixes(network))]
    if wrong or left:
        raise InputError(
            f"the weights of {folder} are of another network than {type(network).__name__}, "
            f"which is to start from them: {', '.join([*wrong, *left][:_SHOWN])}"
        )
