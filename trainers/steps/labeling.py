"""A teacher labels the unlabeled images, and those of validation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from plstore.codec import Codec
from plstore.schema import Split
from plstore.store import pin
from trainers.context import Context, Outputs
from trainers.estimate import LABEL_BYTES, Estimate, Estimator
from trainers.labeling.label import Labeling, embed_for_teacher, label_missing
from trainers.models.teacher_noise import TeacherNoise
from trainers.result import Findings
from trainers.steps.step import Step

_SPLITS: tuple[Split, ...] = ("unlabeled", "validation")


@dataclass(frozen=True, kw_only=True)
class Label(Step):
    """A teacher labels clean images."""

    kind: ClassVar[str] = "label"
    is_shared: ClassVar[bool] = True

    def what(self, context: Context) -> Mapping[str, object]:
        """Return how labels are made and kept."""
        recipe = self.recipe(context)
        left_out = {"best", "views", "view_epochs"}  # they change no label of a clean image
        what: dict[str, object] = json.loads(recipe.label.model_dump_json(exclude=left_out))
        if recipe.noise.teacher:
            what |= {"noise": recipe.noise.model_dump(mode="json"), "seed": recipe.seed}
        return what

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Label them range by range; pin what the selection reads."""
        imported, teacher = needs
        store, version = context.store, imported["images_version"]
        counts = {split: store.count_images(split, version=version) for split in _SPLITS}
        counts = {split: count for split, count in counts.items() if count}
        for split, count in counts.items():
            labeling = self._labeling(context, teacher, split, version)
            if context.processes.is_first:
                embed_for_teacher(store, labeling, on_event=context.teller.tell)
            context.processes.wait()
            with context.teller.task(f"label {split} images", count) as advance:
                label_missing(store, labeling, on_images=advance)
        context.processes.wait()
        pins = {"images": version, "soft_labels": store.table("soft_labels").version()}
        why = f"{context.recipe.name}, {self.name}"
        if context.processes.is_first:
            pin(store, self.key, pins, why=why)  # a run that is stopped here goes on from them
        return {
            "teacher_id": teacher["teacher_id"],
            "iteration": self.iteration,
            "labels": counts,
            "pins": pins,
            "pin": self.key,
        }

    def _labeling(
        self, context: Context, teacher: Outputs, split: str, version: int
    ) -> Labeling:
        settings = self.recipe(context).label
        return Labeling(
            teacher_id=teacher["teacher_id"],
            iteration=self.iteration,
            splits=[split],
            codec=Codec(name=settings.codec, k=settings.topk),
            temperature=settings.temperature,
            device=context.device,
            backend=context.backend,
            identity=self.key,
            noise=self._noise(context, split),
            part=(context.processes.rank, context.processes.size),
            images_version=version,
            notes={"step": self.name, "recipe_hash": context.recipe.hash},
        )

    def _noise(self, context: Context, split: str) -> TeacherNoise | None:
        """Return the noise of the teacher, if it has any: of the pool, not of validation."""
        recipe = self.recipe(context)
        if not recipe.noise.teacher or split != "unlabeled":
            return None
        last = context.recipe.at(self.iteration - 1).member(self.member)
        model = last.model_of(self.iteration - 1)
        return TeacherNoise(noise=recipe.noise, model=model, seed=recipe.seed)

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the images that are labeled."""
        splits = estimator.source.splits
        count = splits["unlabeled"] + splits.get("validation", 0)
        seconds = estimator.look_seconds(self.iteration - 1, self.member) * count
        return Estimate.of(count, seconds, count * LABEL_BYTES)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say who taught the student; of several teachers, their fusion does."""
        if self.member > 1:
            return
        findings.model(self.model)["taught_by"] = outputs["teacher_id"]
