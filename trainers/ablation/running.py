"""Runs the cells of a grid, seed by seed; what is finished is a line, and never run again."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from plstore.containment import end_with
from plstore.errors import InputError, PlstoreError
from plstore.fingerprint import value_hash
from plstore.machine import keep_to_share, num_cores
from plstore.report.progress import Display
from plstore.store import create
from plstore.version import __version__
from trainers.ablation.costs import Costs, Jobs, cut, plan_rows
from trainers.ablation.findings import PAGE, Row, Values, finding_rows, write_findings
from trainers.ablation.lines import CELLS, Line, add_lines, by_identity, lines_of, read_lines
from trainers.ablation.measuring import measured
from trainers.ablation.plan import Ablation, Job, Planner
from trainers.engines import HERE, Engine, uncounted
from trainers.engines.work import OnImages
from trainers.events import Listener, Shown, Teller, said_time, unheard
from trainers.ledger import Ledger
from trainers.training.threads import use_threads


def ablate(
    ablation: Ablation, *, engine: Engine = HERE, on_event: Listener = unheard
) -> list[Row]:
    """Run what is not finished of an experiment; return a row a finding.

    Cells go seed by seed, so that a stop leaves whole pairs. A finished cell is a line of
    ``cells.jsonl`` in its home, with the hash of all that it follows from: it is never run
    again, also where the stores are gone. Findings are written after every seed.

    Args:
        ablation: What to run, where.
        engine: Who runs the seeds: `HERE`, or a `Ray` cluster whose nodes all see the home.
        on_event: Told of every cell and step, and of progress within it.

    Returns:
        By finding: finding, sentence, source, cells, number, paper, ours, low, high, seeds,
        agrees, verdict and more; see `trainers.ablation.findings`.

    Raises:
        InputError: If the grid, its recipes, its images or finished lines are not as they must
            be.
    """
    return Experiment(ablation, on_event, engine).run()


def plan(
    ablation: Ablation, *, engine: Engine = HERE, on_event: Listener = unheard
) -> list[Row]:
    """Return what an experiment has to do, by cell, with steps and seconds; do none of it."""
    experiment = Experiment(ablation, on_event, engine)
    experiment.prepare()
    finished = {cell: len(seeds) for cell, seeds in experiment.values().items()}
    jobs = experiment.within_budget()
    return plan_rows(jobs, finished, experiment.costs, experiment.workers)


@dataclass
class Experiment:
    """An experiment in progress.

    Attributes:
        ablation: What to run, where.
        on_event: Told of every cell and step.
        engine: Who runs the seeds.
        is_quiet: Whether other processes that do so show nothing.
        failed: What went wrong, by cell.
    """

    ablation: Ablation
    on_event: Listener
    engine: Engine = HERE
    is_quiet: bool = False
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin to count seconds."""
        self._say = Teller(self.on_event).say
        self._start = monotonic()

    def prepare(self) -> None:
        """Check everything; take over results; find out what is to do."""
        ablation = self.ablation
        self._planner = Planner(ablation)
        self._jobs = {seed: self._planner.jobs(seed) for seed in ablation.all_seeds}
        self._others = lines_of(ablation.results)
        self._read()
        for cell, why in self._planner.left_out.items():
            self._say(f"cell {cell} is left out: {why}")
        done = sum(job.identity in self._lines for jobs in self._jobs.values() for job in jobs)
        total = sum(map(len, self._jobs.values()))
        others = len(self._lines) - len(
            {job.identity for jobs in self._jobs.values() for job in jobs} & set(self._lines)
        )
        self._say(f"{done} of {total} cells are finished; {self._shared()}")
        if others:
            path = ablation.home / CELLS
            self._say(f"{path} also has {others} results of other grids, seeds or images")

    def _shared(self) -> str:
        jobs = next(iter(self._jobs.values()))
        steps = sum(len(job.steps) for job in jobs)
        own = sum(len(job.own) for job in jobs)
        return f"{len(jobs)} cells of a seed have {steps} steps, {steps - own} of them shared"

    def _read(self) -> None:
        there = read_lines(self.ablation.home / CELLS)
        self._lines = by_identity([*there, *chain.from_iterable(self._others.values())])

    @property
    def costs(self) -> Costs:
        """How long jobs take, by what is finished."""
        shares = self.workers if self.engine.is_here else 1  # a cluster's have their own cores
        return Costs(self.ablation, list(self._lines.values()), shares)

    @property
    def workers(self) -> int:
        """Processes that take a seed each: not more than seeds that are not finished."""
        left = [
            any(job.identity not in self._lines for job in of) for of in self._jobs.values()
        ]
        return max(min(self.ablation.workers, sum(left)), 1)

    def within_budget(self) -> Jobs:
        """Return the jobs to do, by seed; say what the budget cuts."""
        left = {
            seed: [job for job in jobs if job.identity not in self._lines]
            for seed, jobs in self._jobs.items()
        }
        left = {seed: jobs for seed, jobs in left.items() if jobs}
        budget = self.ablation.budget
        found = cut(left, self.costs, budget, self.workers)
        if found.said:
            self._say(f"of a budget of {said_time(budget or 0)}, {found.said}")
        return found.jobs

    def run(self) -> list[Row]:
        """Do the jobs; write findings after every seed."""
        self.prepare()
        for path, lines in self._others.items():
            count = add_lines(self.ablation.home, lines)
            self._say(f"{path}: {count} results taken over")
        jobs = self.within_budget()
        rows = self.written()
        for seed in self._done(jobs):
            self._read()
            rows = self.written()
            self._say(f"seed {seed} is done: {_told(rows)}")
        for cell, why in self.failed.items():
            self._say(f"cell {cell} failed: {why}")
        self._say(f"findings: {self.out / PAGE}")
        return rows

    @property
    def out(self) -> Path:
        """Folder of what is found."""
        return self.ablation.out or self.ablation.home

    def _done(self, jobs: Jobs) -> Iterator[int]:
        """Do jobs; yield each seed that is done."""
        if not self.engine.is_here:
            return self._elsewhere(jobs)
        return self._in_processes(jobs) if self.ablation.workers > 1 else self._here(jobs)

    def _elsewhere(self, jobs: Jobs) -> Iterator[int]:
        """Do jobs on the engine's workers, a seed each; yield each seed that is done."""
        tasks = [Seed(seed, tuple(job.cell.name for job in of)) for seed, of in jobs.items()]
        work = SeedWork(ablation=self.ablation.with_whole_paths())
        with closing(self.engine.run(work, tasks, uncounted)) as results:
            for seed, failed in results:
                self.failed |= failed
                yield seed

    def _here(self, jobs: Jobs) -> Iterator[int]:
        """Do jobs in this process; yield each seed that is done."""
        costs, budget = self.costs, self.ablation.budget
        seconds = {seed: costs.of_seed(of) for seed, of in jobs.items()}
        for place, (seed, of) in enumerate(jobs.items()):
            spent = monotonic() - self._start
            if place and budget is not None and spent + self.costs.of_seed(of) > budget:
                self._say(f"seed {seed} and those after it are cut: they do not fit the budget")
                return
            later = sum(list(seconds.values())[place + 1 :])
            self.failed |= _do_seed(self.ablation, of, self.on_event, costs, later)
            yield seed

    def _in_processes(self, jobs: Jobs) -> Iterator[int]:
        """Do jobs in other processes, a seed each; yield each seed that is done."""
        if not jobs:
            return
        others = multiprocessing.active_children()
        with side_by_side(min(self.ablation.workers, len(jobs))) as pool:
            names = {seed: [job.cell.name for job in of] for seed, of in jobs.items()}
            waiting = {
                pool.submit(
                    _do_apart, self.ablation, seed, wanted, is_quiet=self.is_quiet
                ): seed
                for seed, wanted in names.items()
            }
            try:
                for future in as_completed(waiting):
                    self.failed |= future.result()
                    yield waiting[future]
            except BrokenProcessPool as error:
                raise PlstoreError(
                    "a worker was killed, as the system does where memory is short (fewer "
                    "--workers need less); the same command goes on from the finished cells"
                ) from error
            except BaseException:  # the pool would wait until all seeds are done
                for child in multiprocessing.active_children():
                    if child not in others:
                        child.kill()
                raise

    def values(self) -> Values:
        """Return all that is finished of this grid, by cell and seed."""
        found: dict[str, dict[int, Mapping[str, float]]] = {}
        for seed, jobs in self._jobs.items():
            for job in jobs:
                if job.identity in self._lines:
                    of = self._lines[job.identity].values
                    found.setdefault(job.cell.name, {})[seed] = of
        return found

    def written(self) -> list[Row]:
        """Write what is found so far; return it."""
        ablation = self.ablation
        values = self.values()
        why = self._planner.left_out | {c.partition(",")[0]: w for c, w in self.failed.items()}
        rows = finding_rows(ablation.findings, ablation.cells, values, why)
        seeds = {seed for of in values.values() for seed in of}
        about = {
            "Seeds": f"{len(seeds)} of {len(self._jobs)} begun or finished",
            "Images": ", ".join(filter(None, ablation.images)),
            "plstore": __version__,
        }
        write_findings(self.out, ablation.loaded, rows, about)
        return rows


