"""The teacher labels the images that a student will see, with their noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from plstore.errors import InputError
from plstore.labels import find_teacher
from trainers.context import Context, Outputs
from trainers.estimate import LABEL_BYTES, Estimate, Estimator
from trainers.labeling.view_labels import ViewLabeling, make_view_labels, outputs_of_labels
from trainers.result import Findings
from trainers.steps.training import Train
from trainers.training.processes import ALONE


@dataclass(frozen=True, kw_only=True)
class LabelViews(Train):
    """Labels of the first draws of the training of a student.

    It needs the view and the teacher's model; the training is that of the student's own step.
    """

    kind: ClassVar[str] = "label-views"
    is_shared: ClassVar[bool] = False

    def what(self, context: Context) -> Mapping[str, object]:
        """Return what the student's draws follow from, and how labels are made and kept."""
        label = self.recipe(context).label.model_dump(mode="json", exclude={"best"})
        return {**super().what(context), "label": label}

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Label them file by file; say how the student finds them."""
        view, model = needs
        teacher = find_teacher(context.store, model["teacher_id"])
        if teacher is None:
            raise InputError(f"{context.store.root} has no teacher {model['teacher_id']!r}")
        labeling = ViewLabeling(
            training=replace(self._training(context, view), processes=ALONE),
            teacher=teacher,
            settings=self.recipe(context).label,
        )
        return {
            "teacher_id": teacher.teacher_id,
            **outputs_of_labels(make_view_labels(labeling, context.teller)),
        }

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the draws that are labeled."""
        recipe = estimator.recipe.at(self.iteration)
        num_labeled, train = estimator.source.splits["labeled"], recipe.train
        steps = max(int(recipe.label.view_epochs * num_labeled / train.labeled_batch), 1)
        draws = min(steps, train.num_steps(num_labeled)) * train.pseudo_batch
        seconds = estimator.look_seconds(self.iteration - 1) * estimator.noising * draws
        return Estimate.of(draws, seconds, draws * LABEL_BYTES)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say how many draws were labeled with their noise."""
        findings.model(self.model)["labeled_views"] = outputs["num_draws"]
