"""Training of one model: a teacher, a student or the control. They differ in what they see.

Every random number of a step follows from (seed, step): the batch and its input noise by the
loader's plan, dropout and stochastic depth by a seed set before the step. So a training that
was stopped goes on from its last checkpoint and ends with the same weights, bit for bit, on the
same machine and number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn

from plstore.errors import PlstoreError
from plstore.labels import Role, TeacherRecord
from plstore.loaders import ImageFormat, load
from plstore.loaders.settings import check_device
from plstore.scratch import put_in_place
from plstore.seeds import Purpose, torch_seed
from plstore.views import View
from trainers.lora import with_lora, without_lora
from trainers.losses import combined_cross_entropy
from trainers.model import Ema, build_model, image_format
from trainers.recipe import Recipe
from trainers.sections import Model
from trainers.watching import VALIDATION, Watch

_CHECKPOINT_SECONDS = 20.0
_METRIC_STEPS = 50
LOSS = "train/loss"
REPLACED = "input/replaced_images"


@dataclass(frozen=True, kw_only=True)
class Training:
    """What to train.

    Attributes:
        recipe: Optimizer, noise, and all else that its record keeps.
        model: The model's settings, as a model of this iteration has them.
        architecture: timm name.
        view: What to train on.
        num_classes: Of the label space.
        labeled_batch: Labeled images a step.
        pseudo_batch: Pseudo-labeled images a step, 0 for teacher and control.
        seed: Of this training, not of the run.
        device: "cpu" or a CUDA device.
        lora_rank: Of low-rank updates, that alone are trained; None for all weights.
        watch: How validation is looked at meanwhile; it changes no weight.
    """

    recipe: Recipe
    model: Model
    architecture: str
    view: View
    num_classes: int
    labeled_batch: int
    pseudo_batch: int
    seed: int
    device: str
    lora_rank: int | None = None
    watch: Watch | None = None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of it: the averaged model, metrics as (step, name, value), what fed it."""

    network: nn.Module
    format: ImageFormat
    metrics: list[tuple[int, str, float]]
    backend: str

    @property
    def num_replaced(self) -> int:
        """Draws of damaged images in whose place others were drawn."""
        return int(sum(value for _, name, value in self.metrics if name == REPLACED))

    @property
    def summary(self) -> dict[str, float | str]:
        """What the table `teachers` keeps: the last loss, the input's backend and damage."""
        losses = [value for _, name, value in self.metrics if name == LOSS]
        last = {LOSS: losses[-1]} if losses else {}
        return {**last, REPLACED: self.num_replaced, "input/backend": self.backend}