def _told(rows: Sequence[Row]) -> str:
    verdicts = [row["verdict"] for row in rows]
    return ", ".join(
        f"{verdicts.count(name)} {name}"
        for name in ("agrees", "not shown", "contradicts", "not run")
        if name in verdicts
    )


def side_by_side(workers: int) -> ProcessPoolExecutor:
    """Return processes that share the cores of this one; they end when it does."""
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    for place in range(workers):
        places.put(place)
    return ProcessPoolExecutor(
        workers, context, initializer=_begin, initargs=(os.getpid(), places, workers)
    )


def _begin(parent: int, places: SimpleQueue[int], workers: int) -> None:
    end_with(parent)
    keep_to_share(places.get(), workers)
    use_threads(num_cores())


def _do_apart(
    ablation: Ablation, seed: int, names: Sequence[str], *, is_quiet: bool = False
) -> dict[str, str]:
    """Do some cells of a seed, in a process of its own."""
    jobs = [job for job in Planner(ablation).jobs(seed) if job.cell.name in names]
    lines = list(by_identity(read_lines(ablation.home / CELLS)).values())
    shown = Shown(Display(quiet=is_quiet))
    return _do_seed(ablation, jobs, shown, Costs(ablation, lines), 0.0)


class Seed(NamedTuple):
    """Cells of a seed that are to be done."""

    seed: int
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SeedWork:
    """A worker does cells of a seed; a `trainers.engines.Work`.

    Attributes:
        ablation: The experiment, with paths that are the same for every worker.
    """

    ablation: Ablation

    @property
    def device(self) -> str:
        """Where it computes."""
        return self.ablation.device

    def open(self, on_images: OnImages) -> Callable[[Seed], tuple[int, dict[str, str]]]:
        """Return what does a seed; one that was begun goes on from its store."""
        del on_images
        return lambda asked: (asked.seed, _do_apart(self.ablation, *asked))


