"""What an experiment has to do: cells of seeds, the steps they share, and how long it takes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from plstore.errors import InputError, MissingExtraError
from plstore.exchange import Source
from plstore.fingerprint import value_hash
from plstore.storage import location
from plstore.store import Store
from trainers.ablation.cells import (
    Chosen,
    ResolvedCell,
    chosen_findings,
    images_of,
    needed,
    resolve_cells,
)
from trainers.ablation.grid import Finding, Grid, Worse, load_grid
from trainers.ablation.measuring import check_extra, is_robust
from trainers.data.pools import UnknownTruthError
from trainers.loop import Run, open_run
from trainers.programs import parse_seeds
from trainers.recipe import Recipe
from trainers.sources import open_source
from trainers.steps.step import Step

_BY_TEACHER: Final = "evaluate-0"
_OF_VALIDATION: Final = "validation_accuracy"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """An experiment: a grid of cells, run with several seeds, and what comes of it.

    Attributes:
        grid: Name of a grid that ships ("paper"), or a TOML file.
        home: Folder of its stores and results.
        seeds: Such as "0..4"; the grid's unless given.
        data: Name of the grid's images; its first unless given.
        folders: Values of the recipes' section `data`, such as labeled, unlabeled and test.
        overrides: Of all cells, before their own, as of `load_recipe`.
        only: Ids of findings; all unless given.
        budget: Seconds for all of it: what takes longer is cut, seeds before cells.
        results: Files of finished cells, of other places, that are taken over first.
        workers: Processes that take a seed each.
        device: "auto", "cpu" or a CUDA device.
        out: Folder of what was found; `home` unless given.
    """

    grid: str | Path
    home: Path
    seeds: str = ""
    data: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    only: Sequence[str] = ()
    budget: float | None = None
    results: Sequence[Path] = ()
    workers: int = 1
    device: str = "auto"
    out: Path | None = None

    def __post_init__(self) -> None:
        """Make the home absolute: stores name their places from it."""
        object.__setattr__(self, "home", location(self.home))

    def with_whole_paths(self) -> "Ablation":
        """Return it with absolute paths, for a process that runs in another folder."""
        grid = Path(self.grid)
        return replace(
            self,
            grid=grid.resolve() if grid.is_file() else self.grid,
            folders={
                name: str(Path(path).resolve()) if Path(path).exists() else path
                for name, path in self.folders.items()
            },
            results=[path.resolve() for path in self.results],
            out=None if self.out is None else self.out.resolve(),
        )

    @cached_property
    def _loaded(self) -> tuple[Grid, Path]:
        return load_grid(self.grid)

    @property
    def loaded(self) -> Grid:
        """The grid, read and checked."""
        return self._loaded[0]

    @property
    def worse(self) -> Worse:
        """How images are made worse."""
        own = images_of(self.loaded, self.data).robustness
        return self.loaded.robustness if own is None else own

    @cached_property
    def cells(self) -> dict[str, ResolvedCell]:
        """All cells of the grid, each with a recipe that loads."""
        values = {"source": "folders", **self.folders} if self.folders else {}
        chosen = Chosen(data=self.data, values=values, overrides=self.overrides)
        return resolve_cells(self.loaded, self._loaded[1], chosen)

    @property
    def images(self) -> tuple[str, str]:
        """The name of the images that are asked for, and what the grid says of them."""
        name = self.data or next(iter(self.loaded.data))
        return name, self.loaded.data[name].about.strip()

    @property
    def findings(self) -> list[Finding]:
        """Those that are asked for."""
        return chosen_findings(self.loaded, self.only)

    @property
    def wanted(self) -> list[ResolvedCell]:
        """The cells that these compare."""
        return needed(self.findings, self.cells)

    @property
    def all_seeds(self) -> list[int]:
        """Seeds, in order.

        Raises:
            InputError: If they are malformed, or one is there twice.
        """
        said = self.seeds or self.loaded.seeds
        try:
            seeds = parse_seeds(said) if isinstance(said, str) else list(said)
        except InputError as error:
            if self.seeds:
                raise
            raise InputError(f"grid {self.loaded.name}: seeds, as {error}") from error
        if len(set(seeds)) < len(seeds):
            raise InputError(f"seeds are {seeds}; wanted each of them once")
        return seeds


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell of a seed.

    Attributes:
        cell: The cell.
        recipe: Its recipe of the seed.
        place: Of the store, which need not be there.
        source: The images, without a limit.
        steps: That its numbers need, in order.
        own: Keys of those that no cell before it needs.
        identity: Hash of all that its numbers follow from.
    """

    cell: ResolvedCell
    recipe: Recipe
    place: Path
    source: Source
    steps: Sequence[Step]
    own: frozenset[str]
    identity: str

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.recipe.seed

    def opened(self, store: Store, device: str) -> Run:
        """Return its run on a store, with nothing done."""
        return open_run(self.recipe, store, device=device, source=self.source)


