"""Which backend executes a plan, and how it is started."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError, MissingExtraError
from plstore.loaders.noise import NoiseDraw
from plstore.loaders.scaling import decode_scales
from plstore.loaders.sources import Samples
from plstore.loaders.work import (
    Backend,
    BackendName,
    BackendSpec,
    ImageFormat,
    Tensors,
    Work,
)


@dataclass(frozen=True, kw_only=True)
class BackendEntry:
    """A backend: where it is, and what it needs.

    Attributes:
        module: Whose `run` is a `RunBackend`.
        needs: Modules that it imports.
        packages: What brings them.
        extra: Of plstore, that brings the packages.
    """

    module: str
    needs: tuple[str, ...]
    packages: str
    extra: str


class RunBackend(Protocol):
    """Executes a plan: yields the batches of a spec, in order."""

    def __call__(self, spec: BackendSpec) -> Iterator[Tensors]:
        """Yield images, targets and sample ids by step."""


BACKENDS: Final[dict[BackendName, BackendEntry]] = {
    "dali": BackendEntry(
        module="plstore.loaders.dali",
        needs=("nvidia.dali",),
        packages="nvidia-dali-cuda130",
        extra="dali",
    ),
    "threads": BackendEntry(
        module="plstore.loaders.threads",
        needs=("simplejpeg", "cv2"),
        packages="simplejpeg and opencv-python-headless",
        extra="train",
    ),
    "torch": BackendEntry(
        module="plstore.loaders.torch", needs=("timm",), packages="timm", extra="train"
    ),
}
_LOG = logging.getLogger(__name__)


def work_of(
    samples: Samples,
    windows: npt.NDArray[np.int32],
    image_format: ImageFormat,
    noise: NoiseDraw | None = None,
    replaced: tuple[int, ...] = (),
) -> Work:
    """Return what there is to do with samples.

    Args:
        samples: Images with labels and ids.
        windows: int32 [samples, 4]: top, left, bottom, right in source pixels.
        image_format: Of the result.
        noise: After resizing.
        replaced: As in `Batch`.
    """
    scales = decode_scales(samples.encoded, windows, image_format)
    widths, heights = -(-samples.widths // scales), -(-samples.heights // scales)
    return Work(
        rows=samples.rows,
        encoded=samples.encoded,
        targets=samples.targets,
        weights=samples.weights,
        sample_ids=samples.sample_ids,
        num_pixels=widths.astype(np.int64) * heights,
        windows=windows,
        scales=scales,
        noise=noise,
        replaced=replaced,
    )


def run_backend(backend: BackendName, spec: BackendSpec) -> Iterator[Tensors]:
    """Return the batches of a spec."""
    return import_backend(backend)(spec)


def import_backend(backend: BackendName) -> RunBackend:
    """Import a backend's libraries; return what runs it.

    Long work does this first: a library that is broken is found then, and not in the middle.
    """
    return cast("RunBackend", import_module(BACKENDS[backend].module).run)


def pick_backend(backend: Backend = "auto", device: str = "cpu") -> BackendName:
    """Return the backend to use.

    "auto" is DALI on a CUDA device, where it is installed; else threads, where their libraries
    are; else DALI; else torch. On the CPU threads are faster than DALI.

    Raises:
        MissingExtraError: If one is asked for that is not installed.
        InputError: If there is no such backend.
    """
    installed = [name for name, entry in BACKENDS.items() if all(map(_is_there, entry.needs))]
    if backend == "auto":
        order: tuple[BackendName, ...] = ("threads", "dali", "torch")
        if device.startswith("cuda"):
            order = ("dali", "threads", "torch")
        picked: BackendName = next((name for name in order if name in installed), "torch")
        _LOG.info("the loader's backend is %s, on %s", picked, device)
        return picked
    if backend not in BACKENDS:
        raise InputError(
            f"backend is {backend!r}; wanted 'auto', {', '.join(map(repr, BACKENDS))}"
        )
    if backend not in installed:
        entry = BACKENDS[backend]
        raise MissingExtraError(entry.packages, entry.extra, f"the loader backend {backend!r}")
    return backend


def _is_there(module: str) -> bool:
    package = module.partition(".")[0]
    return find_spec(package) is not None and find_spec(module) is not None
