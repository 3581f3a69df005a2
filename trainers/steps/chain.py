"""The steps of a run, in order, each with its key.

A changed recipe gives new keys from the first step it touches on, beside the old ones.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.version import __version__
from trainers.context import Context
from trainers.steps.best import LabelBest
from trainers.steps.evaluating import Evaluate
from trainers.steps.finetuning import Finetune
from trainers.steps.fusing import Fuse
from trainers.steps.given import Given, GivenLabels
from trainers.steps.importing import Import, Present
from trainers.steps.labeled import Labeled
from trainers.steps.labeling import Label
from trainers.steps.pretraining import Pretrain
from trainers.steps.probing import Probe
from trainers.steps.selecting import Select
from trainers.steps.step import CONTROL, Step
from trainers.steps.training import Train
from trainers.steps.view_labels import LabelViews

_IMPORT, _LABELED, _PRETRAIN = "import", "labeled", "pretrain"


def steps_of(context: Context) -> list[Step]:
    """Return the steps of a run, in order, with their keys."""
    steps = [*_first(context), *_iterations(context), *_last(context)]
    if context.recipe.label.best:
        steps.append(_labeled_by_best(steps, context.recipe.iterations))
    return _with_keys(steps, context)


def _first(context: Context) -> list[Step]:
    """Return what there is to do until there is a first teacher."""
    is_there = context.recipe.data.source == "store"
    images = Present(name=_IMPORT) if is_there else Import(name=_IMPORT)
    labeled = Labeled(name=_LABELED, needs=(_IMPORT,))
    before = _pretrained(context)
    if context.teacher is None:
        steps: list[Step] = [images, labeled, *before]
        for number in range(1, _num_members(context) + 1):
            steps += _trained(_member("0", number), _LABELED, 0, context, number)
        return steps
    steps = [images, labeled, *before, Given(name="train-0", needs=(_IMPORT,))]
    if context.teacher.checkpoint:
        steps.append(Evaluate(name="evaluate-0", needs=(_IMPORT, "train-0")))
    return steps


def _pretrained(context: Context) -> list[Step]:
    """Return the self-supervised training, where a model of the run starts from it."""
    recipe = context.recipe
    trained = range(0 if context.teacher is None else 1, recipe.iterations + 1)
    if not recipe.pretrain.is_wanted or "finetune" not in map(recipe.how, trained):
        return []
    return [Pretrain(name=_PRETRAIN, needs=(_IMPORT,))]


def _iterations(context: Context) -> list[Step]:
    recipe = context.recipe
    steps: list[Step] = []
    for n in range(1, recipe.iterations + 1):
        needs = (_IMPORT, _model_step(context, str(n - 1), n - 1))
        has_model = n > 1 or context.teacher is None or bool(context.teacher.checkpoint)
        kind = Label if has_model else GivenLabels
        steps.append(kind(name=f"label-{n}", needs=needs, iteration=n))
        labels = f"label-{n}"
        if n == 1 and _num_members(context) > 1:
            steps += _fused(_num_members(context), context)
            labels = "fuse-1"
        relabeled = recipe.at(n).select.relabel and n > 1
        chosen_from = (labels, "select-1") if relabeled else (labels,)
        steps.append(Select(name=f"select-{n}", needs=chosen_from, iteration=n))
        views = _views_labeled(n, context)
        steps += [*views, *_trained(str(n), f"select-{n}", n, context, labels=views)]
    return steps


def _views_labeled(n: int, context: Context) -> list[Step]:
    """Return the labeling of what student n sees, if the recipe wants it.

    Raises:
        InputError: If its teacher has labels and no model.
    """
    if not context.recipe.at(n).label.views:
        return []
    given = context.teacher if n == 1 else None
    if (given is not None and not given.checkpoint) or (n == 1 and _num_members(context) > 1):
        who = "several first teachers (model.also)" if given is None else repr(given.teacher_id)
        raise InputError(
            f"label.views asks the teacher of student {n} about noised images, and {who} gives "
            "labels and no model; set label.views to false, or name a teacher with a model"
        )
    needs = (f"select-{n}", _model_step(context, str(n - 1), n - 1))
    return [LabelViews(name=f"label-views-{n}", needs=needs, iteration=n)]


def _num_members(context: Context) -> int:
    """Return how many first teachers a run trains."""
    return 1 if context.teacher is not None else 1 + len(context.recipe.model.also)


def _member(name: str, number: int) -> str:
    return name if number == 1 else f"{name}.{number}"


def _fused(count: int, context: Context) -> list[Step]:
    """Return the labelings of the other first teachers, and the fusion of all."""
    names = [_member("label-1", number) for number in range(1, count + 1)]
    others = [
        Label(
            name=name,
            needs=(_IMPORT, _model_step(context, _member("0", number), 0, number)),
            iteration=1,
            member=number,
        )
        for number, name in enumerate(names[1:], start=2)
    ]
    return [*others, Fuse(name="fuse-1", needs=tuple(names), iteration=1)]


def _last(context: Context) -> list[Step]:
    if not context.recipe.control:
        return []
    return _trained(CONTROL, _LABELED, context.recipe.iterations, context)


def _labeled_by_best(steps: Sequence[Step], iterations: int) -> Step:
    """Return the labeling by the best model: of the first teacher, students, or the control."""
    models = ("0", *(str(n) for n in range(1, iterations + 1)), CONTROL)
    wanted = [f"evaluate-{model}" for model in models]
    wanted += [f"label-{n}" for n in range(1, iterations + 1)]
    names = {step.name for step in steps}
    needs = (_IMPORT, *(name for name in wanted if name in names))
    return LabelBest(name="label-best", needs=needs, iteration=iterations + 1)


def _trained(
    model: str,
    view: str,
    iteration: int,
    context: Context,
    member: int = 1,
    *,
    labels: Sequence[Step] = (),
) -> list[Step]:
    """Return the training of a model, by the labels of its views if any, and its evaluation."""
    recipe = context.recipe.at(iteration).member(member)
    how = recipe.how(iteration, is_control=model == CONTROL)
    place: dict[str, Any] = {"iteration": iteration, "member": member}
    needs: tuple[str, ...] = (view,)
    if how == "warm":
        needs = (view, _model_step(context, str(iteration - 1), iteration - 1))
    if how == "finetune" and recipe.pretrain.is_wanted:
        needs = (view, _PRETRAIN)
    kind, name = (Probe if how == "probe" else Train), f"train-{model}"
    needs += tuple(step.name for step in labels)
    steps: list[Step] = [kind(name=name, needs=needs, replays=bool(labels), **place)]
    last = _model_step(context, model, iteration, member)
    if last != name:
        steps.append(Finetune(name=last, needs=(view, name), **place))
    measured = f"evaluate-{model}"
    return [*steps, Evaluate(name=measured, needs=(_IMPORT, last), **place)]


def _model_step(context: Context, model: str, iteration: int, member: int = 1) -> str:
    """Return the step that leaves a model of the run: its training, or its finetuning."""
    is_given = iteration == 0 and context.teacher is not None
    recipe = context.recipe.at(iteration).member(member)
    how = recipe.how(iteration, is_control=model == CONTROL)
    if is_given or how == "probe" or not recipe.finetune.is_wanted:
        return f"train-{model}"
    return f"finetune-{model}"


def _with_keys(steps: Sequence[Step], context: Context) -> list[Step]:
    identities: dict[str, str] = {}
    keyed = []
    for step in steps:
        identity = {
            "kind": step.kind,
            "what": step.what(context),
            "needs": [identities[need] for need in step.needs],
            "code": __version__,
        }
        identities[step.name] = value_hash(identity)
        key = value_hash({**identity, "freshness": step.freshness(context)})
        keyed.append(replace(step, key=key))
    return keyed
