"""A frozen backbone gets a classifier: the teacher, a student or the control is a probe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trainers.context import Context, Outputs
from trainers.estimate import EMBEDDING_BYTES, Estimate, Estimator, fit_seconds
from trainers.features.doubts import ITERATION, QUERY, count_doubted, folds_teacher
from trainers.features.probing import Probing, probe_and_keep
from trainers.models.pretrained import start_identity
from trainers.result import Findings
from trainers.steps.training import Train, outputs_of


@dataclass(frozen=True, kw_only=True)
class Probe(Train):
    """A logistic regression on the embeddings of the images of the view that it needs."""

    kind: ClassVar[str] = "probe"
    is_shared: ClassVar[bool] = False

    def what(self, context: Context) -> Mapping[str, object]:
        """Return the backbone, the weights of pseudo-labels, and what people decided."""
        recipe = self.recipe(context)
        model = recipe.model_of(self.iteration, is_control=self.is_control)
        return {
            "model": model.model_dump(mode="json"),
            "start": start_identity(model, model.architecture),
            "ratio": recipe.method.ratio,
            "targets": recipe.method.targets,
            "name": self.model,
            "decisions": context.decided,
        }

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Embed what is not embedded, fit, and keep the model in the store."""
        probing = Probing(
            recipe=self.recipe(context),
            run=context.recipe.member(self.member),
            iteration=self.iteration,
            view=context.view(needs[0]["view"]),
            corrections=context.decisions["corrections"],
            device=context.device,
            backend=context.backend,
        )
        record = probe_and_keep(context.store, probing, self.place, context.teller)
        doubted = count_doubted(context.store, record.teacher_id)
        if doubted:
            context.teller.say(
                f"  {doubted} labeled images look filed under a wrong class: plstore query run "
                f"{QUERY} --teacher-id {folds_teacher(record.teacher_id)} --iteration "
                f"{ITERATION}"
            )
        return {**outputs_of(record, "probe"), "doubted": doubted}

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say which model it is, and how many labels of one's own it doubts."""
        super().report(findings, outputs)
        findings.model(self.model)["doubted"] = outputs.get("doubted")

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the embedding of the labeled images, by the first probe alone, and the fit."""
        splits = estimator.source.splits
        known = splits["labeled"] + splits.get("validation", 0)
        count = known if self.iteration == 0 else 0
        seconds = estimator.look_seconds(self.iteration, self.member) * count
        fitted = known + (splits["unlabeled"] if self.is_student else 0)
        return Estimate.of(count, seconds + fit_seconds(fitted), count * EMBEDDING_BYTES)
