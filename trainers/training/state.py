"""All that changes while a model trains, and its checkpoint."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plstore.errors import PlstoreError
from plstore.scratch import put_in_place
from trainers.models.model import Ema
from trainers.recipe import Recipe
from trainers.training.optimisation import Course, make_optimizer, make_schedule, peak_rate
from trainers.training.processes import ALONE, Processes
from trainers.training.recording import Metric


class State:
    """Weights, their average, optimizer, learning rate, metrics, and how many steps are done.

    Attributes:
        network: What is trained.
        ema: The average of its weights and batch statistics.
        step: Steps done.
        last_loss: Of the last of them.
        input: State of the loader at the checkpoint that was restored, None where none was.
    """

    def __init__(
        self,
        recipe: Recipe,
        course: Course,
        network: nn.Module,
        device: str,
        *,
        rate_of: str = "optimizer.learning_rate",
    ) -> None:
        """Begin.

        Args:
            recipe: As the model's iteration sees it.
            course: How long the training is.
            network: On the device, in training mode.
            device: "cpu" or a CUDA device.
            rate_of: The recipe's key for the learning rate, to be lowered where it diverges.
        """
        self._rate_of = rate_of
        rate = peak_rate(recipe.optimizer, recipe.train.labeled_batch)
        self.network = network
        self.ema = Ema(network, decay=recipe.train.ema_decay)
        self.optimizer = make_optimizer(network, recipe.optimizer, rate)
        self.schedule = make_schedule(recipe.schedule, self.optimizer, course, rate)
        self._scaler = torch.amp.GradScaler(
            device.partition(":")[0], enabled=recipe.train.precision == "float16"
        )
        self._clip = recipe.optimizer.clip_norm
        self.step = 0
        self.last_loss = float("nan")
        self.input: dict[str, Any] | None = None

    def begin(self) -> None:
        """Begin a step: no gradient, no loss."""
        self.optimizer.zero_grad()
        self.last_loss = 0.0

    def add(self, loss: torch.Tensor, mean: torch.Tensor, parts: int) -> None:
        """Add the gradient of one of a step's equal parts.

        Args:
            loss: Of this process's images.
            mean: Of the images of all processes.
            parts: Of the step.

        Raises:
            PlstoreError: If the loss is not finite: before weights are changed by it.
        """
        value = float(mean.detach())
        if not isfinite(value):
            raise PlstoreError(
                f"the loss is {value} at step {self.step}; lower {self._rate_of} "
                f"(--set {self._rate_of}=...) and run again"
            )
        self.last_loss += value / parts
        share = loss if parts == 1 else loss / parts
        self._scaler.scale(share).backward()  # type: ignore[no-untyped-call]  # torch's is

    def end(self) -> None:
        """Change the weights by the gradient, then their average and the learning rate.

        Raises:
            PlstoreError: If the gradient is not finite: before weights are changed by it.
        """
        self._scaler.unscale_(self.optimizer)
        self._check_gradients()
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.ema.update(self.network, step=self.step)
        self.step += 1
        self.schedule.step_update(self.step)

    @property
    def rate(self) -> float:
        """The learning rate of the step to come."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _check_gradients(self) -> None:
        """Raise PlstoreError, naming where, unless all gradients are finite.

        Of float16 the scaler skips a step whose gradients are not: its scale was too large.
        """
        named = [(n, p.grad) for n, p in self.network.named_parameters() if p.grad is not None]
        if self._scaler.is_enabled() or torch.isfinite(
            nn.utils.get_total_norm([gradient for _, gradient in named])
        ):
            return
        wrong = [n for n, gradient in named if not bool(torch.isfinite(gradient).all())]
        raise PlstoreError(
            f"the gradient of {wrong[0] if wrong else 'all weights together'} is not finite at "
            f"step {self.step}, with a loss of {self.last_loss:.4g}; lower {self._rate_of} "
            f"(--set {self._rate_of}=...), or set train.precision to float32, and run again"
        )

    def save(self, path: Path, loader_state: dict[str, Any], metrics: Sequence[Metric]) -> None:
        """Write a checkpoint; one of before is replaced as it is complete."""
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self.step,
            "metrics": list(metrics),
            "input": loader_state,
        }
        with put_in_place(path) as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path, processes: Processes = ALONE) -> list[Metric]:
        """Go on from a checkpoint, if there is one: the first process reads it for all.

        Returns:
            The metrics until then.

        Raises:
            PlstoreError: If it cannot be read.
        """
        read = _read(path) if processes.is_first else None
        state: dict[str, Any] | None = processes.share(read)
        if state is None:
            return []
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.input = state["input"]
        self.schedule.step_update(self.step)
        return [(step, name, value) for step, name, value in state["metrics"]]


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise PlstoreError(
            f"{path}, of a training that was stopped, cannot be read: {error}. Delete it to "
            "train this model from its start"
        ) from error
    return state
