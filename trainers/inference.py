"""A trained model looks at clean images: to label them, to be evaluated, to predict."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch

from plstore.errors import InputError
from plstore.loaders import Batch, ImageFormat, ImageSet, clean_batches
from plstore.loaders.clean import MAX_BATCH
from plstore.loaders.work import Backend
from trainers.model import Bundle

_ON_CPU: Final = (64, 16 << 20)  # most images of a batch, and bytes of their pixels
_ON_CUDA: Final = (512, 256 << 20)
_NO_MEMORY: Final = (
    *("out of memory", "can't allocate memory", "bad_alloc"),
    *("alloc_failed", "allocator_failure", "memory allocation"),
)
"""What torch, cuDNN, cuBLAS, nvJPEG and DALI say of a lack of memory, in lower case."""


class Look(NamedTuple):
    """What a model sees in one batch.

    Attributes:
        batch: The images.
        probs: float32 [batch, classes], on the CPU.
        embeddings: float32 [batch, features], on the CPU; None unless asked for.
    """

    batch: Batch
    probs: torch.Tensor
    embeddings: torch.Tensor | None


@dataclass
class BatchSize:
    """How many images a model sees at once: halved, for good, where memory does not hold them.

    Attributes:
        images: At least 1.
        on_halved: Called with the number before and after.
    """

    images: int = MAX_BATCH
    on_halved: Callable[[int, int], None] = lambda _, __: None

    def halve(self) -> None:
        """Take half as many, and give back what memory the last attempt took."""
        before, self.images = self.images, max(self.images // 2, 1)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.on_halved(before, self.images)


def first_batch(format_: ImageFormat, device: str) -> int:
    """Return how many images to show a model at once, before anything is known of it.

    On the CPU 64, where a larger batch is no faster; on a CUDA device 512, of which what does
    not fit is halved. Fewer of large images: their pixels, as bytes, are 16 MiB at most on the
    CPU, 256 MiB on a device.
    """
    most, room = _ON_CPU if device == "cpu" else _ON_CUDA
    return max(min(room // (format_.channels * format_.size**2), most), 1)


def looks(
    bundle: Bundle,
    images: ImageSet,
    *,
    device: str,
    backend: Backend = "auto",
    temperature: float = 1.0,
    batch_size: BatchSize | None = None,
    with_embeddings: bool = False,
) -> Iterator[Look]:
    """Yield what a model sees, batch by batch; a batch that memory does not hold is halved.

    Args:
        bundle: The model, in evaluation mode.
        images: What to look at, in order.
        device: "cpu" or a CUDA device.
        backend: Of the loader.
        temperature: Logits are divided by it.
        batch_size: Of all batches until it is halved; 256 unless given.
        with_embeddings: Whether the model's pooled features are wanted, see `Bundle.look`.

    Raises:
        InputError: If a single image does not fit into memory.
    """
    size = BatchSize() if batch_size is None else batch_size
    done = 0
    while done < len(images):
        try:
            for batch in clean_batches(
                images,
                bundle.format,
                device=device,
                backend=backend,
                batch_size=size.images,
                rows=np.arange(done, len(images)),
            ):
                seen = _look(bundle, batch, temperature, with_embeddings=with_embeddings)
                done += len(batch.images)
                yield seen
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            if size.images == 1:
                raise InputError(_too_large(bundle, device, error)) from error
        if done < len(images):  # the error is let go of by now, and the tensors of its frames
            size.halve()


def _look(bundle: Bundle, batch: Batch, temperature: float, *, with_embeddings: bool) -> Look:
    with torch.inference_mode():
        if with_embeddings:
            logits, pooled = bundle.look(batch.images)
        else:
            logits, pooled = bundle.logits(batch.images), None
        probs = torch.softmax(logits / temperature, dim=1).cpu()
        return Look(batch, probs, None if pooled is None else pooled.cpu())


def answers(
    bundle: Bundle,
    images: torch.Tensor,
    *,
    device: str,
    temperature: float = 1.0,
    batch_size: BatchSize | None = None,
) -> torch.Tensor:
    """Return what a model says of images that are made already.

    Args:
        bundle: The model, in evaluation mode.
        images: uint8 [images, channels, side, side], on its device; of another side than the
            model's they are resized there, with antialiasing, and gray ones become RGB.
        device: "cpu" or a CUDA device, for the error.
        temperature: Logits are divided by it.
        batch_size: Most images at once; halved where memory does not hold them.

    Returns:
        float32 [images, classes], on the CPU.

    Raises:
        InputError: If a single image does not fit into memory.
    """
    size, found, done = BatchSize() if batch_size is None else batch_size, [], 0
    while done < len(images):
        try:
            with torch.inference_mode():
                seen = _as_model_wants(images[done : done + size.images], bundle.format)
                found.append(torch.softmax(bundle.logits(seen) / temperature, dim=1).cpu())
            done += len(seen)
            continue
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            if size.images == 1:
                raise InputError(_too_large(bundle, device, error)) from error
        size.halve()
    return torch.cat(found)


def _as_model_wants(images: torch.Tensor, format_: ImageFormat) -> torch.Tensor:
    """Return images with the side and channels of a model, 0 to 255."""
    if images.shape[1] != format_.channels:
        images = images.expand(-1, format_.channels, -1, -1)
    if images.shape[2] == format_.size:
        return images
    resized = torch.nn.functional.interpolate(
        images.float(), size=format_.size, mode=format_.interpolation, antialias=True
    )
    return resized.clamp_(0, 255)  # bicubic leaves the range


def _lacks_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in _NO_MEMORY)


def _too_large(bundle: Bundle, device: str, error: Exception) -> str:
    elsewhere = "" if device == "cpu" else ", or take --device cpu"
    return (
        f"one image of {bundle.format.size} pixels does not fit into the memory of {device} "
        f"with the model of {bundle.folder}: {str(error) or type(error).__name__}. Free some"
        f"{elsewhere}"
    )


def probabilities(
    bundle: Bundle,
    images: ImageSet,
    *,
    device: str,
    backend: Backend = "auto",
    temperature: float = 1.0,
    on_images: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yield each clean batch with float32 [batch, classes] probabilities, on the CPU.

    Args:
        bundle: The model, in evaluation mode.
        images: What to look at, in order.
        device: "cpu" or a CUDA device.
        backend: Of the loader.
        temperature: Logits are divided by it.
        on_images: Called with the number of images just finished.

    Raises:
        InputError: If a single image does not fit into memory.
    """
    for seen in looks(bundle, images, device=device, backend=backend, temperature=temperature):
        yield seen.batch, seen.probs
        on_images(len(seen.batch.images))
