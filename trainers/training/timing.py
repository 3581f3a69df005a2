"""How fast a model is here: one step of training and one look, timed."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Final

import torch
from torch import nn

from trainers.training.losses import combined_cross_entropy

DECODING: Final = 1.25  # measured: beside the model on the same cores
_LEAST_SECONDS: Final = 0.15
_MOST_STEPS: Final = 6
_SHARED: Final = 0.8  # what more threads bring, as a power of their number


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A model on a device: seconds an image to train and to look, bytes of its weights."""

    train_seconds: float
    clean_seconds: float
    num_bytes: int


def timed_batch(size: int) -> int:
    """Return how many images of so many pixels a side tell how fast a model is."""
    return 64 if size <= 64 else 16  # noqa: PLR2004  a batch of 16 small ones is half as fast


def time_model(
    network: nn.Module, *, classes: int, channels: int, size: int, batch: int, device: str
) -> Timed:
    """Time a model on images of zeros; the best of up to six steps after a first one.

    Args:
        network: The model; its weights are not changed.
        classes: Of its outputs.
        channels: Of its images.
        size: Of its images, pixels a side.
        batch: Images a step.
        device: "cpu" or a CUDA device.
    """
    network = network.to(device).train()
    images = torch.zeros(batch, channels, size, size, device=device)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.full((batch, classes), 1 / classes, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)

    def train_step() -> None:
        loss = combined_cross_entropy(
            network(images), targets, num_labeled=batch, label_smoothing=0.0
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's is
        optimizer.step()

    def clean_step() -> None:
        with torch.inference_mode():
            network(images)

    train_seconds = _timed(train_step, device) / batch
    network.eval()
    return Timed(
        train_seconds=train_seconds,
        clean_seconds=_timed(clean_step, device) / batch,
        num_bytes=sum(value.nbytes for value in network.state_dict().values()),
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
