"""A training whose result is kept: the model becomes a teacher of the store."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plstore.errors import InputError, StoreError
from plstore.labels import (
    Role,
    TeacherRecord,
    add_teacher,
    find_teacher,
)
from plstore.loaders import open_split, pick_backend
from plstore.store import Store
from plstore.version import __version__
from plstore.views import View
from trainers.events import Measured, Teller
from trainers.inference.clean import room_to_look
from trainers.models.model import fetch_bundle, keep_bundle
from trainers.recipe import Recipe
from trainers.training.pretraining import Pretraining, pretrain
from trainers.training.processes import ALONE, Processes
from trainers.training.recording import LOSS, Metric
from trainers.training.train import Trained, Training, teacher_record, train
from trainers.training.watching import Watch

_DECIDING: Final = ("train", "optimizer", "schedule", "loss", "noise")


def deciding_values(recipe: Recipe) -> dict[str, Any]:
    """Return the sections that a training follows from, beside its model's.

    The noise of a teacher that labels is not in them: it is of labels, not of weights.
    """
    dump: dict[str, Any] = json.loads(recipe.model_dump_json())
    values = {name: dump[name] for name in _DECIDING}
    del values["noise"]["teacher"]
    return values


@dataclass(frozen=True, kw_only=True)
class Place:
    """As what a model is kept.

    Attributes:
        teacher_id: Its name.
        iteration: Of the labels that it was trained on; 0 where there were none.
        role: In its run.
        identity: Of the training: one that is kept twice is there once.
        step: Which kind of work it was, for the lineage.
        title: In words.
    """

    teacher_id: str
    iteration: int
    role: Role
    identity: str
    step: str
    title: str


def train_and_keep(
    store: Store, training: Training, place: Place, teller: Teller
) -> TeacherRecord:
    """Train a model and keep it; one that is kept is not trained again.

    One that was stopped goes on from its last checkpoint. Of several processes the first keeps
    it, and all of them return it.
    """
    known = _known(store, place)
    if known is not None:
        return known
    partial = store.cache_folder("partial", f"{place.identity}.pt")
    backend = pick_backend(training.backend, training.device)
    title, steps = f"train {place.title}, fed by {backend}", training.course.steps
    with teller.task(title, steps) as advance, room_to_look(training.device):
        shown = 0

        def on_step(done: int, loss: float) -> None:
            nonlocal shown
            advance(done - shown, f"loss {loss:.3f}" if done > shown else "")
            shown = done

        def on_look(step: int, accuracy: float) -> None:
            teller.say(f"  step {step} of {steps}: validation {accuracy:.2f} %")

        def on_metric(metric: Metric) -> None:
            step, name, value = metric
            teller.tell(Measured(model=place.teacher_id, step=step, name=name, value=value))

        trained = train(training, partial, on_step, on_look, on_metric)
    if trained.num_replaced:
        teller.say(
            f"  {trained.num_replaced} draws of damaged images were replaced by others; "
            "'plstore verify' names the images"
        )
    if trained.num_not_replayed:
        teller.say(
            f"  {trained.num_not_replayed} draws had the label of their clean image: that of "
            "their view is of another image, or of one that was deleted"
        )
    if training.processes.is_first:
        _keep(store, training, trained, place)
        partial.unlink(missing_ok=True)
    training.processes.wait()
    record = find_teacher(store, place.teacher_id)
    if record is None:
        raise StoreError(f"{store.root} has lost teacher {place.teacher_id!r}")
    return record


def pretrain_and_keep(
    store: Store, training: Pretraining, place: Place, teller: Teller
) -> TeacherRecord:
    """Train a network without labels and keep it; one that is kept is not trained again."""
    known = _known(store, place)
    if known is not None:
        return known
    partial = store.cache_folder("partial", f"{place.identity}.pt")
    steps = training.recipe.pretrain.steps
    with teller.task(f"pretrain {place.title}", steps) as advance:
        shown = 0

        def on_step(done: int, loss: float) -> None:
            nonlocal shown
            advance(done - shown, f"loss {loss:.3f}" if done > shown else "")
            shown = done

        def on_metric(metric: Metric) -> None:
            step, name, value = metric
            teller.tell(Measured(model=place.teacher_id, step=step, name=name, value=value))

        def on_look(step: int, accuracy: float) -> None:
            teller.say(
                f"  step {step} of {steps}: validation {accuracy:.2f} %, linear on its features"
            )

        made = pretrain(training, partial, on_step, on_look, on_metric)
    recipe = training.recipe
    provenance = _provenance(place, recipe) | {"images_version": training.images_version}
    checkpoint, digest = keep_bundle(
        store, place.teacher_id, made.network, made.format, (), provenance
    )
    record = TeacherRecord(
        teacher_id=place.teacher_id,
        iteration=place.iteration,
        role=place.role,
        architecture=recipe.model.architecture,
        checkpoint=checkpoint,
        checkpoint_hash=digest,
        preprocessing=vars(made.format),
        metrics={} if made.loss is None else {LOSS: made.loss},
        recipe=recipe.model_dump(mode="json"),
        recipe_hash=recipe.hash,
        seed=recipe.seed,
    )
    _record(store, record, made.metrics, place)
    partial.unlink(missing_ok=True)
    return record


def _known(store: Store, place: Place) -> TeacherRecord | None:
    """Return what is kept already, its weights checked; None if it is to be trained."""
    known = find_teacher(store, place.teacher_id)
    if known is None or not known.checkpoint or not known.checkpoint_hash:
        return None
    fetch_bundle(store, known.checkpoint, known.checkpoint_hash)  # or says that it is gone
    return known


def training_on(  # noqa: PLR0913  one keyword per choice of the step
    view: View,
    recipe: Recipe,
    run: Recipe,
    iteration: int,
    *,
    role: Role,
    seed: int,
    device: str,
    start: Path | None = None,
    processes: Processes = ALONE,
) -> Training:
    """Return the training of a model on a view, as many images a step whatever it sees.

    A student has labeled and pseudo-labeled images in the recipe's ratio, or the latter alone;
    a teacher and a control have labeled ones alone.

    Args:
        view: What to train on.
        recipe: As the iteration sees it.
        run: The whole recipe, for the record.
        iteration: Of the model.
        role: Students learn from pseudo-labels too.
        seed: Of this training.
        device: "cpu" or a CUDA device.
        start: Folder of a model whose weights it begins with.
        processes: That train it together.

    Raises:
        InputError: If a student has a ratio of 0.
    """
    settings = recipe.train
    labeled, pseudo = settings.labeled_batch, settings.pseudo_batch
    is_student, is_control = role == "student", role == "control"
    if is_student and not pseudo:
        raise InputError(
            f"train.ratio is 0 for student {iteration}, which would learn from labels alone; "
            "wanted 1 or more (0 is for the teacher: iteration.0.train.ratio)"
        )
    if not is_student:
        labeled, pseudo = labeled + pseudo, 0
    elif settings.images == "pseudo":
        labeled = 0
    return Training(
        recipe=recipe,
        run=run,
        model=recipe.model_of(iteration, is_control=is_control),
        view=view,
        num_classes=len(view.store.class_names),
        labeled_batch=labeled,
        pseudo_batch=pseudo,
        seed=seed,
        device=device,
        lora_rank=recipe.lora_rank(iteration),
        start=start,
        watch=_watch(view, recipe),
        processes=processes,
    )


def _watch(view: View, recipe: Recipe) -> Watch | None:
    """Return how validation is looked at, None where there is none, or it is not wanted."""
    settings, version = recipe.train, view.record.pins["images"]
    if not settings.looks or not view.store.count_images("validation", version=version):
        return None
    decided = view.record.pins.get("corrections")
    images = open_split(view.store, "validation", version=version, corrections=decided)
    return Watch(images=images, looks=settings.looks, patience=settings.patience)


def _keep(store: Store, training: Training, trained: Trained, place: Place) -> TeacherRecord:
    checkpoint, digest = keep_bundle(
        store,
        place.teacher_id,
        trained.network,
        trained.format,
        store.class_names,
        _provenance(place, training.run) | _of_view(training.view),
    )
    record = teacher_record(
        training,
        trained,
        teacher_id=place.teacher_id,
        iteration=place.iteration,
        role=place.role,
        checkpoint=checkpoint,
        checkpoint_hash=digest,
    )
    _record(store, record, trained.metrics, place)
    return record


def _record(
    store: Store, record: TeacherRecord, metrics: Sequence[Metric], place: Place
) -> None:
    """Add a model's metrics to `runs`, then the model: its row says that all is there."""
    rows = [
        {"run": place.teacher_id, "step": number, "name": name, "value": value}
        for number, name, value in metrics
    ]
    store.append("runs", rows, identity=place.identity, step=place.step)
    add_teacher(store, record, identity=place.identity, step=place.step)


def _provenance(place: Place, run: Recipe) -> dict[str, Any]:
    """Return what made a model: enough to find its row and its recipe again."""
    return {
        "teacher_id": place.teacher_id,
        "role": place.role,
        "iteration": place.iteration,
        "recipe_hash": run.hash,
        "seed": run.seed,
        "code_version": __version__,
    }


def _of_view(view: View) -> dict[str, Any]:
    return {"view": view.key, "pins": dict(view.record.pins)}
