"""Batches on their way to a CUDA device: the next one is copied while one is looked at."""

from collections import deque
from collections.abc import Iterator

import torch

from plstore.loaders.work import Tensors


def on_device(batches: Iterator[Tensors], device: str) -> Iterator[Tensors]:
    """Yield batches with images and targets on a device, sample ids on the CPU.

    To a CUDA device they are copied from pinned memory, on a stream of their own, one batch
    ahead of the one that is yielded: the device copies and computes at the same time.

    Args:
        batches: Images, targets and sample ids, on the CPU.
        device: "cpu", which leaves them where they are, or a CUDA device.
    """
    if not device.startswith("cuda"):
        yield from batches
        return
    copier, begun = _Copier(device), deque[_Copy]()
    for batch in batches:
        begun.append(copier.begin(batch))
        if len(begun) > 1:
            yield begun.popleft().finished()
    while begun:
        yield begun.popleft().finished()


class _Copier:
    """Begins copies to a device on a stream of its own."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch's is

    def begin(self, batch: Tensors) -> "_Copy":
        images, targets, sample_ids = batch
        with torch.cuda.stream(self._stream):
            there = [
                (t if t.is_pinned() else t.pin_memory()).to(self._device, non_blocking=True)
                for t in (images, targets)
            ]
            return _Copy((there[0], there[1], sample_ids), self._stream.record_event())


class _Copy:
    """A batch that is being copied."""

    def __init__(self, batch: Tensors, is_there: torch.cuda.Event) -> None:
        self._batch, self._is_there = batch, is_there

    def finished(self) -> Tensors:
        """Return it, for use on the current stream."""
        images, targets, sample_ids = self._batch
        current = torch.cuda.current_stream(images.device)
        current.wait_event(self._is_there)
        for tensor in (images, targets):
            tensor.record_stream(current)  # its memory is not given away before it was used
        return images, targets, sample_ids