def _do_seed(
    ablation: Ablation, jobs: Sequence[Job], on_event: Listener, costs: Costs, later: float
) -> dict[str, str]:
    """Do jobs one after the other, and keep a line of each; return what failed, and why.

    Args:
        ablation: The experiment.
        jobs: Of one seed.
        on_event: Told of progress.
        costs: How long they take.
        later: Seconds of the seeds after it.
    """
    say, failed = Teller(on_event).say, {}
    for place, job in enumerate(jobs):
        left = costs.of_seed(jobs[place:]) + later
        cell = f"{job.cell.name}, seed {job.seed}"
        say(f"cell {place + 1} of {len(jobs)}: {cell}; about {said_time(left)} left in all")
        try:
            add_lines(ablation.home, [_line(ablation, job, on_event)])
        except PlstoreError as error:  # of one cell: the others go on, and it is told
            failed[cell] = str(error)
            say(f"cell {cell} failed: {error}")
    return failed


def _line(ablation: Ablation, job: Job, on_event: Listener) -> Line:
    """Do a job; return what is kept of it."""
    store = create(job.place)
    opened = job.opened(store, ablation.device)
    context = replace(opened.context, teller=Teller(on_event))
    opened = replace(opened, context=context)
    done = opened.execute(only={step.name for step in job.steps})
    start = monotonic()
    values = measured(
        job.cell,
        done,
        store,
        ablation.worse,
        device=context.device,
        on_event=on_event,
    )
    if not values:
        raise InputError(
            f"none of {', '.join(job.cell.numbers)} is known of it: a sum of errors to divide "
            "by is zero, or there are no images to measure it on"
        )
    ledger = Ledger(store)
    own = sum(ledger.seconds(step) for step in job.steps if step.key in job.own)
    return Line(
        cell=job.cell.name,
        seed=job.seed,
        identity=job.identity,
        values=values,
        seconds=round(own + monotonic() - start, 1),
        lineage=_lineage(ablation, job, context.device),
    )


def _lineage(ablation: Ablation, job: Job, device: str) -> dict[str, Any]:
    return {
        "grid": ablation.loaded.name,
        "recipe": job.recipe.name,
        "recipe_hash": job.recipe.hash,
        "images": value_hash({"identity": job.source.identity}),
        "steps": {step.name: step.key for step in job.steps},
        "code_version": __version__,
        "store": job.place.relative_to(ablation.home).as_posix(),
        "device": device,
    }
