"""Data sets of the `datasets` library: a folder, the hub, or what came from it before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa

from plstore.errors import InputError
from plstore.reach import why_hub_is_out_of_reach

_ANSWERS = ("401", "403", "404")  # the hub is there, and says no: the library tells why


def open_split(name: str, split: str, streaming: bool) -> Any:  # noqa: ANN401, FBT001  a Dataset, untyped
    """Return a split of a data set: from a folder, from the hub, or from the hub's cache.

    Raises:
        InputError: If there is none.
    """
    with told_as_input(f"cannot open split {split!r} of the data set {name!r}"):
        if Path(name, "dataset_dict.json").is_file():
            return datasets.load_from_disk(name)[split]
        if Path(name, "state.json").is_file():
            part = datasets.load_from_disk(name)
            if split != str(part.split):
                raise InputError(
                    f"{name} holds one split, {part.split}; found {split!r}. Save the splits "
                    "as a DatasetDict to import several"
                )
            return part
        if Path(name).exists():
            return datasets.load_dataset(name, split=split, streaming=streaming)
        return _open_of_hub(name, split, streaming=streaming)


def _open_of_hub(name: str, split: str, *, streaming: bool) -> Any:  # noqa: ANN401
    _check_name(name)
    why = why_hub_is_out_of_reach(name, "README.md", kind="dataset")
    if why is None or any(code in why for code in _ANSWERS):
        return datasets.load_dataset(name, split=split, streaming=streaming)
    offline = datasets.DownloadConfig(local_files_only=True)
    try:
        with _offline():
            return datasets.load_dataset(name, split=split, download_config=offline)
    except Exception as error:  # each part of the library raises its own
        raise InputError(
            f"there is no file or folder {name!r}. If it is meant to be a data set of the hub: "
            f"that cannot be reached ({why}), and its cache has none of that name. Where there "
            f"is a network, 'hf download {name} --repo-type dataset --local-dir FOLDER' brings "
            "it; then name the FOLDER"
        ) from error


def _check_name(name: str) -> None:
    """Stop at what can be no data set of the hub: a path of this machine, mistyped."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise InputError(f"there is no file or folder {name!r}") from None


@contextmanager
def _offline() -> Iterator[None]:
    """Let the library look into its cache alone: it would try the network for half a minute."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def told_as_input(what: str) -> Iterator[None]:
    """Say what was done when the library finds its data wrong."""
    try:
        yield
    except InputError:
        raise
    except (
        OSError,
        ValueError,  # Arrow's too
        KeyError,
        TypeError,
        pa.ArrowNotImplementedError,
        datasets.exceptions.DatasetsError,
    ) as error:
        raise InputError(f"{what}: {error}") from error
