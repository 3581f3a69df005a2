"""What goes into corruptions and perturbations: square images of 8 bits, each with its id."""

from collections.abc import Collection, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError

_NUM_AXES: Final = 4

ImageBatch: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]
"""Sample ids, int64 [images], and pixels, uint8 [images, size, size, channels]."""


def check_batch(batch: ImageBatch) -> ImageBatch:
    """Return a batch as it came.

    Raises:
        InputError: If the ids are not int64 [images] of 0 or more, at least one, or there are
            not as many square images of uint8 and 1 or 3 channels.
    """
    ids, pixels = batch
    if ids.dtype != np.int64 or ids.ndim != 1 or not ids.size or (ids < 0).any():
        raise InputError(
            f"sample ids are {ids.dtype} {list(ids.shape)}; wanted int64 [images] of 0 or "
            "more, at least one"
        )
    if len(pixels) != len(ids):
        raise InputError(
            f"{len(pixels)} images came with {len(ids)} sample ids; wanted one each"
        )
    shape = pixels.shape
    is_square = pixels.ndim == _NUM_AXES and shape[1] == shape[2] > 0 and shape[3] in {1, 3}
    if pixels.dtype != np.uint8 or not is_square:
        raise InputError(
            f"images are {pixels.dtype} {list(shape)}; wanted uint8 [images, size, size, "
            "channels] with 1 or 3 channels"
        )
    return batch


def check_known(what: str, names: Sequence[str], known: Collection[str]) -> None:
    """Check names against those that there are.

    Raises:
        InputError: If one is unknown, comes twice, or there is none; the message lists the
            known.
    """
    unknown = [name for name in names if name not in known]
    if unknown or not names or len(set(names)) != len(names):
        found = ", ".join(map(repr, unknown or names)) or "none"
        raise InputError(
            f"{what} is {found}; wanted one or more, each once, of {', '.join(known)}"
        )
