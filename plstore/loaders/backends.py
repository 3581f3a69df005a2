"""Which backend executes a plan, and how it is started."""

import logging
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Final

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError, MissingExtraError
from plstore.loaders.noise import NoiseDraw
from plstore.loaders.sources import Samples
from plstore.loaders.work import Backend, BackendName, BackendSpec, Pixels, Work

_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "dali": ("nvidia.dali",),
    "threads": ("simplejpeg", "cv2"),
    "torch": ("timm",),
}
_EXTRAS: Final = {
    "dali": ("nvidia-dali-cuda130", "dali"),
    "threads": ("simplejpeg and opencv-python-headless", "train"),
    "torch": ("timm", "train"),
}
_LOG = logging.getLogger(__name__)


def work_of(
    samples: Samples,
    windows: npt.NDArray[np.int32],
    noise: NoiseDraw | None = None,
    replaced: tuple[int, ...] = (),
) -> Work:
    """Return what there is to do with samples."""
    return Work(
        rows=samples.rows,
        encoded=samples.encoded,
        targets=samples.targets,
        sample_ids=samples.sample_ids,
        num_pixels=samples.widths.astype(np.int64) * samples.heights,
        windows=windows,
        noise=noise,
        replaced=replaced,
    )


def run_backend(backend: BackendName, spec: BackendSpec) -> Iterator[Pixels]:
    """Return the batches of a spec."""
    return import_backend(backend)(spec)


def import_backend(backend: BackendName) -> Callable[[BackendSpec], Iterator[Pixels]]:
    """Import a backend's libraries; return what runs it.

    Long work does this first: a library that is broken is found then, and not in the middle.
    """
    if backend == "dali":
        from plstore.loaders.dali import run
    elif backend == "threads":
        from plstore.loaders.threads import run
    else:
        from plstore.loaders.pillow import run
    return run


def pick_backend(backend: Backend = "auto", device: str = "cpu") -> BackendName:
    """Return the backend to use.

    "auto" is DALI on a CUDA device, where it is installed; else threads, where their libraries
    are; else DALI; else torch. On the CPU threads are faster than DALI.

    Raises:
        MissingExtraError: If one is asked for that is not installed.
        InputError: If there is no such backend.
    """
    installed = [name for name, needs in _NEEDS.items() if all(map(_is_there, needs))]
    if backend == "auto":
        order: tuple[BackendName, ...] = ("threads", "dali", "torch")
        if device.startswith("cuda"):
            order = ("dali", "threads", "torch")
        picked: BackendName = next((name for name in order if name in installed), "torch")
        _LOG.info("the loader's backend is %s, on %s", picked, device)
        return picked
    if backend not in _NEEDS:
        raise InputError(
            f"backend is {backend!r}; wanted 'auto', {', '.join(map(repr, _NEEDS))}"
        )
    if backend not in installed:
        package, extra = _EXTRAS[backend]
        raise MissingExtraError(package, extra, f"the loader backend {backend!r}")
    return backend


def _is_there(module: str) -> bool:
    package = module.partition(".")[0]
    return find_spec(package) is not None and find_spec(module) is not None
