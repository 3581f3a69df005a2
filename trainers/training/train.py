"""Training of one model: a teacher, a student or the control. They differ in what they see.

Every random number of a step follows from (seed, step): the batch and its input noise by the
loader's plan, dropout and stochastic depth by a seed set before the step. So a training that
was stopped goes on from its last checkpoint and ends with the same weights, bit for bit, on the
same machine and number of threads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from time import monotonic
from typing import cast

import torch
from torch import nn

from plstore.errors import PlstoreError
from plstore.labels import Role, TeacherRecord, ViewLabels
from plstore.loaders import Batch, ImageFormat, Loader, load
from plstore.loaders.settings import check_device
from plstore.loaders.work import Backend
from plstore.seeds import Purpose, torch_seed
from plstore.views import View
from trainers.models.freezing import freeze_blocks
from trainers.models.lora import with_lora, without_lora
from trainers.models.model import build_model, image_format
from trainers.models.starting import take_backbone, take_weights
from trainers.recipe import Recipe
from trainers.sections import Model
from trainers.training.forward import Forward
from trainers.training.online import WEAK
from trainers.training.optimisation import Course, course_of
from trainers.training.processes import ALONE, Processes, synchronised
from trainers.training.recording import COUNTED, LOSS, NOT_REPLAYED, REPLACED, Metric, Recorder
from trainers.training.state import State
from trainers.training.watching import VALIDATION, Watch

STARTED_FROM = "started_from"
"""Of a model's `metrics`: the model of the store that it began with."""

_CHECKPOINT_SECONDS = 20.0
_METRIC_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Training:
    """What to train.

    Attributes:
        recipe: As the model's iteration sees it: optimizer, noise, and so on.
        run: The whole recipe, for the record.
        model: The model's settings, as a model of this iteration has them.
        view: What to train on.
        num_classes: Of the label space.
        labeled_batch: Labeled images a step; 0 for pseudo-labels alone.
        pseudo_batch: Pseudo-labeled images a step, 0 for teacher and control.
        seed: Of this training, not of the run.
        device: "cpu" or a CUDA device.
        lora_rank: Of low-rank updates, that alone are trained; None for all weights.
        start: Folder of a model whose weights it begins with; None as `model` says.
        started_from: Name of the model of the store that it begins with, for the record.
        is_backbone: Whether that has no classifier: it begins at random then.
        frozen_blocks: First blocks that stay as they are.
        watch: How validation is looked at meanwhile; it changes no weight.
        processes: That train it together; each has its share of every step's images.
        labels: Of the noised images of its first pseudo-labeled draws; None for those of the
            view alone.
    """

    recipe: Recipe
    run: Recipe
    model: Model
    view: View
    num_classes: int
    labeled_batch: int
    pseudo_batch: int
    seed: int
    device: str
    lora_rank: int | None = None
    start: Path | None = None
    started_from: str | None = None
    is_backbone: bool = False
    frozen_blocks: int = 0
    watch: Watch | None = None
    processes: Processes = ALONE
    labels: ViewLabels | None = None

    @cached_property
    def course(self) -> Course:
        """How long it is."""
        return course_of(self.recipe, self.view.record.num_labeled)

    @property
    def backend(self) -> Backend:
        """What feeds it: where it replays labels of views, what made their pixels."""
        if self.labels is not None:
            return cast("Backend", self.labels.label_set.backend)
        return self.recipe.train.backend

    def format(self) -> ImageFormat:
        """Return how images reach its model, which is made for that."""
        network = build_model(self.model, self.model.architecture, self.num_classes)
        return image_format(self.model, network)

    @property
    def is_online(self) -> bool:
        """Whether its pseudo-labels are its own."""
        return bool(self.pseudo_batch) and self.recipe.loss.pseudo_labels == "online"

    def loader(self, format_: ImageFormat, first_step: int, *, is_weak: bool = False) -> Loader:
        """Return the loader of its batches; of the same images with weak noise alone."""
        settings, noise = self.recipe.train, self.recipe.noise
        parts = noise.input_parts("pseudo")
        return load(
            self.view,
            labeled_batch=self.labeled_batch,
            pseudo_batch=self.pseudo_batch,
            image_format=format_,
            noise=noise.as_noise(),
            labeled_noise=noise.input_parts("labeled"),
            pseudo_noise=tuple(p for p in parts if p in WEAK) if is_weak else parts,
            seed=self.seed,
            first_step=first_step,
            shuffle=settings.shuffle,
            window=settings.window,
            device=self.device,
            backend=self.backend,
            num_threads=settings.threads,
            rank=self.processes.rank,
            world_size=self.processes.size,
            labels=self.labels,
        )


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
    def num_not_replayed(self) -> int:
        """Draws that had the view's label where that of their noised image was wanted."""
        return int(sum(value for _, name, value in self.metrics if name == NOT_REPLAYED))

    @property
    def summary(self) -> dict[str, float | str]:
        """What the table `teachers` keeps: the last loss, the input's backend and damage."""
        losses = [value for _, name, value in self.metrics if name == LOSS]
        last = {LOSS: losses[-1]} if losses else {}
        lacking = {NOT_REPLAYED: self.num_not_replayed} if self.num_not_replayed else {}
        return {**last, REPLACED: self.num_replaced, **lacking, "input/backend": self.backend}


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
    on_metric: Callable[[Metric], None] = lambda _: None,
) -> Trained:
    """Train a model, or go on from the checkpoint at `partial`.

    Args:
        training: What to train.
        partial: File for checkpoints of this training; removed by whoever keeps the result.
        on_step: Called after each step with (steps done, loss).
        on_look: Called with (steps done, accuracy) when validation was looked at.
        on_metric: Called with (steps done, name, value) of what is measured meanwhile.

    Raises:
        PlstoreError: If the loss is no longer finite.
    """
    network = _network(training)
    format_ = image_format(training.model, network)
    if training.lora_rank is not None:
        network = with_lora(network, training.lora_rank)
    processes = training.processes
    if training.recipe.train.sync_batch_norm:
        network = synchronised(network, processes, training.device)
    network = network.to(training.device).train()
    freeze_blocks(network, training.frozen_blocks)
    state = State(training.recipe, training.course, network, training.device)
    recorder = _recorder(training, on_metric)
    recorder.metrics += state.restore(partial, processes)
    on_step(state.step, float("nan"))
    loader = _loader(training, format_, state.step)
    if state.input is not None and state.input != loader.state_dict():
        raise PlstoreError(
            f"the images of {training.view.key}, or the labels of its views, changed since "
            f"{partial} was written: were some deleted? Delete that file to train this model "
            "from its start"
        )
    forward = Forward(
        training.recipe, training.seed, network, format_, training.device, processes
    )
    weak = _weak(training, format_, state.step)
    steps, batches, saved = training.course.steps, iter(loader), monotonic()
    while state.step < steps:
        with recorder.waiting():
            batch, again = next(batches), next(weak)
        _note_drops(recorder, state.step, batch)
        share = forward.step(state, batch, again)
        if training.is_online and state.step % _METRIC_STEPS == 0:
            recorder.note(state.step, COUNTED, 100 * share)
        del (
            batch,
            again,
        )  # freed here, it hands the GIL to the loader: that is no waiting for images
        recorder.step_done(state.step, state.last_loss, state.rate)
        on_step(state.step, state.last_loss)
        if _has_ended(training, state, format_, recorder, on_look):
            break
        is_due = monotonic() - saved > _CHECKPOINT_SECONDS and state.step < steps
        if is_due and processes.is_first:
            state.save(partial, loader.state_dict(), recorder.metrics)
            saved = monotonic()
    averaged = state.ema.module.eval()
    if training.lora_rank is not None:
        averaged = without_lora(averaged)
    return Trained(
        network=averaged, format=format_, metrics=recorder.metrics, backend=loader.backend
    )


