"""What a run would take: images, time and disk, before anything is done."""

from dataclasses import dataclass
from typing import Final

from plstore.exchange import Source
from trainers.models.model import build_model
from trainers.recipe import Recipe
from trainers.sections import Model
from trainers.training.threads import use_threads
from trainers.training.timing import DECODING, Timed, time_model, timed_batch

LABEL_BYTES: Final = 61
"""A soft label of 20 classes, compact."""

EMBEDDING_BYTES: Final = 2600
"""An embedding of 1,280 numbers, compact."""

_FITTED_PER_SECOND: Final = 500.0  # 1,280 features, 10 classes


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Images seen, seconds taken and bytes left by one step."""

    images: int
    seconds: float
    num_bytes: int

    @classmethod
    def of(cls, images: int, seconds: float, num_bytes: float) -> "Estimate":
        """Return an estimate of whole bytes."""
        return cls(images=images, seconds=seconds, num_bytes=int(num_bytes))


def fit_seconds(num_images: int) -> float:
    """Return how long a regression on embeddings takes: its path of strengths, on two cores."""
    return 2 + num_images / _FITTED_PER_SECOND


class Estimator:
    """What steps estimate from: the images' count and size, and a few timed steps.

    Attributes:
        recipe: The whole one.
        source: Its images.
        decoding: What an image's decoding adds to a model's look, on the same cores.
        noising: What decoding and noise add to a step of training.
    """

    decoding: float = DECODING
    noising: float = 1.25  # measured: beside training on the same cores

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        device: str,
        timed: dict[tuple[str, int, str], Timed] | None = None,
    ) -> None:
        """Time nothing yet; `timed` are models that were, in which precision."""
        self.recipe = recipe
        self.source = source
        self._device = device
        self._timed_models = {} if timed is None else timed

    @property
    def image_bytes(self) -> float:
        """Bytes of an image's file, on average."""
        return self.source.num_bytes / max(self.source.num_images, 1)

    def look_seconds(self, iteration: int, member: int = 1) -> float:
        """Return the seconds a model looks at a clean image; 0 of a probe that looked before.

        A student on the backbone and pixels of its teacher finds the embeddings there.
        """
        recipe = self.recipe.at(iteration).member(member)
        seconds = self.timed(iteration, member, as_kept=True).clean_seconds * self.decoding
        is_probe = recipe.how(iteration) == recipe.how(0) == "probe"
        first = self.recipe.at(0).member(member)
        same = recipe.model_of(iteration) == first.model_of(0)
        return 0.0 if is_probe and same and iteration > 0 else seconds

    def timed(self, iteration: int, member: int = 1, *, as_kept: bool = False) -> Timed:
        """Return how long the model of an iteration takes, timed once.

        Args:
            iteration: Of the model.
            member: Which of several first teachers.
            as_kept: At the pixels that it has in the end, if it is finetuned at others.
        """
        recipe = self.recipe.at(iteration).member(member)
        model = recipe.model_of(iteration)
        if as_kept and recipe.finetune.is_wanted and recipe.how(iteration) != "probe":
            size = recipe.finetuning().model.resolution
            model = model.model_copy(update={"resolution": size})
        what = (model.architecture, model.resolution, recipe.train.precision)
        if what not in self._timed_models:
            self._timed_models[what] = self._measure(model, recipe)
        return self._timed_models[what]

    def _measure(self, model: Model, recipe: Recipe) -> Timed:
        use_threads(recipe.train.threads)
        classes, most = len(self.source.class_names), timed_batch(model.resolution)
        settings = model.model_copy(update={"pretrained": False, "weights": None})
        return time_model(
            build_model(settings, model.architecture, classes),
            classes=classes,
            channels=model.channels,
            size=model.resolution,
            batch=min(recipe.train.labeled_batch + recipe.train.pseudo_batch, most),
            device=self._device,
            precisions=(recipe.train.precision,),
        )
