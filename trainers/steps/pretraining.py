"""A network learns from unlabeled images alone; a run's models start from its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from plstore.errors import InputError
from plstore.fingerprint import content_hash
from plstore.seeds import Purpose, torch_seed
from trainers.context import Context, Outputs
from trainers.estimate import Estimate, Estimator
from trainers.result import Findings
from trainers.steps.step import Step
from trainers.steps.training import outputs_of
from trainers.training.keeping import Place, pretrain_and_keep
from trainers.training.pretraining import Pretraining, as_pretrained
from trainers.training.recording import LOSS
from trainers.training.watching import FeatureWatch

_SETTINGS = frozenset({"precision", "backend", "threads", "ema_decay"})
_OF_OTHERS = frozenset({"also", "weights", "pretrained", "dropout", "stochastic_depth"})


@dataclass(frozen=True, kw_only=True)
class Pretrain(Step):
    """Self-supervised training on the unlabeled images; see `recipe.pretrain`."""

    kind: ClassVar[str] = "pretrain"

    @property
    def teacher_id(self) -> str:
        """Of what it leaves."""
        return f"pre-{self.key[:8]}"

    def what(self, context: Context) -> Mapping[str, object]:
        """Return all that it follows from, beside the images."""
        recipe = context.recipe
        what = {
            "model": recipe.model.model_dump(mode="json", exclude=set(_OF_OTHERS)),
            "pretrain": recipe.pretrain.model_dump(mode="json"),
            "optimizer": as_pretrained(recipe).optimizer.model_dump(mode="json"),
            "train": recipe.train.model_dump(mode="json", include=set(_SETTINGS)),
            "seed": recipe.seed,
        }
        excluded = context.excluded
        if len(excluded):
            what["excluded"] = content_hash(np.sort(excluded).tobytes())
        return what

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Train it, or go on from its last checkpoint; keep it in the store."""
        imported = needs[0]
        images = context.split("unlabeled", imported)
        if images is None:
            raise InputError(
                "there is no unlabeled image to pretrain on; set pretrain.steps to 0"
            )
        rows = np.flatnonzero(~np.isin(images.sample_ids, context.excluded))
        if len(rows) < len(images):
            context.teller.say(
                f"  {len(images) - len(rows)} unlabeled images left out: excluded"
            )
        training = Pretraining(
            recipe=context.recipe,
            images=images,
            rows=rows,
            images_version=imported["images_version"],
            seed=torch_seed(context.recipe.seed, Purpose.PRETRAINING),
            device=context.device,
            watch=_watch(context, imported),
        )
        place = Place(
            teacher_id=self.teacher_id,
            iteration=0,
            role="pretrained",
            identity=self.key,
            step=self.name,
            title=f"{context.recipe.model.architecture} on {len(rows):,} unlabeled images",
        )
        record = pretrain_and_keep(context.store, training, place, context.teller)
        return {**outputs_of(record, "scratch"), "loss": (record.metrics or {}).get(LOSS)}

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the versions of images of all its steps."""
        settings, timed = estimator.recipe.pretrain, estimator.timed(0)
        pool = estimator.source.splits.get("unlabeled", 0)
        images = settings.steps * min(settings.batch, pool) * settings.versions
        seconds = timed.train_seconds * images * estimator.noising
        copied = pool * estimator.image_bytes  # to the cache
        return Estimate.of(images, seconds, timed.num_bytes + copied)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say which network it is."""
        names = ("teacher_id", "architecture", "checkpoint", "loss")
        findings.pretrained = {name: outputs[name] for name in names}


def _watch(context: Context, imported: Outputs) -> FeatureWatch | None:
    """Return how it is looked at, twice as often as models are; None where it cannot be."""
    looks = 2 * context.recipe.train.looks
    labeled, validation = (context.split(name, imported) for name in ("labeled", "validation"))
    if not looks or labeled is None or validation is None:
        return None
    return FeatureWatch(labeled=labeled, images=validation, looks=looks)
