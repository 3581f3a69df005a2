"""The best model of a run labels the pool: what people take away beside the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from plstore.store import unpin
from trainers.advice import best_of
from trainers.context import Context, Outputs
from trainers.result import Findings
from trainers.steps.labeling import Label


@dataclass(frozen=True, kw_only=True)
class LabelBest(Label):
    """The model that is best by validation labels clean images, unless it has already.

    It needs the import, then what was measured of every model, then the labelings.
    """

    kind: ClassVar[str] = "label-best"

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Label as one iteration more; or name the labels that are there."""
        imported, *others = needs
        labeled = {found["teacher_id"]: found for found in others if "labels" in found}
        best = best_of([found for found in others if "labels" not in found])
        if best is None:
            context.teller.say("  without validation images no model is known to be the best")
            return {"teacher_id": None, "iteration": None}
        found = labeled.get(best["teacher_id"])
        if found is None:
            found = super().do(context, [imported, best])
            if context.processes.is_first:
                unpin(context.store, found["pin"])  # nothing reads them after
        return {name: found[name] for name in ("teacher_id", "iteration")}

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say whose labels of the pool to take, and of which iteration they are."""
        if outputs["teacher_id"] is not None:
            findings.best_labels = dict(outputs)
