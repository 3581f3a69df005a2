"""Programs over the library: teacher, student, labeling, evaluation and the loop.

``trainers.run(recipe, store, on_event=...)`` runs a recipe. All is imported on first use, since
it brings torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainers.evaluation.evaluate import evaluate
    from trainers.labeling.label import Labeling, label, label_by_all
    from trainers.loop import run
    from trainers.on_view import train_on_view
    from trainers.recipe import Recipe, load_recipe

_HOMES = {
    "Labeling": "trainers.labeling.label",
    "Recipe": "trainers.recipe",
    "evaluate": "trainers.evaluation.evaluate",
    "label": "trainers.labeling.label",
    "label_by_all": "trainers.labeling.label",
    "load_recipe": "trainers.recipe",
    "run": "trainers.loop",
    "train_on_view": "trainers.on_view",
}

__all__ = [
    "Labeling",
    "Recipe",
    "evaluate",
    "label",
    "label_by_all",
    "load_recipe",
    "run",
    "train_on_view",
]


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trainers' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
