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
        """Return what people decided, and whether images that are held out are taken."""
        held_out = context.recipe.select.held_out
        return {"decisions": context.decided, "held_out": held_out}

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Write the view."""
        recipe = context.recipe
        view = select_labeled(
            context.store,
            f"{recipe.name}-labeled",
            seed=recipe.seed,
            held_out=recipe.select.held_out,
            recipe_hash=recipe.hash,
            identity=self.key,
            as_of={"images": needs[0]["images_version"], **context.decisions},
        )
        for why, number in view.record.counts.get("labeled_dropped", {}).items():
            context.teller.say(f"  {number} labeled images left out: {why}")
        return {"view": self.key, "num_images": view.record.num_images}

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the labeled images, which the loader's cache copies."""
        count = estimator.source.splits["labeled"]
        return Estimate.of(count, 0.2, count * estimator.image_bytes)
