"""The images of a run come into its store, or are there already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trainers.context import Context, Outputs
from trainers.estimate import Estimate, Estimator
from trainers.importing import check_present, import_for_run
from trainers.result import Findings
from trainers.steps.step import Step

_IMPORT_PER_SECOND = 2000.0


@dataclass(frozen=True, kw_only=True)
class Import(Step):
    """Images come from the recipe's source; what is there stays as it is."""

    kind: ClassVar[str] = "import"

    def freshness(self, context: Context) -> str:
        """Files that were only touched are looked at again."""
        return context.source.freshness

    def what(self, context: Context) -> Mapping[str, object]:
        """Return the images' identity, their collection, and the limit of their size."""
        source = context.source
        limit = context.recipe.data.max_pixels
        what = {"images": source.identity, "dataset": source.dataset, "max": limit}
        return {**what, **_gone(context)}

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Import them."""
        limit = context.recipe.data.max_pixels
        return import_for_run(
            context.store, context.source, max_pixels=limit, display=context.teller
        )

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the images and their bytes."""
        count, num_bytes = estimator.source.num_images, estimator.source.num_bytes
        return Estimate.of(count, count / _IMPORT_PER_SECOND, num_bytes)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say what is in the store, by split and verdict."""
        findings.imported = {k: v for k, v in outputs.items() if k != "images_version"}


@dataclass(frozen=True, kw_only=True)
class Present(Import):
    """Images are those of a store that was filled before."""

    kind: ClassVar[str] = "present"

    def what(self, context: Context) -> Mapping[str, object]:
        """Return the identity of what the store holds."""
        return {"images": context.source.identity, **_gone(context)}

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Look whether they are enough to run on."""
        return check_present(context.store)

    def cost(self, estimator: Estimator) -> Estimate:
        """Return nothing: they are there."""
        return Estimate.of(estimator.source.num_images, 0.0, 0)


def _gone(context: Context) -> dict[str, str]:
    """Return what images have lost their files, if any: all that follows is without them."""
    gone = context.gone.identity
    return {"gone": gone} if gone else {}