def _recorder(training: Training, on_metric: Callable[[Metric], None]) -> Recorder:
    return Recorder(
        on_metric,
        every=_METRIC_STEPS,
        images=training.labeled_batch + training.pseudo_batch,
        steps_per_epoch=training.course.steps_per_epoch,
        device=training.device,
    )


def _loader(training: Training, format_: ImageFormat, first_step: int) -> Loader:
    """Return the loader; the first process of a machine copies the view for the others."""
    if training.processes.local_rank:
        training.processes.wait()
    loader = training.loader(format_, first_step)
    if not training.processes.local_rank:
        training.processes.wait()
    return loader


def _weak(training: Training, format_: ImageFormat, first_step: int) -> Iterator[Batch | None]:
    """Yield the batches with weak noise alone, where a student labels itself; else None."""
    if not training.is_online:
        return repeat(None)
    return iter(training.loader(format_, first_step, is_weak=True))


def _note_drops(recorder: Recorder, step: int, batch: Batch) -> None:
    """Count what a batch holds in the place of what it was to hold."""
    if batch.replaced:
        recorder.note(step, REPLACED, float(len(batch.replaced)))
    if batch.not_replayed:
        recorder.note(step, NOT_REPLAYED, float(batch.not_replayed))


def _network(training: Training) -> nn.Module:
    """Make the model, with weights to start from."""
    torch.manual_seed(torch_seed(training.seed, Purpose.MODEL_INIT))
    model = training.model
    network = build_model(model, model.architecture, training.num_classes)
    if training.start is not None and training.is_backbone:
        take_backbone(network, training.start)
    elif training.start is not None:
        take_weights(network, training.start, training.view.store.class_names)
    return network


def _has_ended(
    training: Training,
    state: State,
    format_: ImageFormat,
    recorder: Recorder,
    on_look: Callable[[int, float], None],
) -> bool:
    """Look at validation, if it is time to; return whether the training stopped gaining."""
    watch = training.watch
    if watch is None or not watch.is_due(state.step, training.course.steps):
        return False
    network = state.ema.module.eval()
    device, backend = training.device, training.recipe.train.backend
    accuracy = 0.0
    if training.processes.is_first:
        accuracy = watch.look(network, format_, device=device, backend=backend)
    accuracy = training.processes.share(accuracy)
    recorder.note(state.step, VALIDATION, accuracy)
    on_look(state.step, accuracy)
    return watch.has_stopped_gaining(recorder.metrics)


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
        architecture=training.model.architecture,
        checkpoint=checkpoint,
        checkpoint_hash=checkpoint_hash,
        preprocessing=vars(trained.format),
        metrics=trained.summary
        | ({} if training.started_from is None else {STARTED_FROM: training.started_from}),
        view=training.view.record.view,
        view_version=training.view.record.version,
        recipe=training.run.model_dump(mode="json"),
        recipe_hash=training.run.hash,
        seed=training.run.seed,
    )
