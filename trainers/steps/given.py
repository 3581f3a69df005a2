"""A teacher that is in the store already takes the place of the first training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from plstore.errors import InputError
from plstore.labels import TeacherRecord, find_label_sets
from plstore.store import pin
from trainers.context import Context, Outputs
from trainers.estimate import Estimate, Estimator
from trainers.result import Findings
from trainers.steps.step import Step

_OUTPUTS = ("teacher_id", "role", "architecture", "checkpoint", "checkpoint_hash")


def _teacher(context: Context) -> TeacherRecord:
    if context.teacher is None:
        raise InputError("a run from a teacher that is there, and no teacher is named")
    return context.teacher


@dataclass(frozen=True, kw_only=True)
class Given(Step):
    """A teacher that someone trained, brought or fused before."""

    kind: ClassVar[str] = "given"

    def what(self, context: Context) -> Mapping[str, object]:
        """Return which teacher it is."""
        teacher = _teacher(context)
        return {"teacher": teacher.teacher_id, "checkpoint": teacher.checkpoint_hash}

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Name it."""
        return {name: getattr(_teacher(context), name) for name in _OUTPUTS}

    def cost(self, estimator: Estimator) -> Estimate:
        """Return nothing."""
        return Estimate.of(0, 0.0, 0)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say which model it is."""
        names = ("teacher_id", "architecture", "checkpoint")
        findings.model(self.model).update({name: outputs[name] for name in names})


@dataclass(frozen=True, kw_only=True)
class GivenLabels(Step):
    """The last labels of a teacher that has no model: predictions, or a fusion."""

    kind: ClassVar[str] = "given-labels"

    def what(self, context: Context) -> Mapping[str, object]:
        """Return which labels there are: the files that hold them."""
        table = context.store.table("soft_labels")
        sets = find_label_sets(context.store, _teacher(context).teacher_id)
        paths = [shard.path for s in sets for shard in table.shards(partition=s.partition)]
        return {"labels": [asdict(s) for s in sets], "files": sorted(paths)}

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Pin them."""
        imported, teacher = needs
        table = context.store.table("soft_labels")
        version = table.version()
        sets = find_label_sets(context.store, teacher["teacher_id"], version=version)
        counts = {
            s.split: sum(x.num_rows for x in table.shards(version, s.partition)) for s in sets
        }
        if not counts.get("unlabeled"):
            raise InputError(
                f"teacher {teacher['teacher_id']!r} of {context.store.root} has no model and "
                f"no labels of unlabeled images; it has labels of {', '.join(counts)}"
            )
        pins = {"images": imported["images_version"], "soft_labels": version}
        pin(context.store, self.key, pins, why=f"{context.recipe.name}, {self.name}")
        return {
            "teacher_id": teacher["teacher_id"],
            "iteration": sets[0].iteration,
            "labels": counts,
            "pins": pins,
            "pin": self.key,
        }

    def cost(self, estimator: Estimator) -> Estimate:
        """Return nothing: they are there."""
        return Estimate.of(estimator.source.splits.get("unlabeled", 0), 0.0, 0)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say who taught the student."""
        findings.model(self.model)["taught_by"] = outputs["teacher_id"]
