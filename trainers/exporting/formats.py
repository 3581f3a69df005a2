"""The kinds of an export: each writes a file, and says what the file gives for images."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from plstore.errors import InputError, MissingExtraError
from trainers.exporting.network import (
    CHECKED,
    INPUT,
    OUTPUT,
    Deployed,
    expected,
    sample_pixels,
)
from trainers.models.checkpoint import CONFIG, WEIGHTS
from trainers.models.model import Bundle, load_bundle

ModelKind = Literal["timm", "onnx", "torch"]

ONNX_FILE: Final = "model.onnx"
TORCH_FILE: Final = "model.pt2"
ABOUT: Final = "export.json"
"""In the folder, and of this name among the files of a .pt2: what the model takes and gives."""

TOLERANCE: Final = 1e-4
"""Largest difference of a probability that an export may have."""

_EXAMPLES: Final = 2  # a batch of 1 would be taken for a constant
_NEEDED: Final = ("onnx", "onnxruntime", "onnxscript")

Floats = npt.NDArray[np.float32]
Runner = Callable[[npt.NDArray[np.uint8]], Floats]


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """What an export of a model wrote.

    Attributes:
        folder: With the model, README.md and export.json.
        kind: What it is for.
        file: Of the model in it; of timm's folder the weights.
        num_bytes: Of the folder.
        largest_difference: Of any probability, 0 to 1, from what plstore itself gives, over
            random images in batches of 1, 2 and 7.
    """

    folder: Path
    kind: ModelKind
    file: Path
    num_bytes: int
    largest_difference: float


def write_timm(bundle: Bundle, folder: Path, about: Mapping[str, Any]) -> Runner:
    """Copy the model folder, byte for byte."""
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(bundle.folder / name, folder / name)
    again = load_bundle(folder, class_names=about["class_names"])
    return lambda pixels: expected(again, torch.from_numpy(pixels))


def write_onnx(bundle: Bundle, folder: Path, about: Mapping[str, Any]) -> Runner:
    """Write `model.onnx`; where it has over 2 GB, its weights are in `model.onnx.data`."""
    _check_onnx()
    import onnx
    import onnxruntime

    path = folder / ONNX_FILE
    with _exporting(bundle, "ONNX"):
        program = torch.onnx.export(
            Deployed(bundle),
            (sample_pixels(bundle, _EXAMPLES),),
            dynamo=True,
            dynamic_shapes={INPUT: {0: "batch"}},
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export gave no program")
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # traces of code: paths of this machine
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()}
        program.model.metadata_props.update(texts)
        program.save(path)
        onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(pixels: npt.NDArray[np.uint8]) -> Floats:
        (found,) = session.run([OUTPUT], {INPUT: pixels})
        return np.asarray(found, np.float32)

    return run


def write_torch(bundle: Bundle, folder: Path, about: Mapping[str, Any]) -> Runner:
    """Write `model.pt2`, a program of torch.export."""
    path = folder / TORCH_FILE
    with _exporting(bundle, "a program of torch.export"):
        program = torch.export.export(
            Deployed(bundle),
            (sample_pixels(bundle, _EXAMPLES),),
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
        )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        torch.export.save(program, path, extra_files={ABOUT: json.dumps(about)})
    again = torch.export.load(path).module()

    def run(pixels: npt.NDArray[np.uint8]) -> Floats:
        with torch.inference_mode():
            found: Floats = again(torch.from_numpy(pixels)).numpy()
        return found

    return run


WRITERS: Final[
    dict[ModelKind, tuple[str, Callable[[Bundle, Path, Mapping[str, Any]], Runner]]]
] = {
    "timm": (WEIGHTS, write_timm),
    "onnx": (ONNX_FILE, write_onnx),
    "torch": (TORCH_FILE, write_torch),
}
"""By kind: the model's file, and what writes it and returns what it gives for pixels."""


def difference(bundle: Bundle, run: Runner) -> float:
    """Return the largest difference of a probability from what plstore itself gives."""
    largest = 0.0
    for num_images in CHECKED:
        pixels = sample_pixels(bundle, num_images)
        wanted, found = expected(bundle, pixels), run(pixels.numpy())
        if found.shape != wanted.shape or not np.isfinite(found).all():
            return float("inf")
        largest = max(largest, float(np.abs(found - wanted).max()))
    return largest


@contextmanager
def _exporting(bundle: Bundle, what: str) -> Iterator[None]:
    """Say which network cannot be exported, and what can be done."""
    try:
        yield
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the model of {bundle.folder} ({type(bundle.network).__name__}) cannot be "
            f"exported as {what}: {first}. Export it as timm: that is a copy"
        ) from error


def _check_onnx() -> None:
    for name in _NEEDED:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise MissingExtraError(name, "onnx", "exporting a model as ONNX") from error