class Planner:
    """Gives the jobs of a seed, in order; images are listed once.

    Attributes:
        left_out: Why a cell cannot be run here, by name.
    """

    def __init__(self, ablation: Ablation) -> None:
        """Check all of the grid; open nothing."""
        self.ablation = ablation
        self.left_out: dict[str, str] = {}
        self._wanted = ablation.wanted
        self._sources: dict[str, Source] = {}
        if any(is_robust(cell) for cell in self._wanted):
            self._check_robust()

    def _check_robust(self) -> None:
        try:
            check_extra(self.ablation.worse)
        except MissingExtraError as error:
            for cell in filter(is_robust, self._wanted):
                self.left_out[cell.name] = str(error)

    def jobs(self, seed: int) -> list[Job]:
        """Return the jobs of a seed, those that are finished included.

        Raises:
            InputError: If images are not there, or have no split that a number is of.
        """
        before: set[str] = set()
        jobs = []
        for cell in self._wanted:
            if cell.name in self.left_out:
                continue
            try:
                job = self._job(cell, seed, before)
            except UnknownTruthError as error:
                self.left_out[cell.name] = str(error)
                continue
            before |= job.own
            jobs.append(job)
        return jobs

    def _job(self, cell: ResolvedCell, seed: int, before: set[str]) -> Job:
        recipe = cell.seeded(seed)
        source = self._source(recipe)
        _check_splits(cell, source)
        place = self.ablation.home / f"seed-{seed}" / _store_name(recipe)
        opened = open_run(recipe, Store(place), device=self.ablation.device, source=source)
        steps = list(_closure(opened.steps, cell))
        return Job(
            cell=cell,
            recipe=recipe,
            place=place,
            source=source,
            steps=steps,
            own=frozenset(step.key for step in steps) - before,
            identity=self._identity(cell, steps),
        )

    def _source(self, recipe: Recipe) -> Source:
        data = recipe.data.model_copy(update={"limit_unlabeled": None})
        if data.source == "store":
            raise InputError(
                "the recipe's images are those of a store (data.source), and every seed of an "
                "experiment fills its own; wanted another source"
            )
        what = value_hash({"data": data.model_dump(mode="json"), "seed": recipe.seed})
        if what not in self._sources:
            self._sources[what] = open_source(data, recipe.seed)
        return self._sources[what]

    def _identity(self, cell: ResolvedCell, steps: Sequence[Step]) -> str:
        """Return the hash of a cell's steps, and of what is measured.

        The key of a step follows from its slice of the recipe, the images, the code version and
        the steps before it: whether the store is there does not matter.
        """
        keys = {step.name: step.key for step in steps if step.name.startswith("evaluate-")}
        what: dict[str, object] = {
            "measured": keys[f"evaluate-{cell.model}"],
            "numbers": sorted(cell.numbers),
        }
        if is_robust(cell):
            worse = self.ablation.worse
            what |= {"by": keys[_BY_TEACHER], "worse": worse.model_dump(mode="json")}
        return value_hash(what)


def _check_splits(cell: ResolvedCell, source: Source) -> None:
    of_test = [name for name in cell.numbers if name != _OF_VALIDATION]
    if len(of_test) < len(cell.numbers) and not source.splits.get("validation"):
        raise InputError(
            f"cell {cell.name} takes {_OF_VALIDATION}, and there are no validation images; "
            "name a folder of them (--validation), or take another number"
        )
    if of_test and not source.splits.get("test"):
        raise InputError(
            f"cell {cell.name} takes {of_test[0]}, and there are no test images; name a folder "
            f'of them (--test), or take numbers = ["{_OF_VALIDATION}"]'
        )


def _store_name(recipe: Recipe) -> str:
    """Return a name that recipes of the same images share."""
    data = recipe.data.model_dump(mode="json", exclude_defaults=True)
    return f"{recipe.data.dataset}-{value_hash(data)[:8]}"


def _closure(steps: Sequence[Step], cell: ResolvedCell) -> Iterator[Step]:
    """Yield the steps that a cell's numbers need, in order."""
    wanted = {f"evaluate-{cell.model}"}
    if is_robust(cell):
        wanted.add(_BY_TEACHER)
    for step in reversed(steps):
        if step.name in wanted:
            wanted |= set(step.needs)
    yield from (step for step in steps if step.name in wanted)
