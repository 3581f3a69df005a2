"""An experiment: what cells share, what is never done again, and what comes of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import plstore
from plstore.errors import InputError, PlstoreError
from tests.trainers.ablation.conftest import GRID
from trainers.ablation import Ablation, costs, plan, running
from trainers.ablation.costs import Costs
from trainers.ablation.lines import CELLS, Line, add_lines, read_lines
from trainers.ablation.measuring import robust_seconds
from trainers.ablation.plan import Planner
from trainers.ablation.running import Experiment, side_by_side
from trainers.engines import Ray
from trainers.events import Event, Note, StepFinished

CELL_NAMES = ["supervised", "student", "hard", "length-short", "length-long"]


class Heard:
    """All that an experiment said."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def new_steps(self) -> list[str]:
        return [e.name for e in self.events if isinstance(e, StepFinished) and e.is_new]

    @property
    def notes(self) -> str:
        return "\n".join(e.text for e in self.events if isinstance(e, Note))


def as_finished(ablation: Ablation, overrides: Sequence[str] = ()) -> list[Line]:
    """Return a line of 100 s of each cell, of a seed that no test asks for."""
    other = replace(ablation, overrides=overrides)
    return [
        Line(
            cell=job.cell.name,
            seed=9,
            identity=job.cell.name,
            values={"test_accuracy": 1},
            seconds=100,
            lineage={"recipe_hash": job.recipe.hash},
        )
        for job in Planner(other).jobs(9)
    ]


@pytest.fixture(scope="module")
def done(
    grid: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ablation, list[dict[str, Any]], Heard]:
    heard = Heard()
    home = tmp_path_factory.mktemp("done")
    ablation = Ablation(grid=grid, home=home, device="cpu", out=home / "out")
    return ablation, plstore.ablate(ablation, on_event=heard), heard


def test_cells_of_a_seed_share_their_steps(
    done: tuple[Ablation, list[dict[str, Any]], Heard],
) -> None:
    ablation, _, heard = done
    lines = read_lines(ablation.home / CELLS)
    steps = Counter(heard.new_steps)

    assert [(line.seed, line.cell) for line in lines] == [
        (seed, cell) for seed in (0, 1) for cell in CELL_NAMES
    ]
    assert steps["train-0"] == steps["label-1"] == steps["select-1"] == 2  # one a seed
    assert steps["train-1"] == 2 * 4
    assert steps["train-2"] == 0  # the recipe has two iterations; no cell needs the second
    assert "5 cells of a seed have 32 steps, 18 of them shared" in heard.notes
    for line in lines:
        of_store = [other for other in lines if other.seed == line.seed]
        assert {o.lineage["steps"]["train-0"] for o in of_store} == {
            line.lineage["steps"]["train-0"]
        }
        assert (ablation.home / line.lineage["store"]).is_dir()
    assert set(lines[1].values) == {"test_accuracy", "validation_accuracy"}


def test_a_row_has_the_papers_figures_beside_ours(
    done: tuple[Ablation, list[dict[str, Any]], Heard],
) -> None:
    ablation, rows, _ = done
    values = {
        (n.cell, n.seed): n.values["test_accuracy"] for n in read_lines(ablation.home / CELLS)
    }
    gains = [values["student", seed] - values["supervised", seed] for seed in (0, 1)]
    first = rows[0]
    kept = json.loads((ablation.home / "out/findings.json").read_text())
    page = (ablation.home / "out/findings.md").read_text()

    assert kept == rows
    assert first["finding"] == "gain"
    assert (first["paper"], first["paper_figures"]) == (2.6, [87.6, 85.0])
    assert first["ours"] == pytest.approx(sum(gains) / 2, abs=0.01)
    assert first["seeds"] == [0, 1]
    assert "two seeds" in first["interval"]
    assert rows[1]["paper"] is None
    assert rows[1]["number"] == "validation_accuracy"
    assert "87.6 against 85 (table 7)" in page
    assert "Images: images, 40 labels of Fashion-MNIST, on which nothing is learnt." in page
    assert all(row["said"] in page for row in rows)
    assert (ablation.home / "out/findings.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_cell_is_never_run_again_not_without_its_store_either(
    done: tuple[Ablation, list[dict[str, Any]], Heard], tmp_path: Path
) -> None:
    ablation, rows, _ = done
    text = (ablation.home / CELLS).read_text()
    home = tmp_path / "without-stores"
    home.mkdir()
    shutil.copy(ablation.home / CELLS, home)
    elsewhere = tmp_path / "elsewhere"
    heard = Heard()
    for other in (
        ablation,
        replace(ablation, home=home),
        replace(ablation, home=elsewhere, results=[ablation.home / CELLS]),
    ):
        heard = Heard()
        assert plstore.ablate(other, on_event=heard) == rows
        assert heard.new_steps == []
        assert (other.home / CELLS).read_text() == text
    assert not list(home.glob("seed-*"))
    assert not list(elsewhere.glob("seed-*"))
    assert "10 results taken over" in heard.notes
    assert "10 of 10 cells are finished" in heard.notes
    shutil.rmtree(elsewhere)
    planned = plan(replace(ablation, home=elsewhere, results=[ablation.home / CELLS]))
    assert planned[-1]["seconds"] == 0
    assert not elsewhere.exists()


