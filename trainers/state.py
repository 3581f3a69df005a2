"""All that changes while a model trains, and its checkpoint."""

from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from plstore.errors import PlstoreError
from plstore.scratch import put_in_place
from trainers.model import Ema
from trainers.optimisation import Course, make_optimizer, make_schedule, peak_rate
from trainers.recipe import Recipe

LOSS: Final = "train/loss"
REPLACED: Final = "input/replaced_images"
NOT_REPLAYED: Final = "input/labels_not_replayed"
_RATE: Final = "train/learning_rate"
_METRIC_STEPS: Final = 50


class State:
    """Weights, their average, optimizer, learning rate, metrics, and how many steps are done.

    Attributes:
        network: What is trained.
        ema: The average of its weights and batch statistics.
        step: Steps done.
        last_loss: Of the last of them.
        metrics: (steps done, name, value) each.
        input: State of the loader at the checkpoint that was restored, None where none was.
    """

    def __init__(self, recipe: Recipe, course: Course, network: nn.Module, device: str) -> None:
        """Begin.

        Args:
            recipe: As the model's iteration sees it.
            course: How long the training is.
            network: On the device, in training mode.
            device: "cpu" or a CUDA device.
        """
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
        self.metrics: list[tuple[int, str, float]] = []
        self.input: dict[str, Any] | None = None

    def begin(self) -> None:
        """Begin a step: no gradient, no loss."""
        self.optimizer.zero_grad()
        self.last_loss = 0.0

    def add(self, loss: torch.Tensor, parts: int) -> None:
        """Add the gradient of one of a step's equal parts.

        Raises:
            PlstoreError: If the loss is not finite: before weights are changed by it.
        """
        value = float(loss.detach())
        if not torch.isfinite(loss):
            raise PlstoreError(
                f"the loss is {value} at step {self.step}; lower optimizer.learning_rate "
                "(--set optimizer.learning_rate=...) and run again"
            )
        self.last_loss += value / parts
        share = loss if parts == 1 else loss / parts
        self._scaler.scale(share).backward()  # type: ignore[no-untyped-call]  # torch's is

    def end(self) -> None:
        """Change the weights by the gradient, then their average and the learning rate."""
        if self._clip is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self._clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.ema.update(self.network, step=self.step)
        self.step += 1
        self.schedule.step_update(self.step)
        if self.step % _METRIC_STEPS == 0:
            rate = float(self.optimizer.param_groups[0]["lr"])
            self.metrics += [(self.step, LOSS, self.last_loss), (self.step, _RATE, rate)]

    def save(self, path: Path, loader_state: dict[str, Any]) -> None:
        """Write a checkpoint; one of before is replaced as it is complete."""
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self.step,
            "metrics": self.metrics,
            "input": loader_state,
        }
        with put_in_place(path) as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one.

        Raises:
            PlstoreError: If it cannot be read.
        """
        if not path.is_file():
            return
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise PlstoreError(
                f"{path}, of a training that was stopped, cannot be read: {error}. Delete it "
                "to train this model from its start"
            ) from error
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.metrics = state["metrics"]
        self.input = state["input"]
        self.schedule.step_update(self.step)