def pick_device(device: str) -> str:
    """Return "cuda" or "cpu" for "auto", else the device asked for.

    Raises:
        InputError: If it is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    return device


def train(
    training: Training,
    partial: Path,
    on_step: Callable[[int, float], None],
    on_look: Callable[[int, float], None] = lambda *_: None,
) -> Trained:
    """Train a model from scratch, or go on from the checkpoint at `partial`.

    Args:
        training: What to train.
        partial: File for checkpoints of this training; removed by whoever keeps the result.
        on_step: Called after each step with (steps done, loss).
        on_look: Called with (steps done, accuracy) when validation was looked at.

    Raises:
        PlstoreError: If the loss is no longer finite.
    """
    recipe, device = training.recipe.train, training.device
    torch.manual_seed(torch_seed(training.seed, Purpose.MODEL_INIT))
    network = build_model(training.model, training.architecture, training.num_classes)
    format_ = image_format(training.model, network)
    if training.lora_rank is not None:
        network = with_lora(network, training.lora_rank)
    network = network.to(device).train()
    state = _State(training, network)
    state.restore(partial)
    on_step(state.step, float("nan"))
    loader = load(
        training.view,
        labeled_batch=training.labeled_batch,
        pseudo_batch=training.pseudo_batch,
        image_format=format_,
        noise=training.recipe.noise.as_noise(),
        seed=training.seed,
        first_step=state.step,
        shuffle=recipe.shuffle,
        window=recipe.window,
        device=device,
        backend=recipe.backend,
        num_threads=recipe.threads,
    )
    if state.input is not None and state.input != loader.state_dict():
        raise PlstoreError(
            f"the images of {training.view.key} changed since {partial} was written: were some "
            "deleted? Delete that file to train this model from its start"
        )
    batches = iter(loader)
    saved = monotonic()
    while state.step < recipe.steps:
        batch = next(batches)
        if batch.replaced:
            state.metrics.append((state.step, REPLACED, float(len(batch.replaced))))
        torch.manual_seed(torch_seed(training.seed, Purpose.MODEL_NOISE, state.step))
        images = format_.normalise(batch.images)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda")):
            logits = network(images)
        loss = combined_cross_entropy(
            logits.float(),
            batch.targets,
            num_labeled=batch.num_labeled,
            label_smoothing=recipe.label_smoothing,
            weights=batch.weights,
        )
        state.update(loss)
        on_step(state.step, state.last_loss)
        if _has_ended(training, state, format_, on_look):
            break
        if monotonic() - saved > _CHECKPOINT_SECONDS and state.step < recipe.steps:
            state.save(partial, loader.state_dict())
            saved = monotonic()
    averaged = state.ema.module.eval()
    if training.lora_rank is not None:
        averaged = without_lora(averaged)
    return Trained(
        network=averaged, format=format_, metrics=state.metrics, backend=loader.backend
    )


def _has_ended(
    training: Training,
    state: "_State",
    format_: ImageFormat,
    on_look: Callable[[int, float], None],
) -> bool:
    """Look at validation, if it is time to; return whether the training stopped gaining."""
    watch, settings = training.watch, training.recipe.train
    if watch is None or not watch.is_due(state.step, settings.steps):
        return False
    network = state.ema.module.eval()
    device, backend = training.device, settings.backend
    accuracy = watch.look(network, format_, device=device, backend=backend)
    state.metrics.append((state.step, VALIDATION, accuracy))
    on_look(state.step, accuracy)
    return watch.has_stopped_gaining(state.metrics)


def teacher_record(
    training: Training,
    trained: Trained,
    *,
    teacher_id: str,
    iteration: int,
    role: Role,
    checkpoint: str,
    checkpoint_hash: str,
) -> TeacherRecord:
    """Return what the store keeps of a model that was trained, and of how."""
    return TeacherRecord(
        teacher_id=teacher_id,
        iteration=iteration,
        role=role,
        architecture=training.architecture,
        checkpoint=checkpoint,
        checkpoint_hash=checkpoint_hash,
        preprocessing=vars(trained.format),
        metrics=trained.summary,
        view=training.view.record.view,
        view_version=training.view.record.version,
        recipe=training.recipe.model_dump(mode="json"),
        recipe_hash=training.recipe.hash,
        seed=training.recipe.seed,
    )


class _State:
    """All that changes in training, and its checkpoint."""

    def __init__(self, training: Training, network: nn.Module) -> None:
        recipe = training.recipe.train
        self.network = network
        self.ema = Ema(network, decay=recipe.ema_decay)
        self.optimizer = create_optimizer_v2(
            network,
            opt=recipe.optimizer,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
        )
        self.schedule = CosineLRScheduler(
            self.optimizer,
            t_initial=recipe.steps,
            warmup_t=recipe.warmup_steps,
            warmup_lr_init=recipe.learning_rate / max(recipe.warmup_steps, 1),
            t_in_epochs=False,
        )
        self.step = 0
        self.last_loss = float("nan")
        self.metrics: list[tuple[int, str, float]] = []
        self.input: dict[str, Any] | None = None

    def update(self, loss: torch.Tensor) -> None:
        self.last_loss = float(loss.detach())
        if not torch.isfinite(loss):
            raise PlstoreError(
                f"the loss is {self.last_loss} at step {self.step}; lower "
                "train.learning_rate (--set train.learning_rate=...) and run again"
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's is
        self.optimizer.step()
        self.ema.update(self.network, step=self.step)
        self.step += 1
        self.schedule.step_update(self.step)
        if self.step % _METRIC_STEPS == 0:
            rate = float(self.optimizer.param_groups[0]["lr"])
            self.metrics += [
                (self.step, LOSS, self.last_loss),
                (self.step, "train/learning_rate", rate),
            ]

    def save(self, path: Path, loader_state: dict[str, Any]) -> None:
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "metrics": self.metrics,
            "input": loader_state,
        }
        with put_in_place(path) as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path) -> None:
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
        self.step = state["step"]
        self.metrics = state["metrics"]
        self.input = state["input"]
        self.schedule.step_update(self.step)
