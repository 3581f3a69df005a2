"""A model is trained on a view: the teacher, a student, or the control."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from plstore.labels import Role, TeacherRecord
from plstore.seeds import Purpose, torch_seed
from trainers.context import Context, Outputs
from trainers.estimate import Estimate, Estimator
from trainers.keeping import Place, train_and_keep, training_on
from trainers.pretrained import weights_hash
from trainers.result import Findings
from trainers.sections import How
from trainers.steps.step import CONTROL, Step
from trainers.train import Training

_NOISE_SHARE = 1.25  # measured: decoding and noise beside training on the same cores
_CONTROL_STREAM = 1000  # seeds of students are 1, 2, ...; the control has its own
_MEMBER_STREAM = 10_000
OUTPUTS = ("teacher_id", "role", "architecture", "checkpoint", "checkpoint_hash")


@dataclass(frozen=True, kw_only=True)
class Train(Step):
    """A model is trained on the view of the step that it needs."""

    kind: ClassVar[str] = "train"

    @property
    def is_student(self) -> bool:
        """Whether its view has pseudo-labels."""
        return self.iteration > 0 and self.model != CONTROL

    @property
    def role(self) -> Role:
        """Of the model in the run."""
        if self.model == CONTROL:
            return "control"
        return "student" if self.is_student else "teacher"

    @property
    def teacher_id(self) -> str:
        """Of the model, once it is trained."""
        prefix = CONTROL if self.model == CONTROL else f"t{self.iteration}"
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

    def what(self, context: Context) -> Mapping[str, object]:
        """Return all that training follows from, beside the view."""
        recipe = self.recipe(context)
        dump: dict[str, Any] = json.loads(recipe.model_dump_json())
        model = recipe.model_of(self.iteration)
        what = {
            "architecture": recipe.model.student(self.iteration),
            "model": {**model.model_dump(mode="json"), "teacher": None, "students": None},
            "train": dump["train"],
            "noise": dump["noise"],
            "seed": recipe.seed,
            "name": self.model,
            "lora_rank": recipe.lora_rank(self.iteration),
        }
        start = weights_hash(model, recipe.model.student(self.iteration))
        return what if start is None else {**what, "start": start}

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Train it, or go on from its last checkpoint; keep it in the store."""
        training = self._training(context, needs[0])
        record = train_and_keep(context.store, training, self.place, context.teller)
        return outputs_of(record, self.recipe(context).how(self.iteration))

    def _training(self, context: Context, view: Outputs) -> Training:
        recipe = self.recipe(context)
        stream = _CONTROL_STREAM if self.model == CONTROL else self.iteration
        stream += _MEMBER_STREAM * (self.member - 1)
        return training_on(
            context.view(view["view"]),
            recipe,
            self.iteration,
            is_student=self.is_student,
            seed=torch_seed(recipe.seed, Purpose.TRAINING, stream),
            device=context.device,
        )

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the images of all its steps."""
        train = estimator.recipe.train
        timed = estimator.timed(self.iteration, self.member)
        images = train.steps * (train.labeled_batch + train.pseudo_batch)
        seconds = timed.train_seconds * images * _NOISE_SHARE
        return Estimate.of(images, seconds, timed.num_bytes)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say which model it is."""
        names = ("teacher_id", "architecture", "checkpoint")
        model = findings.model(self.model)
        model.update({name: outputs[name] for name in names})
        model["how"] = outputs["how"]


def outputs_of(record: TeacherRecord, how: How) -> dict[str, Any]:
    """Return what a training leaves for the steps that need it."""
    return {**{name: getattr(record, name) for name in OUTPUTS}, "how": how}
