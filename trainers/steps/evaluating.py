"""A model is evaluated on images that no one trains on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from plstore.errors import StoreError
from plstore.labels import find_teacher
from plstore.schema import Split
from trainers.context import Context, Outputs
from trainers.estimate import LABEL_BYTES, Estimate, Estimator
from trainers.evaluation.evaluate import ACCURACY, keep_metrics, measure_split
from trainers.models.model import load_teacher
from trainers.result import Findings
from trainers.steps.step import Step

_SPLITS: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True, kw_only=True)
class Evaluate(Step):
    """Top-1 accuracy of a model, in percent."""

    kind: ClassVar[str] = "evaluate"

    def what(self, context: Context) -> Mapping[str, object]:
        """Return what people decided: accuracy is measured by it."""
        return {"decisions": context.decided}

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Measure it on every split that is held out."""
        imported, trained = needs
        teacher = find_teacher(context.store, trained["teacher_id"])
        if teacher is None:
            raise StoreError(f"{context.store.root} has lost teacher {trained['teacher_id']!r}")
        bundle = load_teacher(context.store, teacher, device=context.device)
        found: dict[str, float] = {}
        for split in _SPLITS:
            if (images := context.split(split, imported)) is None:
                continue
            accuracy = measure_split(
                context.store,
                bundle,
                images,
                split,
                metrics=[ACCURACY],
                device=context.device,
                backend=context.backend,
                on_event=context.teller.tell,
            )["accuracy"]
            found[f"{split}_accuracy"] = accuracy
            context.teller.say(f"  {split} accuracy of {self.title}: {accuracy:.2f} %")
        keep_metrics(context.store, teacher.teacher_id, found, self.key)
        return {"teacher_id": teacher.teacher_id, **found}

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the images that are held out."""
        splits = estimator.source.splits
        count = splits.get("validation", 0) + splits.get("test", 0)
        seconds = estimator.look_seconds(self.iteration, self.member) * count
        return Estimate.of(count, seconds, count * LABEL_BYTES)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say how good the model is."""
        findings.model(self.model).update(
            {name: value for name, value in outputs.items() if name.endswith("accuracy")}
        )
