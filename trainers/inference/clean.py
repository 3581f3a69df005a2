"""A trained model looks at clean images: to label them, to be evaluated, to predict."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import torch

from plstore.errors import InputError
from plstore.loaders import Batch, ImageFormat, ImageSet, clean_stream
from plstore.loaders.clean import MAX_BATCH, ImageNoise
from plstore.loaders.settings import check_whole
from plstore.loaders.work import Backend
from plstore.machine import freed_memory_kept
from trainers.inference.portions import Portions
from trainers.models.model import Bundle

Batching = int | Literal["auto"]
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


def check_batch(batch: object) -> None:
    """Check how many images are shown at once.

    Raises:
        InputError: If it is neither "auto" nor a whole number above 0.
    """
    if isinstance(batch, str) and batch != "auto":
        raise InputError(f"batch is {batch!r}; wanted 'auto' or a whole number above 0")
    if batch != "auto":
        check_whole("batch", batch, low=1)


def batch_size_of(batch: Batching, format_: ImageFormat, device: str) -> BatchSize:
    """Return how many images labeling shows a model at once, to begin with.

    "auto" is 256 on the CPU, so that labels are the same bits as ever, and `first_batch` on a
    CUDA device.
    """
    if batch != "auto":
        return BatchSize(batch)
    return BatchSize(MAX_BATCH if device == "cpu" else first_batch(format_, device))


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
        device: "cpu" or a CUDA device, where the model computes in bfloat16, by autocast, if
            the device can; what comes of it is float32 on both.
        backend: Of the loader.
        temperature: Logits are divided by it.
        batch_size: Of all batches until it is halved; 256 unless given.
        with_embeddings: Whether the model's pooled features are wanted, see `Bundle.look`.

    Raises:
        InputError: If a single image does not fit into memory.
    """
    for (look,) in common_looks(
        [Seer(bundle, temperature, with_embeddings=with_embeddings)],
        Portions(iter([images])),
        device=device,
        backend=backend,
        batch_size=batch_size,
    ):
        yield look


@dataclass(frozen=True)
class Seer:
    """A model that looks at images.

    Attributes:
        bundle: In evaluation mode.
        temperature: Logits are divided by it.
        with_embeddings: Whether its pooled features are wanted, see `Bundle.look`.
        before: Called with a batch before it is looked at.
    """

    bundle: Bundle
    temperature: float = 1.0
    with_embeddings: bool = False
    before: Callable[[Batch], None] = lambda _: None


def common_looks(
    seers: Sequence[Seer],
    portions: Portions,
    *,
    reader: int = 0,
    device: str,
    backend: Backend = "auto",
    batch_size: BatchSize | None = None,
    noise: ImageNoise | None = None,
) -> Iterator[list[Look]]:
    """Yield what each of several models sees, batch by batch, in images decoded once for all.

    Args:
        seers: Models that see the same pixels: of one `decoding`.
        portions: What to look at, in order.
        reader: Of the portions.
        device: As in `looks`; so are the others.
        backend: Of the loader.
        batch_size: Of all batches until it is halved.
        noise: Makes the images not clean.

    Raises:
        InputError: If a single image does not fit into memory.
    """
    with room_to_look(device):
        size = BatchSize() if batch_size is None else batch_size
        yield from _halving_looks(seers, portions, reader, device, backend, size, noise)


def _halving_looks(  # noqa: PLR0917  as its caller has them
    seers: Sequence[Seer],
    portions: Portions,
    reader: int,
    device: str,
    backend: Backend,
    size: BatchSize,
    noise: ImageNoise | None,
) -> Iterator[list[Look]]:
    first, is_done = seers[0].bundle, False
    while not is_done:
        try:
            with closing(
                clean_stream(
                    portions.left(reader),
                    first.format,
                    device=device,
                    backend=backend,
                    batch_size=size.images,
                    noise=noise,
                )
            ) as batches:
                for batch in batches:
                    seen = [_look(seer, batch, device) for seer in seers]
                    portions.done(len(batch.images), reader)
                    yield seen
            is_done = True
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            if size.images == 1:
                raise InputError(_too_large(first, device, error)) from error
        if not is_done:  # the error is let go of by now, and the tensors of its frames
            size.halve()


def room_to_look(device: str) -> AbstractContextManager[None]:
    """Return what long looking happens in: on the CPU, memory is kept from batch to batch."""
    return freed_memory_kept() if device == "cpu" else nullcontext()


def decoding(format_: ImageFormat) -> tuple[object, ...]:
    """Return what decoded pixels depend on: all of a format but its normalisation."""
    return (
        format_.size,
        format_.channels,
        format_.interpolation,
        format_.crop_pct,
        format_.scaled_decoding,
    )


def _look(seer: Seer, batch: Batch, device: str) -> Look:
    seer.before(batch)
    with torch.inference_mode():
        with torch.autocast("cuda", torch.bfloat16, enabled=precision(device) == "bfloat16"):
            if seer.with_embeddings:
                logits, pooled = seer.bundle.look(batch.images)
            else:
                logits, pooled = seer.bundle.logits(batch.images), None
        probs = torch.softmax(logits / seer.temperature, dim=1).cpu()
        return Look(batch, probs, None if pooled is None else pooled.cpu())


def precision(device: str) -> Literal["bfloat16", "float32"]:
    """Return in what a model computes on a device: bfloat16 where a CUDA device has it."""
    if not device.startswith("cuda"):
        return "float32"
    with torch.cuda.device(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"


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
