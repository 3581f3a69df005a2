"""How fast a model is here: one step of training and one look, timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter, thread_time
from typing import Final

import torch
from torch import nn

from trainers.inference.clean import precision
from trainers.training.forward import activations
from trainers.training.losses import combined_cross_entropy

DECODING: Final = 1.25  # measured: beside the model on the same cores
_LEAST_SECONDS: Final = 0.15
_MOST_STEPS: Final = 6
_SHARED: Final = 0.8  # what more threads bring, as a power of their number
_GAIN: Final = 1.25
"""How many times as fast another precision must be to be worth its rounding."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A model on a device: seconds an image to train and to look, bytes of its weights.

    `precision` is that of activations in training, as in a recipe's `train.precision`.
    """

    train_seconds: float
    clean_seconds: float
    num_bytes: int
    precision: str = "auto"


def cpu_precisions() -> tuple[str, ...]:
    """Return the precisions that may be the fastest to train with on this CPU.

    `bfloat16` is one where the processor multiplies such numbers itself (AMX, AVX512-BF16);
    where it does not, torch imitates it, many times slower. An older torch does not say what
    the processor has: it gets `auto` alone.
    """
    if not hasattr(torch.cpu, "get_capabilities"):
        return ("auto",)
    found = torch.cpu.get_capabilities()
    native = found.get("amx_bf16") or found.get("avx512_bf16")
    return ("auto", "bfloat16") if native else ("auto",)


def slower_on_a_share(shares: int, cores: int) -> float:
    """Return how many times as long as on all cores work takes on one of so many shares."""
    used = min(shares, cores)
    return float(used**_SHARED) * shares / used


def timed_batch(size: int) -> int:
    """Return how many images of so many pixels a side tell how fast a model is."""
    return 64 if size <= 64 else 16  # noqa: PLR2004  a batch of 16 small ones is half as fast


def time_model(
    network: nn.Module,
    *,
    classes: int,
    channels: int,
    size: int,
    batch: int,
    device: str,
    precisions: Sequence[str] = ("auto",),
) -> Timed:
    """Time a model on images of zeros; the best of up to six steps after a first one.

    Labeling is timed in the precision it has on the device, whatever training has.

    Args:
        network: The model; its weights are not changed.
        classes: Of its outputs.
        channels: Of its images.
        size: Of its images, pixels a side.
        batch: Images a step.
        device: "cpu" or a CUDA device.
        precisions: Of activations in training, as in a recipe: the first is what is said of
            the model, unless one of the others is 1.25 times as fast.
    """
    network = network.to(device).train()
    images = torch.zeros(batch, channels, size, size, device=device)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.full((batch, classes), 1 / classes, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)

    def train_step(lower: str) -> None:
        with activations(lower, device):
            logits = network(images)
        loss = combined_cross_entropy(
            logits.float(), targets, num_labeled=batch, label_smoothing=0.0
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's is
        optimizer.step()

    def clean_step() -> None:
        is_lower = precision(device) == "bfloat16"
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=is_lower):
            network(images)

    chosen, train_seconds = precisions[0], float("inf")
    for which in precisions:
        seconds = _timed(partial(train_step, which), device) / batch
        if seconds * _GAIN < train_seconds:
            chosen, train_seconds = which, seconds
    network.eval()
    return Timed(
        train_seconds=train_seconds,
        clean_seconds=_timed(clean_step, device) / batch,
        num_bytes=sum(value.nbytes for value in network.state_dict().values()),
        precision=chosen,
    )


def _timed(work: Callable[[], None], device: str) -> float:
    """Return the seconds of the fastest of a few steps; of a slow one, of the only one.

    On the CPU one thread is timed by its own clock, which stands still while others have the
    core: threads that wait for each other on a busy machine would take 30 times as long.
    """
    if device.startswith("cuda"):
        return _best(work, perf_counter, torch.cuda.synchronize)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = _best(work, thread_time, lambda: None)
        return alone / float(threads**_SHARED)
    finally:
        torch.set_num_threads(threads)


def _best(
    work: Callable[[], None], clock: Callable[[], float], wait: Callable[[], None]
) -> float:
    best, spent = float("inf"), 0.0
    for step in range(_MOST_STEPS + 1):
        start = clock()
        work()
        wait()
        seconds = clock() - start
        spent += seconds
        best = min(best, seconds) if step else best
        if step and spent > _LEAST_SECONDS:
            break
    return best
