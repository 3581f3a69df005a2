"""Workers of a cluster write the packed view that one process writes, whoever is killed."""

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import plstore
from benchmarks.engine_work import Troubled, files
from plstore.selection import Balance, Selection, select
from plstore.store import Store
from plstore.upkeep import collect, verify
from plstore.views import HERE, Engine, View, fetching, open_view, packing, writing
from tests.conftest import give_labels
from trainers.engines import Ray

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def labeled(spread: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with labels, whose views are many small files."""
    monkeypatch.setattr(writing, "FILE_BYTES", 12_000)
    monkeypatch.setattr(packing, "PIECE_ROWS", 4)
    monkeypatch.setattr(fetching, "_PART_BYTES", 9_000)
    give_labels(spread, "mine")
    return spread


def selected(store: Store, max_side: int | None = None, engine: Engine = HERE) -> View:
    selection = Selection(
        view="v",
        teachers=["mine"],
        mode="packed",
        max_side=max_side,
        balance=Balance(policy="none", min_confidence=0.0),
    )
    return select(store, selection, identity="v", engine=engine)


@pytest.mark.parametrize("max_side", [None, 21])
def test_a_cluster_packs_the_files_of_one_process(
    cluster: "Cluster", labeled: Store, tmp_path: Path, max_side: int | None
) -> None:
    alone = plstore.open(shutil.copytree(labeled.root, tmp_path / "alone"))
    here = selected(alone, max_side)
    there = selected(labeled, max_side, Ray(address=cluster.address))

    assert len(there.shards()) > 2
    assert_same(labeled, there, alone, here)


@pytest.mark.parametrize("at", [fetching.Part(number=2, ids=np.zeros(0, np.int64)), 1])
@pytest.mark.parametrize("when", ["during", "after"])
def test_a_worker_that_is_killed_while_it_fetches_or_packs_is_replaced(
    cluster: "Cluster", labeled: Store, tmp_path: Path, at: object, when: str
) -> None:
    alone = plstore.open(shutil.copytree(labeled.root, tmp_path / "alone"))
    here = selected(alone)
    marker = tmp_path / "killed"
    ray = Troubled(address=cluster.address, at=at, marker=marker, when=when)
    there = selected(labeled, engine=ray)

    assert marker.exists()
    assert_same(labeled, there, alone, here)


def assert_same(store: Store, view: View, other: Store, wanted: View) -> None:
    assert files(store, "view_rows") == files(other, "view_rows")
    assert view.shards() == wanted.shards()
    assert dict(view.record.counts) == dict(wanted.record.counts)
    assert view.record.num_draws == wanted.record.num_draws == 120
    assert {problem.what for problem in verify(store)} <= {"orphan_file"}  # of who was killed
    collect(store, grace=timedelta(0))
    assert verify(store) == []
    assert not list(store.work_folder("select").iterdir())


def test_the_command_line_packs_on_a_cluster(
    cluster: "Cluster", spread: Store, tmp_path: Path
) -> None:
    give_labels(spread, "mine")
    words = ("select", "small", "--teacher", "mine", "--policy", "none", "--max-side", "21")
    options = ("--engine", "ray", "--address", cluster.address)
    done = subprocess.run(
        [sys.executable, "-m", "plstore", *words, *options, "--format", "json"],
        env={**os.environ, "PLSTORE_STORE": str(spread.root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0] == {"what": "view", "n": "small@1"}
    assert open_view(spread, "small").record.counts["shrunk"] > 0
    assert verify(spread) == []
