"""Several first teachers become one: their labels are fused before the first selection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from plstore.codec import Codec
from plstore.labels import Member, make_ensemble
from plstore.store import pin
from trainers.context import Context, Outputs
from trainers.estimate import LABEL_BYTES, Estimate, Estimator
from trainers.result import Findings
from trainers.steps.step import Step


@dataclass(frozen=True, kw_only=True)
class Fuse(Step):
    """The labels of several teachers, of the steps that it needs, become those of one."""

    kind: ClassVar[str] = "fuse"

    def what(self, context: Context) -> Mapping[str, object]:
        """Return how they are fused."""
        what: dict[str, object] = context.recipe.fuse.model_dump(mode="json")
        return what

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Fuse them; pin what the selection reads."""
        settings, store = context.recipe.fuse, context.store
        kept = self.recipe(context).label
        members = [
            Member(teacher_id=labeled["teacher_id"], iteration=labeled["iteration"])
            for labeled in needs
        ]
        total = sum(needs[0]["labels"].values())
        with context.teller.task(f"fuse {len(members)} teachers", total) as advance:
            made = make_ensemble(
                store,
                f"fused-{self.key[:8]}",
                members,
                iteration=self.iteration,
                method=settings.method,
                weights=settings.weights,
                codec=Codec(name=kept.codec, k=kept.topk),
                on_images=advance,
            )
        _say(context, made.members)
        pins = {**needs[0]["pins"], "soft_labels": store.table("soft_labels").version()}
        pin(store, self.key, pins, why=f"{context.recipe.name}, {self.name}")
        return {
            "teacher_id": made.teacher_id,
            "iteration": made.iteration,
            "labels": made.images,
            "incomplete": made.incomplete,
            "pins": pins,
            "pin": self.key,
        }

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the labels that are fused."""
        splits = estimator.source.splits
        count = splits["unlabeled"] + splits.get("validation", 0)
        return Estimate.of(count, count / _PER_SECOND, count * LABEL_BYTES)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say who taught the student."""
        findings.model(self.model)["taught_by"] = outputs["teacher_id"]


def _say(context: Context, members: Sequence[Member]) -> None:
    named = ", ".join(f"{m.teacher_id} weighs {m.weight:.2f}" for m in members)
    context.teller.say(f"  {named}")


_PER_SECOND = 20_000.0
