"""The loop of Noisy Student: teacher, labels, selection, student, and again."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

from plstore.errors import InputError
from plstore.exchange import Source
from plstore.fingerprint import value_hash
from plstore.labels import TeacherRecord, find_teacher, list_teachers
from plstore.loaders import import_backend
from plstore.report.runs import keep_run
from plstore.storage import location
from plstore.store import Store, create
from trainers.absence import leave_out_gone
from trainers.context import Context, Outputs
from trainers.events import Listener, StepFinished, StepStarted, Teller, unheard
from trainers.ledger import Ledger
from trainers.recipe import Recipe
from trainers.result import Findings, build_result, result_rows
from trainers.sources import NO_IMAGES, open_source
from trainers.steps import Step, steps_of
from trainers.stopping import is_left_out, last_iteration
from trainers.training.checking import check_models, size_notes
from trainers.training.processes import ALONE, Processes
from trainers.training.threads import use_threads
from trainers.training.train import pick_device


@dataclass(frozen=True, kw_only=True)
class Run:
    """The steps of a recipe, done in order; those that are done already are not repeated."""

    context: Context

    @cached_property
    def steps(self) -> list[Step]:
        """The steps, in order."""
        return steps_of(self.context)

    @property
    def run_id(self) -> str:
        """Identity of its steps: of the recipe, the images and what people decided."""
        return value_hash({"steps": [step.key for step in self.steps]})[:8]

    def execute(self, only: Collection[str] | None = None) -> dict[str, Outputs]:
        """Do every step that is not done yet; return the outputs of all, by name.

        A run that is stopped, at whatever moment, goes on from there when it is executed
        again, and ends with the same result.

        Args:
            only: Names of steps, with those that they need; all unless given.
        """
        context, recipe = self.context, self.context.recipe
        wanted, threads = recipe.train.threads, use_threads(recipe.train.threads)
        if wanted is not None and threads < wanted:
            context.teller.say(
                f"train.threads is {wanted}, and there are cores for {threads}: it computes "
                "with as many, which changes the last bits"
            )
        num_classes = len(context.source.class_names)
        check_models(recipe, num_classes)
        for note in size_notes(recipe, num_classes):
            context.teller.say(note)
        import_backend(context.backend)
        leave_out_gone(context.store, context.teller.say)
        ledger = Ledger(context.store)
        done: dict[str, Outputs] = {}
        for number, step in enumerate(self.steps, start=1):
            if only is not None and step.name not in only:
                continue
            if is_left_out(step, last := last_iteration(recipe, done)):
                self._say_left_out(step, last)
                continue
            done[step.name] = self._execute(step, number, ledger, done)
        return done

    def _say_left_out(self, step: Step, last: int | None) -> None:
        if step.kind == "label" and step.iteration == (last or 0) + 1:
            self.context.teller.say(
                f"no student of the last {self.context.recipe.patience} was better on "
                f"validation images than the best before: those after student {last} are left "
                "out (patience)"
            )

    def _execute(
        self, step: Step, number: int, ledger: Ledger, done: dict[str, Outputs]
    ) -> Outputs:
        tell, total = self.context.teller.tell, len(self.steps)
        outputs = ledger.outputs(step)
        is_new = outputs is None
        if outputs is None:
            tell(StepStarted(name=step.name, kind=step.kind, number=number, total=total))
            start = monotonic()
            needs = [done[need] for need in step.needs if need in done]
            if step.is_shared:
                self.context.processes.share((step, needs))
            outputs = step.do(self.context, needs)
            ledger.finish(step, outputs, monotonic() - start)
        seconds = ledger.seconds(step)
        tell(
            StepFinished(
                name=step.name, kind=step.kind, outputs=outputs, seconds=seconds, is_new=is_new
            )
        )
        return outputs

    def result(self, done: dict[str, Outputs]) -> dict[str, Any]:
        """Return the result of a run that is done, JSON-like: what `result.json` holds.

        The store keeps it, see `plstore.list_runs`.
        """
        findings, ledger = Findings(self.context.store), Ledger(self.context.store)
        for step in self.steps:
            if step.name in done:
                step.report(findings, done[step.name])
        seconds = sum(ledger.seconds(step) for step in self.steps)
        result = {"run": self.run_id, **build_result(self.context.recipe, findings, seconds)}
        keep_run(self.context.store, self.run_id, result, result_rows(result))
        return result


def take_part(context: Context) -> None:
    """Do, with the first process, the steps that it shares, until its run ends.

    Args:
        context: Of this process: recipe, store and device are those of the first one.
    """
    while (work := _shared_work(context.processes)) is not None:
        step, needs = work
        step.do(context, needs)


def _shared_work(processes: Processes) -> tuple[Step, list[Outputs]] | None:
    return processes.share(None)


def open_run(
    recipe: Recipe,
    store: Store,
    *,
    device: str = "auto",
    on_event: Listener = unheard,
    source: Source | None = None,
    processes: Processes = ALONE,
) -> Run:
    """Return the run of a recipe on a store, with nothing done.

    Args:
        recipe: What to do.
        store: Where; it need not be there yet.
        device: "auto", "cpu" or a CUDA device.
        on_event: Told of every step.
        source: The images that the recipe names, where they are listed already.
        processes: That work together, of which this is the first.

    Raises:
        InputError: If its images or its teacher are not there, or the device is not.
    """
    source = open_source(recipe.data, recipe.seed, store, listed=source)
    context = Context(
        recipe=recipe,
        source=source,
        store=store,
        device=processes.device(pick_device(device)),
        processes=processes,
        teller=Teller(on_event),
        teacher=None if recipe.teacher is None else given_teacher(store, recipe.teacher),
    )
    return Run(context=context)


def run(
    recipe: Recipe,
    store: Store | str | Path,
    *,
    device: str = "auto",
    on_event: Listener = unheard,
    source: Source | None = None,
    processes: Processes = ALONE,
) -> dict[str, Any]:
    """Run a recipe: train, label, select, train again; goes on where it was stopped.

    Args:
        recipe: What to do; see `trainers.load_recipe`.
        store: Where it happens; made if it is not there.
        device: "auto", "cpu" or a CUDA device.
        on_event: Told of every step, of progress within it, and of what people should know;
            see `trainers.events`.
        source: The images that the recipe names, where they are listed already.
        processes: That work together, see `trainers.training.processes.join`. Only the first
            has a result; the others return an empty one when it is done.

    Returns:
        The result, JSON-like: `teacher`, `students` by iteration, `control`, with accuracies
        in percent; see `result.json`.

    Raises:
        InputError: If images, models or settings are not as they must be.
    """
    there = store if isinstance(store, Store) else Store(location(store))
    if not processes.is_first:
        take_part(_part_of(recipe, there, device, processes))
        return {}
    opened = open_run(
        recipe, there, device=device, on_event=on_event, source=source, processes=processes
    )
    if not isinstance(store, Store):  # not before, lest one is made for nothing
        opened = Run(context=replace(opened.context, store=create(store)))
    done = opened.execute()
    processes.share(None)  # the others are done
    return opened.result(done)


def _part_of(recipe: Recipe, store: Store, device: str, processes: Processes) -> Context:
    """Return what a process works with that is not the first: no images of its own."""
    return Context(
        recipe=recipe,
        source=NO_IMAGES,
        store=store,
        device=processes.device(pick_device(device)),
        processes=processes,
        teller=Teller(unheard),
    )


def given_teacher(store: Store, teacher_id: str) -> TeacherRecord:
    """Return the teacher that is there already, in place of a first training.

    Raises:
        InputError: If the store has none of that name.
    """
    teacher = find_teacher(store, teacher_id) if store.root.exists() else None
    if teacher is None:
        known = list_teachers(store) if store.root.exists() else []
        raise InputError(
            f"{store.root} has no teacher {teacher_id!r}; it has "
            f"{', '.join(t.teacher_id for t in known) or 'none'}"
        )
    return teacher
