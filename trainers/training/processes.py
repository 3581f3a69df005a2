"""Several processes train one model: `torchrun`, and so Slurm and Kubernetes.

Every process begins the same program. The first does all there is to do; the others wait for
it, and take part in what it shares: a training, a labeling. They find each other by the
variables that torchrun sets.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from plstore.errors import InputError, PlstoreError

T = TypeVar("T")

_PATIENCE: Final = timedelta(days=7)  # others wait while the first labels
_LOST: Final = ("connection", "peer", "socket", "timed out", "timeout", "nccl")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes that work together, as one of them sees them.

    Attributes:
        rank: Of this one, from 0.
        size: How many there are.
        local_rank: Of this one among those of its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def device(self, device: str) -> str:
        """Return this process's device, of the kind that all of them use."""
        return f"cuda:{self.local_rank}" if device == "cuda" and not self.is_alone else device

    def share(self, value: T | None = None) -> T:
        """Return the first process's value to all of them.

        Raises:
            PlstoreError: If a process ended meanwhile.
        """
        if self.is_alone:
            return cast("T", value)
        box = [value]
        self._together(lambda: dist.broadcast_object_list(box, src=0))
        return cast("T", box[0])

    def wait(self) -> None:
        """Wait until all are here."""
        self.share(None)
        if not self.is_alone:
            self._together(dist.barrier)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a number over all processes."""
        if self.is_alone:
            return value
        total = value.detach().clone()
        self._together(lambda: dist.all_reduce(total))
        return total / self.size

    def _together(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except RuntimeError as error:
            if not any(word in str(error).lower() for word in _LOST):
                raise
            raise PlstoreError(
                f"process {self.rank} of {self.size} lost another: it was ended, or says why "
                f"it ended ({str(error).splitlines()[0][:160]}). Begin all of them again: the "
                "work goes on from its last checkpoint"
            ) from error


ALONE: Final = Processes()


class Joined:
    """A network as the processes train it together: gradients are averages over all of them."""

    def __init__(
        self, network: nn.Module, forward: Callable[[Tensor], Tensor], processes: Processes
    ) -> None:
        """Join; every process then has the weights of the first."""
        self._forward, self._parallel = forward, None
        if not processes.is_alone:
            devices = [p.device.index for p in network.parameters() if p.device.type == "cuda"]
            self._parallel = DistributedDataParallel(
                network, device_ids=devices[:1] or None, gradient_as_bucket_view=True
            )
            self._forward = self._parallel

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits, float [images, classes]."""
        return self._forward(images)

    def part(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Return the context of a part of a step: gradients are averaged after the last."""
        if self._parallel is None or is_last:
            return nullcontext()
        return self._parallel.no_sync()


def synchronised(network: nn.Module, processes: Processes, device: str) -> nn.Module:
    """Return a network whose batch norms see the images of all processes.

    Raises:
        InputError: On the CPU, where torch has none.
    """
    if processes.is_alone:
        return network
    if not device.startswith("cuda"):
        raise InputError(
            "train.sync_batch_norm is for GPUs: on the CPU batch norms see the images of their "
            "own process, as those of a step in as many parts (train.accumulate) do"
        )
    return cast("nn.Module", convert_sync_batchnorm(network))


def join(device: str = "auto") -> Processes:
    """Return the processes that torchrun began, or the one that there is.

    Args:
        device: "auto", "cpu" or a CUDA device: gradients of a GPU travel by NCCL, else by Gloo.

    Raises:
        InputError: If the variables of torchrun are not as it sets them.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    found = {name: os.environ.get(name, "") for name in names}
    numbers = [found[name] for name in names[:3]]
    if not all(number.isdecimal() for number in numbers) or not all(found.values()):
        said = ", ".join(f"{name}={value!r}" for name, value in found.items())
        raise InputError(
            f"WORLD_SIZE is {size!r}, and the variables of torchrun are {said}; wanted all of "
            "them: begin with 'torchrun --nproc-per-node N -m plstore run ...'"
        )
    rank, count, local = map(int, numbers)
    uses_cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if uses_cuda:
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        kind = "cpu:gloo,cuda:nccl" if uses_cuda else "gloo"
        dist.init_process_group(kind, timeout=_PATIENCE)
    return Processes(rank=rank, size=count, local_rank=local)


def leave() -> None:
    """End what `join` began."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