def test_a_changed_cell_is_run_and_the_others_are_kept(
    done: tuple[Ablation, list[dict[str, Any]], Heard], tmp_path: Path
) -> None:
    ablation, _, _ = done
    home = tmp_path / "home"
    shutil.copytree(ablation.home, home)
    shutil.copy(Path(ablation.grid).parent / "tiny.toml", tmp_path)
    (tmp_path / "grid.toml").write_text(GRID.replace("long = 6", "long = 5"))
    heard = Heard()
    changed = replace(
        ablation, grid=tmp_path / "grid.toml", home=home, seeds="0", only=["length"], out=None
    )
    (row,) = plstore.ablate(changed, on_event=heard)
    before = (ablation.home / CELLS).read_text()

    assert heard.new_steps == ["train-1", "evaluate-1"]  # the rest is in the store
    assert (home / CELLS).read_text().startswith(before)
    assert len(read_lines(home / CELLS)) == 11
    assert "also has 9 results of other grids, seeds or images" in heard.notes
    assert row["seeds"] == [0]
    assert row["said"].startswith("It is not shown at this scale")
    assert "so few seeds have no interval" in row["said"]


def test_a_plan_says_cells_steps_and_seconds(ablation: Ablation) -> None:
    *cells, seed, total = plan(ablation)

    assert [row["cell"] for row in cells] == CELL_NAMES
    assert [row["steps"] for row in cells] == [4, 7, 7, 7, 7]
    assert [row["shared"] for row in cells] == [0, 3, 5, 5, 5]
    assert [row["to do"] for row in cells] == [4, 4, 2, 2, 2]
    assert seed["to do"] == 14
    assert total["cell"] == "2 seeds"
    assert total["seconds"] > 0
    assert not ablation.home.exists()


def test_a_budget_cuts_seeds_before_cells(ablation: Ablation) -> None:
    heard = Heard()
    add_lines(ablation.home, as_finished(ablation))  # 500 s a seed, as another seed took
    for budget, seeds, cells in ((2000.0, 2, 5), (600.0, 1, 5), (250.0, 1, 2)):
        experiment = Experiment(replace(ablation, budget=budget), heard)
        experiment.prepare()
        jobs = experiment.within_budget()
        assert len(jobs) == seeds
        assert len(jobs[0]) == cells
    assert "of a budget of 10 minutes, seeds 1 are cut" in heard.notes
    assert "of seed 0 cells are cut: hard, length-short, length-long" in heard.notes
    assert (ablation.home / CELLS).read_text().count("\n") == 5


def test_workers_share_cores_and_seeds(ablation: Ablation) -> None:
    def seconds(workers: int, budget: float | None = None) -> tuple[int, float]:
        *_, seed, total = plan(replace(ablation, workers=workers, budget=budget, seeds="0..2"))
        return seed["seconds"], total["seconds"]

    add_lines(ablation.home, as_finished(ablation))

    assert seconds(1) == (500, 1500)
    assert seconds(2) == (500, 1000)  # two seeds, then the third
    assert seconds(3) == seconds(9) == (500, 500)
    assert seconds(2, 900.0) == (500, 500)  # no time for a third
    experiment = Experiment(replace(ablation, workers=9, seeds="0..2"), Heard())
    experiment.prepare()
    assert experiment.costs.shares == 3  # not a ninth of the cores for each of three
    elsewhere = Experiment(replace(ablation, workers=2), Heard(), Ray())
    elsewhere.prepare()
    assert (elsewhere.workers, elsewhere.costs.shares) == (2, 1)  # each has its own cores


def test_what_other_recipes_took_says_nothing(ablation: Ablation) -> None:
    short = ["train.steps=3"]
    add_lines(ablation.home, as_finished(ablation, short))

    assert plan(replace(ablation, overrides=short, seeds="0"))[-1]["seconds"] == 500
    assert plan(replace(ablation, seeds="0"))[-1]["seconds"] < 100


