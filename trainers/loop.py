"""The loop of Noisy Student: teacher, labels, selection, student, and again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow.compute as pc
import torch

import plstore
from plstore.codec import Codec
from plstore.exchange import Source
from plstore.fingerprint import canonical_json, value_hash
from plstore.loaders import ImageSet, import_backend, open_split, pick_backend
from plstore.loaders.work import BackendName
from plstore.query import Balance, Selection, select, select_labeled
from plstore.report.progress import Display
from plstore.schema import Split
from plstore.seeds import Purpose, torch_seed
from plstore.store import (
    LabelSet,
    Shard,
    Store,
    View,
    commit_labels,
    find_view,
    pin,
    unpin,
    write_labels,
)
from trainers.importing import import_for_run
from trainers.inference import accuracy, label_batches
from trainers.model import Bundle, check_models, fetch_bundle, keep_bundle, load_bundle
from trainers.recipe import Recipe
from trainers.steps import Ledger, Step, plan_steps
from trainers.train import Trained, Training, train, trained_columns

Outputs = dict[str, Any]

_TRAINED = ("teacher_id", "role", "architecture", "checkpoint", "checkpoint_hash")

_LABELED_SPLITS: tuple[Split, ...] = ("unlabeled", "validation")
_EVALUATED_SPLITS: tuple[Split, ...] = ("validation", "test")
_CONTROL_STREAM = 1000  # seeds of students are 1, 2, ...; the control has its own


@dataclass(frozen=True, kw_only=True)
class Run:
    """A recipe, its images and the store they go to."""

    recipe: Recipe
    source: Source
    store: Store
    device: str
    display: Display

    @cached_property
    def decisions(self) -> dict[str, int]:
        """Versions of what people decided, as they were when the run was opened."""
        tables = [self.store.table(name) for name in ("exclusions", "corrections")]
        return {t.spec.name: t.version() if t.root.exists() else 0 for t in tables}

    @cached_property
    def backend(self) -> BackendName:
        """Of the loader: what trains, labels and evaluates alike."""
        return pick_backend(self.recipe.train.backend, self.device)

    @cached_property
    def steps(self) -> list[Step]:
        """The steps, in order."""
        return plan_steps(self.recipe, self.source, self._decided())

    def _decided(self) -> str:
        """Return a hash of what people decided: it stays when a table is compacted."""
        if not self.store.root.exists():
            return value_hash({})
        rows = {
            name: sorted(
                canonical_json({k: str(v) for k, v in row.items()})
                for row in self.store.table(name).read(version=version).to_pylist()
            )
            for name, version in self.decisions.items()
            if self.store.table(name).root.exists()
        }
        return value_hash({name: found for name, found in rows.items() if found})

    def execute(self) -> dict[str, Outputs]:
        """Do every step that is not done yet; return the outputs of all, by name.

        A run that is stopped, at whatever moment, goes on from there when it is executed
        again, and ends with the same result.
        """
        if self.recipe.train.threads is not None:
            torch.set_num_threads(self.recipe.train.threads)
        check_models(self.recipe, len(self.source.class_names))
        import_backend(self.backend)
        ledger = Ledger(self.store)
        kinds: Mapping[str, Callable[[Step, list[Outputs]], Outputs]] = {
            "import": self._import,
            "labeled": self._labeled,
            "train": self._train,
            "label": self._label,
            "select": self._select,
            "evaluate": self._evaluate,
        }
        done: dict[str, Outputs] = {}
        for number, step in enumerate(self.steps, start=1):
            outputs = ledger.outputs(step)
            if outputs is None:
                self.display.say(f"[{number}/{len(self.steps)}] {step.name}")
                start = monotonic()
                outputs = kinds[step.kind](step, [done[need] for need in step.needs])
                ledger.finish(step, outputs, monotonic() - start)
                self._partial(step).unlink(missing_ok=True)
            done[step.name] = outputs
        return done

    def _import(self, _: Step, __: list[Outputs]) -> Outputs:
        return import_for_run(
            self.store,
            self.source,
            max_pixels=self.recipe.data.max_pixels,
            display=self.display,
        )

    def _labeled(self, step: Step, needs: list[Outputs]) -> Outputs:
        view = select_labeled(
            self.store,
            f"{self.recipe.name}-labeled",
            seed=self.recipe.seed,
            held_out=self.recipe.select.held_out,
            recipe_hash=self.recipe.hash,
            identity=step.key,
            as_of={"images": needs[0]["images_version"], **self.decisions},
        )
        for why, number in view.record.counts.get("labeled_dropped", {}).items():
            self.display.say(f"  {number} labeled images left out: {why}")
        return {"view": step.key, "num_images": view.record.num_images}

    def _train(self, step: Step, needs: list[Outputs]) -> Outputs:
        if (kept := self._kept(step)) is not None:
            return kept
        view = self._view(needs[0]["view"])
        settings = self.recipe.train
        is_student = step.kind == "train" and step.needs[0].startswith("select")
        training = Training(
            recipe=self.recipe,
            architecture=self.recipe.model.student(step.iteration),
            view=view,
            num_classes=len(self.store.class_names),
            labeled_batch=settings.labeled_batch + (0 if is_student else settings.pseudo_batch),
            pseudo_batch=settings.pseudo_batch if is_student else 0,
            seed=torch_seed(
                self.recipe.seed,
                Purpose.TRAINING,
                _CONTROL_STREAM if step.is_control else step.iteration,
            ),
            device=self.device,
        )
        checkpoint = self._partial(step)
        title = f"train {_title(step)}, fed by {self.backend}"
        with self.display.task(title, settings.steps) as advance:
            shown = 0

            def on_step(done: int, loss: float) -> None:
                nonlocal shown
                advance(done - shown, f"loss {loss:.3f}" if done > shown else "")
                shown = done

            trained = train(training, checkpoint, on_step)
        if trained.num_replaced:
            self.display.say(
                f"  {trained.num_replaced} draws of damaged images were replaced by others; "
                "'plstore verify' names the images"
            )
        return self._keep(step, training, trained)

    def _partial(self, step: Step) -> Path:
        return self.store.cache_folder("partial", f"{step.key}.pt")

    def _kept(self, step: Step) -> Outputs | None:
        """Return the outputs of a training that was kept and stopped before it was recorded."""
        where = pc.field("teacher_id") == _teacher_id(step)
        for row in self.store.table("teachers").read(where=where).to_pylist():
            fetch_bundle(self.store, row["checkpoint"], row["checkpoint_hash"])
            return {name: row[name] for name in _TRAINED}
        return None

    def _keep(self, step: Step, training: Training, trained: Trained) -> Outputs:
        role = "control" if step.is_control else "teacher" if step.iteration == 0 else "student"
        teacher_id = _teacher_id(step)
        checkpoint, digest = keep_bundle(
            self.store, teacher_id, trained.network, trained.format, self.store.class_names
        )
        runs = [
            {"run": teacher_id, "step": number, "name": name, "value": value}
            for number, name, value in trained.metrics
        ]
        self.store.append("runs", runs, identity=step.key, step=step.name)
        row = {
            "teacher_id": teacher_id,
            "iteration": step.iteration,
            "role": role,
            "checkpoint": checkpoint,
            "checkpoint_hash": digest,
            **trained_columns(training, trained),
            "created_at": datetime.now(UTC),
        }
        self.store.append("teachers", [row], identity=step.key, step=step.name)
        return {name: row[name] for name in _TRAINED}

    def _bundle(self, trained: Outputs) -> Bundle:
        folder = fetch_bundle(self.store, trained["checkpoint"], trained["checkpoint_hash"])
        return load_bundle(folder, class_names=self.store.class_names, device=self.device)

    def _split(self, split: Split, imported: Outputs) -> ImageSet | None:
        """Return the images of a split as this run reads them, None where it has none."""
        version = imported["images_version"]
        if not self.store.count_images(split, version=version):
            return None
        decided = self.decisions["corrections"]
        return open_split(self.store, split, version=version, corrections=decided)

    def _label(self, step: Step, needs: list[Outputs]) -> Outputs:
        imported, teacher = needs
        bundle = self._bundle(teacher)
        settings = self.recipe.label
        codec = Codec(name=settings.codec, k=settings.topk)
        shards: list[Shard] = []
        counts: dict[str, int] = {}
        for split in _LABELED_SPLITS:
            if (images := self._split(split, imported)) is None:
                continue
            counts[split] = len(images)
            label_set = LabelSet(
                teacher_id=teacher["teacher_id"], iteration=step.iteration, split=split
            )
            with self.display.task(f"label {split} images", len(images)) as advance:
                batches = label_batches(
                    bundle,
                    images,
                    device=self.device,
                    backend=self.backend,
                    temperature=self.recipe.label.temperature,
                    on_images=advance,
                )
                shards += write_labels(
                    self.store, label_set, batches, codec=codec, identity=step.key
                )
        lineage = {
            "step": step.name,
            "teacher_id": teacher["teacher_id"],
            "checkpoint_hash": teacher["checkpoint_hash"],
            "recipe_hash": self.recipe.hash,
            "images_version": imported["images_version"],
            "temperature": self.recipe.label.temperature,
            "codec": codec.as_json(),
            "backend": self.backend,
        }
        version = commit_labels(self.store, shards, lineage=lineage, transaction=step.key)
        pins = {"images": imported["images_version"], "soft_labels": version}
        why = f"{self.recipe.name}, {step.name}"
        pin(self.store, step.key, pins, why=why)  # a run that is stopped here goes on from them
        return {"teacher_id": teacher["teacher_id"], "labels": counts, "pins": pins}

    def _select(self, step: Step, needs: list[Outputs]) -> Outputs:
        settings = self.recipe.select
        labeled, *previous = needs
        balance = Balance(
            policy=settings.policy,
            min_confidence=settings.min_confidence,
            images_per_class=settings.images_per_class,
            seed=self.recipe.seed,
        )
        selection = Selection(
            view=f"{self.recipe.name}-{step.iteration}",
            teachers=[f"{labeled['teacher_id']}@{step.iteration}"],
            balance=Balance(seed=self.recipe.seed) if previous else balance,
            relabel=self._view(previous[0]["view"]).key if previous else None,
            query=settings.query,
            parameters=settings.parameters,
            held_out=settings.held_out,
            recipe_hash=self.recipe.hash,
        )
        pins = {**labeled["pins"], **self.decisions}
        view = select(self.store, selection, identity=step.key, as_of=pins)
        unpin(self.store, self._label_key(step))  # the view pins the same
        counts = dict(view.record.counts)
        self._say_counts(counts)
        return {"view": step.key, "teacher_id": labeled["teacher_id"], "counts": counts}

    def _view(self, identity: str) -> View:
        view = find_view(self.store, identity)
        if view is None:
            raise plstore.PlstoreError(
                f"the view of step {identity} is gone from {self.store.root}"
            )
        return view

    def _label_key(self, step: Step) -> str:
        return next(other.key for other in self.steps if other.name == step.needs[0])

    def _say_counts(self, counts: Mapping[str, Any]) -> None:
        dropped = ", ".join(f"{reason} {n}" for reason, n in counts["dropped"].items())
        self.display.say(
            f"  {counts['in']} unlabeled images in, {counts['kept']} kept as "
            f"{counts['draws']} draws; dropped: {dropped or 'none'}"
        )
        if counts["classes_without_candidate"]:
            names = ", ".join(counts["classes_without_candidate"])
            self.display.say(f"  no pseudo-label was kept for {names}")

    def _evaluate(self, step: Step, needs: list[Outputs]) -> Outputs:
        imported, trained = needs
        bundle = self._bundle(trained)
        outputs: Outputs = {"teacher_id": trained["teacher_id"]}
        for split in _EVALUATED_SPLITS:
            if (images := self._split(split, imported)) is None:
                continue
            with self.display.task(f"evaluate on {split} images", len(images)) as advance:
                value = accuracy(
                    bundle, images, device=self.device, backend=self.backend, on_images=advance
                )
            outputs[f"{split}_accuracy"] = value
            self.display.say(f"  {split} accuracy of {_title(step)}: {value:.2f} %")
        runs = [
            {"run": trained["teacher_id"], "step": 0, "name": name, "value": value}
            for name, value in outputs.items()
            if name.endswith("accuracy")
        ]
        self.store.append("runs", runs, identity=step.key, step=step.name)
        return outputs


def _teacher_id(step: Step) -> str:
    prefix = "control" if step.is_control else f"t{step.iteration}"
    return f"{prefix}-{step.key[:8]}"


def _title(step: Step) -> str:
    if step.is_control:
        return "the control"
    return "the teacher" if step.iteration == 0 else f"student {step.iteration}"
