"""The steps of a run, in order, each with its key.

A changed recipe gives new keys from the first step it touches on, beside the old ones.
"""

from collections.abc import Sequence
from dataclasses import replace

from plstore.fingerprint import value_hash
from plstore.version import __version__
from trainers.context import Context
from trainers.steps.evaluating import Evaluate
from trainers.steps.given import Given, GivenLabels
from trainers.steps.importing import Import, Present
from trainers.steps.labeled import Labeled
from trainers.steps.labeling import Label
from trainers.steps.probing import Probe
from trainers.steps.selecting import Select
from trainers.steps.step import CONTROL, Step
from trainers.steps.training import Train

_IMPORT, _LABELED = "import", "labeled"


def steps_of(context: Context) -> list[Step]:
    """Return the steps of a run, in order, with their keys."""
    return _with_keys([*_first(context), *_iterations(context), *_last(context)], context)


def _first(context: Context) -> list[Step]:
    """Return what there is to do until there is a first teacher."""
    is_there = context.recipe.data.source == "store"
    images = Present(name=_IMPORT) if is_there else Import(name=_IMPORT)
    labeled = Labeled(name=_LABELED, needs=(_IMPORT,))
    if context.teacher is None:
        return [images, labeled, *_trained("0", _LABELED, 0, context)]
    steps: list[Step] = [images, labeled, Given(name="train-0", needs=(_IMPORT,))]
    if context.teacher.checkpoint:
        steps.append(Evaluate(name="evaluate-0", needs=(_IMPORT, "train-0")))
    return steps


def _iterations(context: Context) -> list[Step]:
    recipe = context.recipe
    steps: list[Step] = []
    for n in range(1, recipe.iterations + 1):
        needs = (_IMPORT, f"train-{n - 1}")
        has_model = n > 1 or context.teacher is None or bool(context.teacher.checkpoint)
        kind = Label if has_model else GivenLabels
        steps.append(kind(name=f"label-{n}", needs=needs, iteration=n))
        relabeled = recipe.select.relabel and n > 1
        chosen_from = (f"label-{n}", "select-1") if relabeled else (f"label-{n}",)
        steps.append(Select(name=f"select-{n}", needs=chosen_from, iteration=n))
        steps += _trained(str(n), f"select-{n}", n, context)
    return steps


def _last(context: Context) -> list[Step]:
    if not context.recipe.control:
        return []
    return _trained(CONTROL, _LABELED, context.recipe.iterations, context)


def _trained(model: str, view: str, iteration: int, context: Context) -> list[Step]:
    """Return the training of a model, and its evaluation."""
    name = f"train-{model}"
    kind = Probe if context.recipe.how(iteration) == "probe" else Train
    return [
        kind(name=name, needs=(view,), iteration=iteration),
        Evaluate(name=f"evaluate-{model}", needs=(_IMPORT, name), iteration=iteration),
    ]


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
