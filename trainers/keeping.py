"""A training whose result is kept: the model becomes a teacher of the store."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels import (
    Role,
    TeacherRecord,
    ViewLabels,
    add_teacher,
    check_teacher_id,
    find_teacher,
)
from plstore.loaders import import_backend, open_split, pick_backend
from plstore.seeds import Purpose, torch_seed
from plstore.store import Store
from plstore.version import __version__
from plstore.views import View
from trainers.checking import check_models
from trainers.events import Listener, Teller, unheard
from trainers.model import fetch_bundle, keep_bundle
from trainers.pretrained import weights_hash
from trainers.recipe import Recipe
from trainers.train import Trained, Training, pick_device, teacher_record, train
from trainers.view_labels import ViewLabeling, make_view_labels
from trainers.watching import Watch

DECIDING: Final = ("train", "optimizer", "schedule", "loss", "noise")
"""Sections that a training follows from, beside its model's."""


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

    One that was stopped goes on from its last checkpoint.
    """
    known = find_teacher(store, place.teacher_id)
    if known is not None and known.checkpoint and known.checkpoint_hash:
        fetch_bundle(store, known.checkpoint, known.checkpoint_hash)  # or says that it is gone
        return known
    partial = store.cache_folder("partial", f"{place.identity}.pt")
    backend = pick_backend(training.backend, training.device)
    title, steps = f"train {place.title}, fed by {backend}", training.course.steps
    with teller.task(title, steps) as advance:
        shown = 0

        def on_step(done: int, loss: float) -> None:
            nonlocal shown
            advance(done - shown, f"loss {loss:.3f}" if done > shown else "")
            shown = done

        def on_look(step: int, accuracy: float) -> None:
            teller.say(f"  step {step} of {steps}: validation {accuracy:.2f} %")

        trained = train(training, partial, on_step, on_look)
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
    record = _keep(store, training, trained, place)
    partial.unlink(missing_ok=True)
    return record


def training_on(
    view: View,
    recipe: Recipe,
    run: Recipe,
    iteration: int,
    *,
    role: Role,
    seed: int,
    device: str,
    start: Path | None = None,
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
        store, place.teacher_id, trained.network, trained.format, store.class_names
    )
    rows = [
        {"run": place.teacher_id, "step": number, "name": name, "value": value}
        for number, name, value in trained.metrics
    ]
    store.append("runs", rows, identity=place.identity, step=place.step)
    record = teacher_record(
        training,
        trained,
        teacher_id=place.teacher_id,
        iteration=place.iteration,
        role=place.role,
        checkpoint=checkpoint,
        checkpoint_hash=digest,
    )
    add_teacher(store, record, identity=place.identity, step=place.step)
    return record


def train_on_view(
    view: View,
    recipe: Recipe,
    *,
    teacher_id: str | None = None,
    device: str = "auto",
    on_event: Listener = unheard,
) -> TeacherRecord:
    """Train one model on a view; it becomes a teacher of the view's store.

    A view with pseudo-labels gives a student: labeled and pseudo-labeled images in the recipe's
    ratio. One without gives a teacher, of as many images a step.

    Args:
        view: What to train on.
        recipe: As the iteration of the labels sees it; its `finetune` is not done.
        teacher_id: Its name; made of iteration and settings unless given.
        device: "auto", "cpu" or a CUDA device.
        on_event: Told of progress.

    Returns:
        The teacher; one that was trained in the very same way before is returned as it is.

    Raises:
        InputError: If the name is taken, or settings are not as they must be.
    """
    device, store = pick_device(device), view.store
    is_student = bool(view.record.counts.get("kept"))
    iteration = _iteration_of(view) if is_student else 0
    seen = recipe.at(iteration)
    identity = _identity(view, seen, iteration)
    name = teacher_id or f"t{iteration}-{identity[:8]}"
    _check_free(store, check_teacher_id(name), view, recipe)
    check_models(recipe, len(store.class_names))
    import_backend(pick_backend(seen.train.backend, device))
    training, teller = _training_of_view(view, recipe, device), Teller(on_event)
    if is_student and seen.label.views:
        labeling = _view_labeling(training, None)
        training = replace(training, labels=make_view_labels(labeling, teller))
    place = Place(
        teacher_id=name,
        iteration=iteration,
        role="student" if is_student else "teacher",
        identity=identity,
        step="train",
        title=name,
    )
    return train_and_keep(store, training, place, teller)


def label_views(
    view: View,
    recipe: Recipe,
    *,
    teacher_id: str | None = None,
    device: str = "auto",
    on_event: Listener = unheard,
) -> ViewLabels:
    """Let a teacher label the images that a student of a view will see, with their noise.

    They are the pseudo-labeled draws of the first `label.view_epochs` epochs of the training
    that `train_on_view` does with the recipe, pixel by pixel. Labels are kept in the store; a
    labeling that was stopped goes on, and one that was done is not done again. Give them to
    `plstore.load` with the same batches, noise, seed and format, or to no one: `train_on_view`
    finds them if the recipe has `label.views`.

    Args:
        view: With pseudo-labels.
        recipe: How the student is trained; of the section `label`: codec, topk, temperature and
            view_epochs.
        teacher_id: Who labels; whoever labeled the view unless given.
        device: "auto", "cpu" or a CUDA device.
        on_event: Told of progress.

    Raises:
        InputError: If the view has no pseudo-labels, or the teacher no model.
    """
    if not view.record.counts.get("kept"):
        raise InputError(
            f"{view.key} has no pseudo-labeled images; wanted the view of a student"
        )
    device = pick_device(device)
    training = _training_of_view(view, recipe, device)
    import_backend(pick_backend(training.backend, device))
    return make_view_labels(_view_labeling(training, teacher_id), Teller(on_event))


def _training_of_view(view: View, recipe: Recipe, device: str) -> Training:
    is_student = bool(view.record.counts.get("kept"))
    iteration = _iteration_of(view) if is_student else 0
    return training_on(
        view,
        recipe.at(iteration),
        recipe,
        iteration,
        role="student" if is_student else "teacher",
        seed=torch_seed(recipe.seed, Purpose.TRAINING, iteration),
        device=device,
    )


def _view_labeling(training: Training, teacher_id: str | None) -> ViewLabeling:
    view = training.view
    made = view.record.parameters
    named = [*made.get("teachers", ()), *([made["teacher_id"]] if "teacher_id" in made else ())]
    names = [str(name).partition("=")[2].partition("@")[0] or str(name) for name in named]
    if teacher_id is None and len(names) != 1:
        raise InputError(
            f"{view.key} has labels of {', '.join(names) or 'no one'}; name the teacher that "
            "labels its views"
        )
    teacher = find_teacher(view.store, teacher_id or names[0])
    if teacher is None:
        raise InputError(f"{view.store.root} has no teacher {teacher_id or names[0]!r}")
    return ViewLabeling(training=training, teacher=teacher, settings=training.recipe.label)


def _identity(view: View, recipe: Recipe, iteration: int) -> str:
    model = recipe.model_of(iteration)
    dump: dict[str, Any] = json.loads(recipe.model_dump_json())
    return value_hash(
        {
            "view": view.record.identity,
            "model": model.model_dump(mode="json"),
            **{name: dump[name] for name in DECIDING},
            "seed": recipe.seed,
            "start": weights_hash(model, model.architecture),
            "lora_rank": recipe.lora_rank(iteration),
            "code": __version__,
            **({"label": dump["label"]} if iteration and recipe.label.views else {}),
        }
    )


def _iteration_of(view: View) -> int:
    """Return the iteration of the labels of a view; 1 where it does not say."""
    names = view.record.parameters.get("teachers", ())
    numbers = [str(name).rpartition("@")[2] for name in names]
    known = [int(number) for number in numbers if number.isdigit()]
    return max([*known, int(view.record.parameters.get("iteration", 0)), 1])


def _check_free(store: Store, teacher_id: str, view: View, recipe: Recipe) -> None:
    known = find_teacher(store, teacher_id)
    if known is None:
        return
    same_view = (known.view, known.view_version) == (view.record.view, view.record.version)
    if not same_view or known.recipe_hash != recipe.hash:
        raise InputError(
            f"{store.root} has another teacher named {teacher_id!r}; name this one otherwise"
        )