@pytest.mark.parametrize(("limit", "count"), [(0, 50), (12, 12), (80, 50)])
def test_all_images_are_as_many_as_there_are(
    ablation: Ablation, limit: int, count: int
) -> None:
    cell = replace(Planner(ablation).jobs(0)[0].cell, numbers=("attacked_accuracy", "mFR"))
    worse = ablation.worse.model_copy(update={"limit": limit, "sequence_limit": limit})
    one = ablation.worse.model_copy(update={"limit": 1, "sequence_limit": 1})

    assert robust_seconds(cell, worse, 50) == pytest.approx(
        count * robust_seconds(cell, one, 50)
    )


@pytest.mark.parametrize(
    ("shares", "cores", "wanted"),
    [(1, 2, 1.0), (2, 2, 2**0.8), (4, 16, 4**0.8), (2, 1, 2.0), (8, 2, 4 * 2**0.8)],
)
def test_what_is_estimated_takes_longer_on_a_share_of_the_cores(
    ablation: Ablation, monkeypatch: pytest.MonkeyPatch, shares: int, cores: int, wanted: float
) -> None:
    monkeypatch.setattr(costs, "num_cores", lambda: cores)
    job = Planner(ablation).jobs(0)[0]
    whole, apart = Costs(ablation, []), Costs(ablation, [], shares)
    apart._steps = whole._steps  # timed once

    assert apart.seconds(job) == pytest.approx(wanted * whole.seconds(job))


def test_a_cell_that_fails_is_told_and_the_others_go_on(grid: Path, tmp_path: Path) -> None:
    shutil.copy(grid.parent / "tiny.toml", tmp_path)
    text = GRID.replace("pseudo_labels=hard", "select.where='no_such_column > 1'")
    text = text.replace("iteration.1.loss.select", "iteration.1.select")
    (tmp_path / "grid.toml").write_text(text)
    ablation = Ablation(
        grid=tmp_path / "grid.toml",
        home=tmp_path / "home",
        seeds="0",
        only=["gain", "soft"],
        device="cpu",
    )
    heard = Heard()
    experiment = Experiment(ablation, heard)
    gain, soft = experiment.run()

    assert list(experiment.failed) == ["hard, seed 0"]
    assert "cell hard, seed 0 failed: " in heard.notes
    assert gain["seeds"] == [0]
    assert (soft["verdict"], soft["agrees"]) == ("not run", False)
    assert "no_such_column" in soft["said"]


