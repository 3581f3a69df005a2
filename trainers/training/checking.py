"""Whether a recipe's models can be made, before hours are spent."""

from itertools import pairwise

from trainers.models.architectures import num_parameters
from trainers.models.model import build_model, look_at_nothing
from trainers.models.pretrained import starting_weights
from trainers.recipe import Recipe
from trainers.sections import Model
from trainers.training.optimisation import check_optimizer
from trainers.training.pretraining import headed


def check_models(recipe: Recipe, num_classes: int) -> None:
    """Make every model of a recipe once and let it look at an image, before hours are spent.

    Raises:
        InputError: If one cannot be made, cannot take the images, or the optimizer is unknown.
    """
    seen = set()
    members = [(recipe.at(0).member(n + 2), 0) for n in range(len(recipe.model.also))]
    for asked, iteration in [*((recipe, n) for n in range(recipe.iterations + 1)), *members]:
        model = asked.model_of(iteration)
        if (what := model.model_dump_json()) not in seen:
            _check_model(model, model.architecture, num_classes)
        seen.add(what)
    if recipe.pretrain.is_wanted:
        headed(recipe)
    for iteration in range(recipe.iterations + 1):
        check_optimizer(recipe.at(iteration).optimizer)


def size_notes(recipe: Recipe, num_classes: int) -> list[str]:
    """Return a line for every student that is smaller than its teacher, by parameters.

    Noisy Student wants it equal or larger (algorithm 1, step 3): a smaller one is distilled.
    """
    sizes = {
        model.architecture: num_parameters(
            model.architecture, num_classes=num_classes, channels=model.channels
        )
        for model in (recipe.model_of(n) for n in range(recipe.iterations + 1))
    }
    names = [recipe.model_of(n).architecture for n in range(recipe.iterations + 1)]
    return [
        f"student {n} ({student}, {sizes[student]:,} parameters) is smaller than its teacher "
        f"({teacher}, {sizes[teacher]:,}): it is distilled; Noisy Student wants it equal or "
        "larger"
        for n, (teacher, student) in enumerate(pairwise(names), start=1)
        if sizes[student] < sizes[teacher]
    ]


def _check_model(model: Model, architecture: str, num_classes: int) -> None:
    fresh = model.model_copy(update={"pretrained": False})
    network = build_model(fresh, architecture, num_classes)
    starting_weights(model, architecture)  # or says why there are none
    look_at_nothing(network, model, architecture)
