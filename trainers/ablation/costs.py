"""How long an experiment takes, and what of it fits a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapreplace
from statistics import mean
from typing import Any

from plstore.machine import num_cores
from plstore.store import Store
from trainers.ablation.lines import Line
from trainers.ablation.measuring import is_robust, robust_seconds
from trainers.ablation.plan import Ablation, Job
from trainers.estimate import Estimator
from trainers.events import said_time
from trainers.ledger import Ledger
from trainers.training.timing import Timed, slower_on_a_share
from trainers.training.train import pick_device

Jobs = Mapping[int, Sequence[Job]]
"""Jobs that are not finished, by seed."""


@dataclass
class Costs:
    """What jobs take: as long as the same cell took with other seeds, else by estimate.

    Attributes:
        ablation: The experiment.
        lines: What is finished.
        shares: Of the cores, one of which does a seed; what is finished was done so too.
    """

    ablation: Ablation
    lines: Sequence[Line]
    shares: int = 1
    _timed: dict[tuple[str, int, str], Timed] = field(default_factory=dict)
    _steps: dict[str, float] = field(default_factory=dict)

    def seconds(self, job: Job) -> float:
        """Return how long a job takes, without the steps that cells before it need too."""
        left = self._left(job)
        whole = (sum(left.values()) + self._robust(job)) * self._slower
        took = [line.seconds for line in self.lines if _is_of(line, job)]
        if len(left) < len(job.own) or not took:  # some of it is done, or nothing is known
            return whole
        return mean(took)

    def of_seed(self, jobs: Sequence[Job]) -> float:
        """Return how long jobs take one after the other."""
        return sum(map(self.seconds, jobs))

    def num_left(self, job: Job) -> int:
        """Return how many of a job's own steps are not done."""
        return len(self._left(job))

    def _left(self, job: Job) -> dict[str, float]:
        """Return seconds of the steps to do, by key."""
        ledger = Ledger(Store(job.place))
        left = [s for s in job.steps if s.key in job.own and ledger.outputs(s) is None]
        if any(self._name(job, step.name) not in self._steps for step in left):
            device = pick_device(self.ablation.device)
            estimator = Estimator(job.recipe, job.source, device, self._timed)
            for step in left:
                self._steps[self._name(job, step.name)] = step.cost(estimator).seconds
        return {step.key: self._steps[self._name(job, step.name)] for step in left}

    @property
    def _slower(self) -> float:
        on_cores = pick_device(self.ablation.device) == "cpu"
        return slower_on_a_share(self.shares, num_cores()) if on_cores else 1.0

    def _name(self, job: Job, step: str) -> str:
        return f"{job.cell.name} {step}"  # a step of another seed takes as long

    def _robust(self, job: Job) -> float:
        if not is_robust(job.cell):
            return 0.0
        return robust_seconds(job.cell, self.ablation.worse, job.source.splits["test"])


def _is_of(line: Line, job: Job) -> bool:
    """Whether a line is of a job but for its seed: of another recipe it says nothing."""
    recipe = job.recipe.model_copy(update={"seed": line.seed})
    return line.cell == job.cell.name and line.lineage.get("recipe_hash") == recipe.hash


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is done within a budget.

    Attributes:
        jobs: That are done, by seed.
        said: What is cut, in words; empty where all fits.
    """

    jobs: Jobs
    said: str = ""


def elapsed(seconds: Sequence[float], workers: int) -> float:
    """Return how long seeds take that go, in their order, to the worker that is free first."""
    busy = [0.0] * workers
    for each in seconds:
        heapreplace(busy, busy[0] + each)
    return max(busy)


def cut(jobs: Jobs, costs: Costs, budget: float | None, workers: int = 1) -> Cut:
    """Return the jobs that fit a budget: seeds are cut before cells, the last ones first.

    Args:
        jobs: That are not finished, by seed.
        costs: How long they take.
        budget: Seconds; None for no end.
        workers: That take a seed each.
    """
    if budget is None:
        return Cut(jobs=jobs)
    seconds = {seed: costs.of_seed(of) for seed, of in jobs.items()}
    kept = list(jobs)
    while len(kept) > 1 and elapsed([seconds[seed] for seed in kept], workers) > budget:
        kept.pop()
    gone = [seed for seed in jobs if seed not in kept]
    said = f"seeds {', '.join(map(str, gone))} are cut: " if gone else ""
    if not kept or elapsed([seconds[seed] for seed in kept], workers) <= budget:
        whole = said_time(elapsed(list(seconds.values()), workers))
        said += f"all takes about {whole}" if gone else ""
        return Cut(jobs={seed: jobs[seed] for seed in kept}, said=said)
    return _cells_cut(kept[0], jobs[kept[0]], costs, budget, said)


def _cells_cut(seed: int, jobs: Sequence[Job], costs: Costs, budget: float, said: str) -> Cut:
    """Return the first jobs of one seed that fit."""
    kept: list[Job] = []
    seconds = 0.0
    for job in jobs:
        seconds += costs.seconds(job)
        if seconds > budget:
            break
        kept.append(job)
    gone = ", ".join(job.cell.name for job in jobs[len(kept) :])
    return Cut(jobs={seed: kept}, said=f"{said}of seed {seed} cells are cut: {gone}")


def plan_rows(
    jobs: Jobs, finished: Mapping[str, int], costs: Costs, workers: int = 1
) -> list[dict[str, Any]]:
    """Return a row a cell of the first seed that has something to do, and the sum of all.

    Args:
        jobs: That are not finished, by seed.
        finished: Seeds that are finished, by cell.
        costs: How long they take.
        workers: That take a seed each.
    """
    first: Sequence[Job] = next((of for of in jobs.values() if of), ())
    rows: list[dict[str, Any]] = [
        {
            "cell": job.cell.name,
            "of": job.cell.of,
            "numbers": " ".join(job.cell.numbers),
            "seeds done": finished.get(job.cell.name, 0),
            "steps": len(job.steps),
            "shared": len(job.steps) - len(job.own),
            "to do": costs.num_left(job),
            "seconds": round(costs.seconds(job)),
        }
        for job in first
    ]
    keys = ("steps", "shared", "to do", "seconds")
    sums = {key: sum(row[key] for row in rows) for key in keys}
    rows.append({"cell": "a seed", "of": None, "numbers": None, "seeds done": None, **sums})
    total = round(elapsed([costs.of_seed(of) for of in jobs.values()], workers))
    name = f"{len(jobs)} seeds"
    empty = dict.fromkeys(("of", "numbers", "seeds done", *keys))
    return [*rows, {"cell": name, **empty, "seconds": total}]
