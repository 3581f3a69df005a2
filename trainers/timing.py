"""How fast a model is here: one step of training and one look, timed."""

from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any, Final

import torch
from torch import nn

from trainers.losses import combined_cross_entropy

_LEAST_SECONDS: Final = 0.3
_MOST_STEPS: Final = 6
_SHARED: Final = 0.8  # what more threads bring, as a power of their number


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A model on a device: seconds an image to train and to look, bytes of its weights."""

    train_seconds: float
    clean_seconds: float
    num_bytes: int


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


def _timed(work: Any, device: str) -> float:  # noqa: ANN401  a function of torch
    """Return the seconds of the fastest of a few steps; of a slow one, of the only one.

    On the CPU one thread is timed by its own clock, which stands still while others have the
    core: threads that wait for each other on a busy machine would take 30 times as long.
    """
    on_cpu = not device.startswith("cuda")
    threads = torch.get_num_threads()
    clock = process_time if on_cpu else perf_counter
    if on_cpu:
        torch.set_num_threads(1)
    best, spent = float("inf"), 0.0
    try:
        for step in range(_MOST_STEPS + 1):
            start = clock()
            work()
            if not on_cpu:
                torch.cuda.synchronize()
            seconds = clock() - start
            spent += seconds
            best = min(best, seconds) if step else best
            if step and spent > _LEAST_SECONDS:
                break
    finally:
        torch.set_num_threads(threads)
    return best / threads**_SHARED if on_cpu else best
