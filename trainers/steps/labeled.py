"""All labeled images become a view, which the teacher and the control train on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from plstore.selection import select_labeled
from trainers.context import Context, Outputs
from trainers.estimate import Estimate, Estimator
from trainers.steps.step import Step


@dataclass(frozen=True, kw_only=True)
class Labeled(Step):
    """The labeled images as a view."""

    kind: ClassVar[str] = "labeled"

    def what(self, context: Context) -> Mapping[str, object]:
        """Return what people decided, which images are taken, and how they are packed."""
        settings = context.recipe.select
        return {
            "decisions": context.decided,
            "held_out": settings.held_out,
            "shrink": None if settings.shrink is None else vars(settings.shrink),
        }

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Write the view."""
        recipe = context.recipe
        view = select_labeled(
            context.store,
            f"{recipe.name}-labeled",
            seed=recipe.seed,
            held_out=recipe.select.held_out,
            shrink=recipe.select.shrink,
            recipe_hash=recipe.hash,
            identity=self.key,
            as_of={"images": needs[0]["images_version"], **context.decisions},
        )
        for why, number in view.record.counts.get("labeled_dropped", {}).items():
            context.teller.say(f"  {number} labeled images left out: {why}")
        if "shrunk" in view.record.counts:
            context.teller.say(f"  {view.record.counts['shrunk']} labeled images shrunk")
        return {"view": self.key, "num_images": view.record.num_images}

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the labeled images, which the loader's cache copies."""
        count = estimator.source.splits["labeled"]
        is_copied = estimator.recipe.train.shuffle == "global"
        return Estimate.of(count, 0.2, count * estimator.image_bytes * is_copied)
