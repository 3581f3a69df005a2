"""What is measured of a training while it runs: loss, speed, waiting, memory."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import torch

LOSS: Final = "train/loss"
RATE: Final = "train/learning_rate"
REPLACED: Final = "input/replaced_images"
NOT_REPLAYED: Final = "input/labels_not_replayed"
COUNTED: Final = "train/online_labels_counted"
SPEED: Final = "train/images_per_second"
WAITING: Final = "input/wait_share"
EPOCH: Final = "train/epoch_seconds"
MEMORY: Final = "train/peak_memory_bytes"

Metric = tuple[int, str, float]
"""Steps done, name, value."""


class Recorder:
    """Keeps the metrics of a training, and tells them as they come.

    Attributes:
        metrics: All of them, those of a checkpoint that was restored included.
    """

    def __init__(
        self,
        on_metric: Callable[[Metric], None],
        *,
        every: int,
        images: int,
        steps_per_epoch: float,
        device: str,
    ) -> None:
        """Record nothing yet.

        Args:
            on_metric: Called with each metric.
            every: Steps between two records.
            images: Of a step, of all processes.
            steps_per_epoch: Steps of a pass over the labeled images.
            device: "cpu" or a CUDA device: whose memory is meant.
        """
        self.metrics: list[Metric] = []
        self._on_metric, self._every, self._images = on_metric, every, images
        self._per_epoch, self._device = steps_per_epoch, device
        self._waited, self._steps, self._since = 0.0, 0, monotonic()

    def note(self, step: int, name: str, value: float) -> None:
        """Keep one metric."""
        metric = (step, name, value)
        self.metrics.append(metric)
        self._on_metric(metric)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time within as waiting for images."""
        start = monotonic()
        try:
            yield
        finally:
            self._waited += monotonic() - start

    def step_done(self, step: int, loss: float, rate: float) -> None:
        """Record, if it is time to, how the training does and how fast it is."""
        self._steps += 1
        if step % self._every:
            return
        seconds = max(monotonic() - self._since, 1e-9)
        self.note(step, LOSS, loss)
        self.note(step, RATE, rate)
        self.note(step, SPEED, self._steps * self._images / seconds)
        self.note(step, WAITING, self._waited / seconds)
        self.note(step, EPOCH, self._per_epoch * seconds / self._steps)
        self.note(step, MEMORY, float(peak_memory(self._device)))
        self._waited, self._steps, self._since = 0.0, 0, monotonic()


def peak_memory(device: str) -> int:
    """Return the most bytes so far: of tensors on a CUDA device, else of this process."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
