"""Labels are filtered and balanced: a view for the student."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from plstore.errors import InputError
from plstore.query import saved_query
from plstore.selection import Balance, Rule, Selection, select
from plstore.store import unpin
from trainers.context import Context, Outputs
from trainers.estimate import LABEL_BYTES, Estimate, Estimator
from trainers.result import Findings
from trainers.steps.step import Step


@dataclass(frozen=True, kw_only=True)
class Select(Step):
    """What a student trains on; with a second need, images and copies of that selection."""

    kind: ClassVar[str] = "select"

    def what(self, context: Context) -> Mapping[str, object]:
        """Return the settings, a query's text, its embeddings, and what people decided."""
        recipe = self.recipe(context)
        what = {
            **json.loads(recipe.select.model_dump_json()),
            "seed": recipe.seed,
            "sql": self._sql(context),
            "decisions": context.decided,
        }
        if not self._reads_embeddings(context) or context.embeddings is None:
            return what
        shards = context.store.table("embeddings").shards(context.embeddings)
        return {**what, "embeddings": sorted(shard.path for shard in shards)}

    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Select, and write the view."""
        labeled, *previous = needs
        selection = self._selection(context, labeled, previous)
        pins = {**labeled["pins"], **context.decisions}
        if self._reads_embeddings(context) and context.embeddings is not None:
            pins["embeddings"] = context.embeddings
        view = select(context.store, selection, identity=self.key, as_of=pins)
        unpin(context.store, labeled["pin"])  # the view pins the same
        counts = dict(view.record.counts)
        _say(context, counts)
        self._check_kept(context, counts)
        return {
            "view": self.key,
            "teacher_id": labeled["teacher_id"],
            "counts": counts,
            "min_confidence": self.recipe(context).select.min_confidence,
        }

    def _selection(
        self, context: Context, labeled: Outputs, previous: Sequence[Outputs]
    ) -> Selection:
        recipe, settings = context.recipe, self.recipe(context).select
        alias = "" if settings.where is None else "teacher="
        balance = Balance(
            policy=settings.policy,
            min_confidence=settings.min_confidence,
            images_per_class=settings.images_per_class,
            seed=recipe.seed,
        )
        return Selection(
            view=f"{recipe.name}-{self.iteration}",
            teachers=[f"{alias}{labeled['teacher_id']}@{labeled['iteration']}"],
            balance=Balance(seed=recipe.seed) if previous else balance,
            rule=Rule() if previous else Rule(where=settings.where),
            relabel=context.view(previous[0]["view"]).key if previous else None,
            query=settings.query,
            parameters=settings.parameters,
            held_out=settings.held_out,
            max_side=settings.max_side,
            quality=settings.quality,
            recipe_hash=recipe.hash,
        )

    def _check_kept(self, context: Context, counts: Mapping[str, Any]) -> None:
        """Stop where a student would have no pseudo-label to learn from.

        Raises:
            InputError: If so; it says what the labels were dropped for.
        """
        recipe = self.recipe(context)
        if counts["kept"] or not recipe.train.pseudo_batch:
            return
        dropped = ", ".join(f"{reason} {n:,}" for reason, n in counts["dropped"].items())
        raise InputError(
            f"no pseudo-label is left for student {self.iteration}: of {counts['in']:,} "
            f"unlabeled images none was kept ({dropped or 'there is none'}). Lower the floor, "
            f"{recipe.select.min_confidence:g} (--set select.min_confidence=0), or train the "
            "teacher longer (--set train.steps=...); what is trained stays"
        )

    def _sql(self, context: Context) -> str | None:
        """Return the text of the recipe's query, if it has one."""
        query = self.recipe(context).select.query
        return None if query is None else saved_query(query).sql

    def _reads_embeddings(self, context: Context) -> bool:
        return "embeddings" in (self._sql(context) or "").lower()

    def cost(self, estimator: Estimator) -> Estimate:
        """Return the labels, and what the loader's cache copies."""
        splits, recipe = estimator.source.splits, estimator.recipe.at(self.iteration)
        kept, quota = splits["unlabeled"], recipe.select.images_per_class
        if quota is not None and recipe.select.policy != "none":
            kept = min(kept, quota * len(estimator.source.class_names))
        count = splits["labeled"] + kept
        # images in the loader's cache; labels there and in the view, which names the images
        copied = estimator.image_bytes if recipe.train.shuffle == "global" else 0
        num_bytes = count * (copied + 2 * LABEL_BYTES)
        return Estimate.of(splits["unlabeled"], 1.0, num_bytes)

    def report(self, findings: Findings, outputs: Outputs) -> None:
        """Say what the student trained on, and how much of it is right."""
        student = findings.model(self.model)
        student["iteration"] = self.iteration
        student["images"] = outputs["counts"]["kept"]
        student["counts"] = outputs["counts"]
        student["view"] = outputs["view"]
        student["min_confidence"] = outputs["min_confidence"]
        right = findings.pseudo_label_accuracy(outputs["view"])
        if right is not None:
            student["pseudo_label_accuracy"] = right


def _say(context: Context, counts: Mapping[str, Any]) -> None:
    dropped = ", ".join(f"{reason} {n}" for reason, n in counts["dropped"].items())
    context.teller.say(
        f"  {counts['in']} unlabeled images in, {counts['kept']} kept as "
        f"{counts['draws']} draws; dropped: {dropped or 'none'}"
    )
    if "mean_weight" in counts:
        context.teller.say(f"  a draw weighs {counts['mean_weight']} on average")
    if "shrunk" in counts:
        context.teller.say(f"  {counts['shrunk']} of the view's images shrunk")
    if counts["classes_without_candidate"]:
        names = ", ".join(counts["classes_without_candidate"])
        context.teller.say(f"  no pseudo-label was kept for {names}")
