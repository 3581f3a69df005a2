"""A model that was trained is finetuned: on labeled images alone, and kept beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from trainers.context import Context, Outputs
from trainers.estimate import Estimate, Estimator
from trainers.recipe import Recipe
from trainers.result import Findings
from trainers.steps.training import Train
from trainers.training.train import Training

_STREAM = 100_000


@dataclass(frozen=True, kw_only=True)
class Finetune(Train):
    """The last training of a model (Noisy Student, 4.1 and table 13); see `recipe.finetune`.

    It needs the view and the training. The model of before stays in the store: it is the one
    for robustness, which a higher resolution lowers.
    """

    kind: ClassVar[str] = "finetune"

    @property
    def teacher_id(self) -> str:
        """Of the model, once it is finetuned."""
        return f"{super().teacher_id}-finetuned"

    def recipe(self, context: Context) -> Recipe:
        """Return the recipe of the finetuning alone."""
        return super().recipe(context).finetuning()

    def what(self, context: Context) -> Mapping[str, object]:
        """Return all that it follows from, beside the view and the model of before."""
        frozen = self.recipe(context).finetune.frozen_blocks
        return {**super().what(context), "frozen_blocks": frozen}

    def _training(
        self, context: Context, view: Outputs, before: Outputs | None = None
    ) -> Training:
        frozen = self.recipe(context).finetune.frozen_blocks
        return replace(
            super()._training(context, view, before), frozen_blocks=frozen, lora_rank=None
        )

    @property
    def is_student(self) -> bool:
        """Never: it learns from labels alone."""
        return False

    @property
    def _stream(self) -> int:
        return _STREAM + super()._stream

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Train it on, and keep it beside the model of before."""
        return {**super().do(context, needs), "before": needs[1]["teacher_id"]}

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the images of all its steps, at their pixels."""
        recipe = estimator.recipe.at(self.iteration).member(self.member).finetuning()
        timed = estimator.timed(self.iteration, self.member, as_kept=True)
        steps = recipe.train.num_steps(estimator.source.splits["labeled"])
        images = steps * recipe.train.labeled_batch
        return Estimate.of(images, timed.train_seconds * images, timed.num_bytes)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say which model it is now, and which one it was."""
        super().report(findings, outputs)
        findings.model(self.model)["before_finetuning"] = outputs["before"]
