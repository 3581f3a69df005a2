"""What a run would take on a card that is not here: counted, not timed.

Operations and memory are counted on shapes alone, see `trainers.models.costs`, so that the dry
run of a recipe whose models take hundreds of gigabytes needs neither them nor its images.
"""

from typing import Any

from plstore.exchange import Source
from trainers.estimate import Estimate, Estimator
from trainers.models.architectures import num_parameters
from trainers.models.costs import (
    CARDS,
    PAPER_UTILISATION,
    Precision,
    card_hours,
    forward_flops,
    memory_bytes,
    training_flops,
)
from trainers.recipe import Recipe
from trainers.sections import Model
from trainers.steps.evaluating import Evaluate
from trainers.steps.finetuning import Finetune
from trainers.steps.labeling import Label
from trainers.steps.pretraining import Pretrain
from trainers.steps.step import Step
from trainers.steps.training import Train
from trainers.training.timing import Timed

Row = dict[str, Any]


class CountedEstimator(Estimator):
    """Estimates steps in seconds of a card, from operations that are counted.

    Attributes:
        card: One of `trainers.models.costs.CARDS`.
        cards: How many share the images of a step.
    """

    decoding = 1.0
    noising = 1.0

    def __init__(self, recipe: Recipe, source: Source, card: str, cards: int) -> None:
        """Count nothing yet.

        Raises:
            InputError: If no such card is known.
        """
        super().__init__(recipe, source, "cpu")
        card_hours(0.0, card)  # or says which are known
        self.card, self.cards = card, cards
        self._parameters: dict[str, int] = {}
        self._memory: dict[tuple[str, int, int], int] = {}

    def _measure(self, model: Model, _: Recipe) -> Timed:
        second = CARDS[self.card].peak_flops * PAPER_UTILISATION
        what: dict[str, Any] = self._shape(model)
        parameters = self.parameters(model)
        return Timed(
            train_seconds=training_flops(model.architecture, **what) / second,
            clean_seconds=forward_flops(model.architecture, **what) / second,
            num_bytes=4 * parameters,
        )

    def _shape(self, model: Model) -> dict[str, Any]:
        return {
            "size": model.resolution,
            "channels": model.channels,
            "num_classes": len(self.source.class_names),
            "small": model.small_images,
        }

    def parameters(self, model: Model) -> int:
        """Return how many parameters a model has, counted once."""
        name = model.architecture
        if name not in self._parameters:
            shape = self._shape(model)
            del shape["size"]
            self._parameters[name] = num_parameters(name, **shape)
        return self._parameters[name]

    def memory(self, recipe: Recipe, model: Model, batch: int) -> int:
        """Return the bytes that training takes on each card."""
        mine = -(-batch // self.cards)
        is_whole = recipe.train.precision == "float32"
        precision: Precision = "float32" if is_whole else "bfloat16"
        what = (model.architecture, model.resolution, mine)
        if what not in self._memory:
            self._memory[what] = memory_bytes(
                model.architecture,
                batch=mine,
                precision=precision,
                optimizer=recipe.optimizer.name,
                **self._shape(model),
            ).total
        return self._memory[what]


def counted_row(step: Step, estimator: CountedEstimator) -> Row:
    """Return what a step takes: images, epochs, parameters, operations, memory, hours, disk."""
    estimate = step.cost(estimator)
    row: Row = {
        "step": step.name,
        "images": estimate.images,
        "epochs": None,
        "parameters, M": None,
        "PFLOP": None,
        "GB a card": None,
        f"hours of {estimator.card}": None,
        "store, GB": round(estimate.num_bytes / 1e9, 2),
    }
    if isinstance(step, Pretrain):
        return row | _pretrained(estimate, estimator)
    if not isinstance(step, Train | Label | Evaluate):
        return row
    is_look = not isinstance(step, Train)
    looker = step.iteration - 1 if isinstance(step, Label) else step.iteration
    recipe = estimator.recipe.at(max(looker, 0)).member(step.member)
    row |= _computed(estimate, estimator, recipe.model_of(max(looker, 0)))
    if is_look:
        return row
    recipe = recipe.finetuning() if isinstance(step, Finetune) else recipe
    batch = recipe.train.labeled_batch + recipe.train.pseudo_batch
    steps = recipe.train.num_steps(estimator.source.splits["labeled"])
    epochs = steps * recipe.train.labeled_batch / estimator.source.splits["labeled"]
    row["epochs"] = round(epochs, 1)
    row["GB a card"] = round(estimator.memory(recipe, recipe.model, batch) / 1e9, 1)
    return row


def _computed(estimate: Estimate, estimator: CountedEstimator, model: Model) -> Row:
    """Return parameters, operations and hours of a step."""
    second = CARDS[estimator.card].peak_flops * PAPER_UTILISATION
    return {
        "parameters, M": round(estimator.parameters(model) / 1e6, 1),
        "PFLOP": float(f"{estimate.seconds * second / 1e15:.4g}"),
        f"hours of {estimator.card}": float(f"{estimate.seconds / 3600:.4g}"),
    }


def _pretrained(estimate: Estimate, estimator: CountedEstimator) -> Row:
    """Return what is said of training without labels, whose epochs are of unlabeled images."""
    recipe, unlabeled = estimator.recipe, estimator.source.splits["unlabeled"]
    batch = min(recipe.pretrain.batch, unlabeled)
    memory = estimator.memory(recipe, recipe.model, batch * recipe.pretrain.versions)
    return {
        **_computed(estimate, estimator, recipe.model),
        "epochs": round(recipe.pretrain.steps * batch / unlabeled, 1),
        "GB a card": round(memory / 1e9, 1),
    }
