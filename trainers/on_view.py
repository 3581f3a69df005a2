"""One model is trained on a view that is there: teacher or student, outside of a run."""

from dataclasses import replace

from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.labels import (
    TeacherRecord,
    ViewLabels,
    check_teacher_id,
    find_teacher,
)
from plstore.loaders import import_backend, pick_backend
from plstore.seeds import Purpose, torch_seed
from plstore.store import Store
from plstore.version import __version__
from plstore.views import View
from trainers.events import Listener, Teller, unheard
from trainers.labeling.view_labels import ViewLabeling, make_view_labels
from trainers.models.pretrained import weights_hash
from trainers.recipe import Recipe
from trainers.training.checking import check_models
from trainers.training.keeping import Place, deciding_values, train_and_keep, training_on
from trainers.training.processes import ALONE, Processes
from trainers.training.train import Training, pick_device


def train_on_view(
    view: View,
    recipe: Recipe,
    *,
    teacher_id: str | None = None,
    device: str = "auto",
    on_event: Listener = unheard,
    processes: Processes = ALONE,
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
        processes: That train it together, each calling this; see
            `trainers.training.processes.join`.

    Returns:
        The teacher; one that was trained in the very same way before is returned as it is.

    Raises:
        InputError: If the name is taken, or settings are not as they must be.
    """
    device = processes.device(pick_device(device))
    store = view.store
    is_student = bool(view.record.counts.get("kept"))
    iteration = _iteration_of(view) if is_student else 0
    seen = recipe.at(iteration)
    identity = _identity(view, seen, iteration)
    name = teacher_id or f"t{iteration}-{identity[:8]}"
    _check_free(store, check_teacher_id(name), view, recipe)
    check_models(recipe, len(store.class_names))
    import_backend(pick_backend(seen.train.backend, device))
    training = _training_of_view(view, recipe, device, processes)
    teller = Teller(on_event)
    if is_student and seen.label.views:
        training = replace(training, labels=_labels_of_views(training, teller))
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


def _labels_of_views(training: Training, teller: Teller) -> ViewLabels:
    """Return the labels of a student's views: the first process makes them, the others find."""
    labeling, processes = _view_labeling(training, None), training.processes
    if not processes.is_first:
        processes.wait()
    labels = make_view_labels(labeling, teller)
    if processes.is_first:
        processes.wait()
    return labels


def _training_of_view(
    view: View, recipe: Recipe, device: str, processes: Processes = ALONE
) -> Training:
    is_student = bool(view.record.counts.get("kept"))
    iteration = _iteration_of(view) if is_student else 0
    if recipe.pretrain.is_wanted and recipe.how(iteration) == "finetune":
        raise InputError(
            "the recipe starts from a network that its run pretrains, and a view alone has no "
            "run; train with --set method.teacher=scratch --set method.students=scratch, or "
            "with --set pretrain.steps=0 and --set model.weights=FILE"
        )
    return training_on(
        view,
        recipe.at(iteration),
        recipe,
        iteration,
        role="student" if is_student else "teacher",
        seed=torch_seed(recipe.seed, Purpose.TRAINING, iteration),
        device=device,
        processes=processes,
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
    whole = replace(training, processes=ALONE)  # a teacher sees every draw
    return ViewLabeling(training=whole, teacher=teacher, settings=training.recipe.label)


def _identity(view: View, recipe: Recipe, iteration: int) -> str:
    model = recipe.model_of(iteration)
    return value_hash(
        {
            "view": view.record.identity,
            "model": model.model_dump(mode="json"),
            **deciding_values(recipe),
            "seed": recipe.seed,
            "start": weights_hash(model, model.architecture),
            "lora_rank": recipe.lora_rank(iteration),
            "code": __version__,
            **(
                {"label": recipe.label.model_dump(mode="json")}
                if iteration and recipe.label.views
                else {}
            ),
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
