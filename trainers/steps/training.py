"""A model is trained on a view: the teacher, a student, or the control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from plstore.errors import InputError
from plstore.labels import Role, TeacherRecord
from plstore.seeds import Purpose, torch_seed
from trainers.context import Context, Outputs
from trainers.estimate import Estimate, Estimator
from trainers.labeling.view_labels import labels_of
from trainers.models.model import fetch_bundle
from trainers.models.pretrained import weights_hash
from trainers.result import Findings
from trainers.sections import How
from trainers.steps.step import CONTROL, Step
from trainers.training.keeping import Place, deciding_values, train_and_keep, training_on
from trainers.training.train import Training

_CONTROL_STREAM = 1000  # seeds of students are 1, 2, ...; the control has its own
_MEMBER_STREAM = 10_000
OUTPUTS = ("teacher_id", "role", "architecture", "checkpoint", "checkpoint_hash")


@dataclass(frozen=True, kw_only=True)
class Train(Step):
    """A model is trained on the view of the step that it needs.

    Attributes:
        replays: Whether the last step that it needs labeled the images that it sees.
    """

    kind: ClassVar[str] = "train"
    is_shared: ClassVar[bool] = True

    replays: bool = False

    @property
    def is_student(self) -> bool:
        """Whether its view has pseudo-labels."""
        return self.iteration > 0 and not self.is_control

    @property
    def role(self) -> Role:
        """Of the model in the run."""
        if self.is_control:
            return "control"
        return "student" if self.is_student else "teacher"

    @property
    def teacher_id(self) -> str:
        """Of the model, once it is trained."""
        prefix = CONTROL if self.is_control else f"t{self.iteration}"
        return f"{prefix}-{self.key[:8]}"

    @property
    def place(self) -> Place:
        """As what the model is kept."""
        return Place(
            teacher_id=self.teacher_id,
            iteration=self.iteration,
            role=self.role,
            identity=self.key,
            step=self.name,
            title=self.title,
        )

    @property
    def is_control(self) -> bool:
        """Whether it is the control, which learns from labels alone."""
        return self.model == CONTROL

    def how(self, context: Context) -> How:
        """Return how its model comes about."""
        return self.recipe(context).how(self.iteration, is_control=self.is_control)

    def what(self, context: Context) -> Mapping[str, object]:
        """Return all that training follows from, beside the view."""
        recipe = self.recipe(context)
        model = recipe.model_of(self.iteration, is_control=self.is_control)
        what = {
            "model": model.model_dump(mode="json"),
            **deciding_values(recipe),
            "seed": recipe.seed,
            "name": self.model,
            "lora_rank": recipe.lora_rank(self.iteration),
        }
        start = weights_hash(model, model.architecture)
        return what if start is None else {**what, "start": start}

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Train it, or go on from its last checkpoint; keep it in the store."""
        *others, last = needs
        training = self._training(context, *(others if self.replays else needs))
        if self.replays:
            training = replace(training, labels=labels_of(context.store, last))
        record = train_and_keep(context.store, training, self.place, context.teller)
        return outputs_of(record, self.how(context))

    def _training(
        self, context: Context, view: Outputs, before: Outputs | None = None
    ) -> Training:
        """Return the training; it begins with the weights of the model before it, if any."""
        start = None if before is None else kept_model(context, before)
        training = training_on(
            context.view(view["view"]),
            self.recipe(context),
            context.recipe.member(self.member),
            self.iteration,
            role=self.role,
            seed=torch_seed(context.recipe.seed, Purpose.TRAINING, self._stream),
            device=context.device,
            processes=context.processes,
            start=start,
        )
        if before is None:
            return training
        is_backbone = before["role"] == "pretrained"
        return replace(training, started_from=before["teacher_id"], is_backbone=is_backbone)

    @property
    def _stream(self) -> int:
        """Number of its random numbers, of no other training of the run."""
        stream = _CONTROL_STREAM if self.is_control else self.iteration
        return stream + _MEMBER_STREAM * (self.member - 1)

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the images of all its steps."""
        train = estimator.recipe.at(self.iteration).train
        timed = estimator.timed(self.iteration, self.member)
        steps = train.num_steps(estimator.source.splits["labeled"])
        images = steps * (train.labeled_batch + train.pseudo_batch)
        seconds = timed.train_seconds * images * estimator.noising
        return Estimate.of(images, seconds, timed.num_bytes)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say which model it is."""
        names = ("teacher_id", "architecture", "checkpoint")
        model = findings.model(self.model)
        model.update({name: outputs[name] for name in names})
        model["how"] = outputs["how"]


def kept_model(context: Context, outputs: Outputs) -> Path:
    """Return the folder of a model that a step left.

    Raises:
        InputError: If it left labels and no model.
    """
    if not outputs["checkpoint"]:
        raise InputError(
            f"teacher {outputs['teacher_id']!r} has labels and no model, so no student can "
            "start from its weights; set method.students to scratch"
        )
    return fetch_bundle(context.store, outputs["checkpoint"], outputs["checkpoint_hash"])


def outputs_of(record: TeacherRecord, how: How) -> dict[str, Any]:
    """Return what a training leaves for the steps that need it."""
    return {**{name: getattr(record, name) for name in OUTPUTS}, "how": how}