def test_a_cell_without_a_number_fails_alone(
    done: tuple[Ablation, list[dict[str, Any]], Heard],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(done[0].home, tmp_path / "home")
    (tmp_path / "home" / CELLS).unlink()
    ablation = replace(done[0], home=tmp_path / "home", out=None, seeds="0", only=["gain"])
    known = {"supervised": {"test_accuracy": 1.0}, "student": {}}
    monkeypatch.setattr(running, "measured", lambda cell, *_, **__: known[cell.name])
    experiment = Experiment(ablation, Heard())
    rows = experiment.run()

    assert list(experiment.failed) == ["student, seed 0"]
    assert "none of test_accuracy, validation_accuracy is known" in rows[0]["note"]
    assert [line.cell for line in read_lines(ablation.home / CELLS)] == ["supervised"]


@pytest.mark.nightly
def test_robustness_is_measured_of_the_models_of_the_run(
    grid: Path, tmp_path: Path, done: tuple[Ablation, list[dict[str, Any]], Heard]
) -> None:
    shutil.copytree(done[0].home, tmp_path / "home")
    shutil.copy(grid.parent / "tiny.toml", tmp_path)
    numbers = '["corrupted_accuracy", "mCE", "attacked_accuracy"]'
    cells = f'[cells.a]\nof = "teacher"\nnumbers = {numbers}\n[cells.b]\nnumbers = {numbers}\n'
    finding = 'cell = "b"\nagainst = "a"\nsentence = "x"\n'
    found = f'[[findings]]\nid = "m"\n{finding}number = "mCE"\nsign = "-"\n'
    found += found.replace('"m"', '"n"').replace('"a"', "90")
    found += f'[[findings]]\nid = "c"\n{finding}sign = "+"\n'
    head = GRID[: GRID.index("[cells.supervised]")]
    (tmp_path / "grid.toml").write_text(head + cells + found)
    heard = Heard()
    ablation = Ablation(
        grid=tmp_path / "grid.toml", home=tmp_path / "home", seeds="0", device="cpu"
    )
    rows = plstore.ablate(ablation, on_event=heard)
    lines = {n.cell: n.values for n in read_lines(ablation.home / CELLS) if n.cell in "ab"}

    assert heard.new_steps == []  # of models that are there
    assert lines["a"]["mCE"] == pytest.approx(100)
    assert set(lines["b"]) == {"corrupted_accuracy", "mCE", "attacked_accuracy"}
    assert rows[0]["ours"] == pytest.approx(lines["b"]["mCE"] - 100, abs=0.01)
    assert rows[1]["ours"] == pytest.approx(lines["b"]["mCE"] - 90, abs=0.01)
    assert rows[1]["cells"] == ["b", 90]


def test_images_without_test_or_truth(grid: Path, tmp_path: Path, images: Path) -> None:
    for name in ("labeled", "unlabeled", "validation"):
        shutil.copy(images / f"{name}.parquet", tmp_path)
    recipe = (grid.parent / "tiny.toml").read_text().replace(str(images), str(tmp_path))
    (tmp_path / "tiny.toml").write_text(recipe)
    (tmp_path / "grid.toml").write_text(GRID)
    ablation = Ablation(grid=tmp_path / "grid.toml", home=tmp_path / "home", seeds="0")
    with pytest.raises(InputError, match="supervised takes test_accuracy, and there are no"):
        plan(ablation)

    shutil.copy(images / "test.parquet", tmp_path)
    (tmp_path / "validation.parquet").unlink()
    with pytest.raises(InputError, match="student takes validation_accuracy, and there are no"):
        plan(ablation)

    shutil.copy(images / "validation.parquet", tmp_path)
    text = GRID.replace("iteration.1.loss.pseudo_labels=hard", "data.imbalance=5.0")
    (tmp_path / "grid.toml").write_text(text)
    heard = Heard()
    rows = plan(Ablation(grid=tmp_path / "grid.toml", home=ablation.home), on_event=heard)
    assert "hard" not in [row["cell"] for row in rows]
    assert "cell hard is left out: the true class of the unlabeled image" in heard.notes


def killed_in_the_middle(words: list[str], home: Path) -> list[Line]:
    """Kill an experiment once it has finished a cell; return its lines."""
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not read_lines(home / CELLS) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return read_lines(home / CELLS)


def met(folder: Path, name: str, others: int) -> tuple[set[int], int]:
    """Return the cores and threads of a process that saw so many at once."""
    (folder / name).touch()
    until = time.monotonic() + 100
    while len(list(folder.iterdir())) < others and time.monotonic() < until:
        time.sleep(0.05)
    return os.sched_getaffinity(0), torch.get_num_threads()


def test_workers_with_nothing_to_do(
    done: tuple[Ablation, list[dict[str, Any]], Heard], tmp_path: Path
) -> None:
    ablation, rows, _ = done
    results = [ablation.home / CELLS]
    again = replace(ablation, home=tmp_path / "home", workers=2, results=results, out=None)

    assert plstore.ablate(again) == rows


def ended(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.nightly
def test_a_worker_that_is_killed_is_told(
    ablation: Ablation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_do_apart", ended)
    with pytest.raises(PlstoreError, match="a worker was killed"):
        plstore.ablate(replace(ablation, workers=2))


@pytest.mark.nightly
def test_workers_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # else one thread, shared or not
    with side_by_side(2) as pool:
        (a, threads), (b, _) = pool.map(met, [tmp_path] * 2, "ab", [2] * 2)
    every = os.sched_getaffinity(0)

    assert a | b == every
    assert (a & b == set()) == (len(every) > 1)
    assert threads == len(a)


@pytest.mark.nightly
def test_one_that_is_killed_ends_with_the_same_lines(
    done: tuple[Ablation, list[dict[str, Any]], Heard], tmp_path: Path
) -> None:
    ablation, rows, _ = done
    home = tmp_path / "home"
    words = [sys.executable, "-m", "plstore", "ablate", str(ablation.grid), "--quiet"]
    words += ["--home", str(home), "--device", "cpu"]
    some = killed_in_the_middle(words, home)
    again = subprocess.run(
        [*words, "--workers", "2", "--format", "json"], capture_output=True, check=False
    )

    def told(home: Path) -> dict[str, Any]:
        return {n.identity: (n.cell, n.seed, n.values) for n in read_lines(home / CELLS)}

    assert 1 <= len(some) < 10
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == rows
    assert read_lines(home / CELLS)[: len(some)] == some
    assert told(home) == told(ablation.home)
