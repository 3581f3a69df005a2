"""A training whose result is kept: the model becomes a teacher of the store."""

import json
from dataclasses import dataclass

from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels import Role, TeacherRecord, add_teacher, check_teacher_id, find_teacher
from plstore.loaders import import_backend, open_split, pick_backend
from plstore.seeds import Purpose, torch_seed
from plstore.store import Store
from plstore.version import __version__
from plstore.views import View
from trainers.events import Listener, Teller, unheard
from trainers.model import check_models, fetch_bundle, keep_bundle
from trainers.pretrained import weights_hash
from trainers.recipe import Recipe
from trainers.train import Trained, Training, pick_device, teacher_record, train
from trainers.watching import Watch


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
    settings = training.recipe.train
    title = f"train {place.title}, fed by {pick_backend(settings.backend, training.device)}"
    with teller.task(title, settings.steps) as advance:
        shown = 0

        def on_step(done: int, loss: float) -> None:
            nonlocal shown
            advance(done - shown, f"loss {loss:.3f}" if done > shown else "")
            shown = done

        def on_look(step: int, accuracy: float) -> None:
            teller.say(f"  step {step} of {settings.steps}: validation {accuracy:.2f} %")

        trained = train(training, partial, on_step, on_look)
    if trained.num_replaced:
        teller.say(
            f"  {trained.num_replaced} draws of damaged images were replaced by others; "
            "'plstore verify' names the images"
        )
    record = _keep(store, training, trained, place)
    partial.unlink(missing_ok=True)
    return record


def training_on(
    view: View,
    recipe: Recipe,
    iteration: int,
    *,
    is_student: bool,
    seed: int,
    device: str,
) -> Training:
    """Return the training of a model on a view, as many images a step whatever it sees.

    A student has labeled and pseudo-labeled images in the recipe's ratio; a teacher and a
    control have labeled ones alone.
    """
    settings = recipe.train
    return Training(
        recipe=recipe,
        model=recipe.model_of(iteration),
        architecture=recipe.model.student(iteration),
        view=view,
        num_classes=len(view.store.class_names),
        labeled_batch=settings.labeled_batch + (0 if is_student else settings.pseudo_batch),
        pseudo_batch=settings.pseudo_batch if is_student else 0,
        seed=seed,
        device=device,
        lora_rank=recipe.lora_rank(iteration),
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
        recipe: Of which `model`, `train`, `noise` and `seed` count; the architecture is that of
            the student of the labels' iteration.
        teacher_id: Its name; made of iteration and settings unless given.
        device: "auto", "cpu" or a CUDA device.
        on_event: Told of progress.

    Returns:
        The teacher; one that was trained in the very same way before is returned as it is.

    Raises:
        InputError: If the name is taken, or settings are not as they must be.
    """
    device = pick_device(device)
    store = view.store
    is_student = bool(view.record.counts.get("kept"))
    iteration = _iteration_of(view) if is_student else 0
    identity = _identity(view, recipe, iteration)
    name = teacher_id or f"t{iteration}-{identity[:8]}"
    _check_free(store, check_teacher_id(name), view, recipe)
    check_models(recipe, len(store.class_names))
    import_backend(pick_backend(recipe.train.backend, device))
    training = training_on(
        view,
        recipe,
        iteration,
        is_student=is_student,
        seed=torch_seed(recipe.seed, Purpose.TRAINING, iteration),
        device=device,
    )
    place = Place(
        teacher_id=name,
        iteration=iteration,
        role="student" if is_student else "teacher",
        identity=identity,
        step="train",
        title=name,
    )
    return train_and_keep(store, training, place, Teller(on_event))


def _identity(view: View, recipe: Recipe, iteration: int) -> str:
    model, architecture = recipe.model_of(iteration), recipe.model.student(iteration)
    return value_hash(
        {
            "view": view.record.identity,
            "architecture": architecture,
            "model": json.loads(model.model_dump_json()),
            "train": json.loads(recipe.train.model_dump_json()),
            "noise": json.loads(recipe.noise.model_dump_json()),
            "seed": recipe.seed,
            "start": weights_hash(model, architecture),
            "lora_rank": recipe.lora_rank(iteration),
            "code": __version__,
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
