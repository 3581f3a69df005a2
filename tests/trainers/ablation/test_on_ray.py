"""Seeds of an experiment on a Ray cluster: the figures of one process."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import plstore
from trainers.ablation import Ablation
from trainers.ablation.lines import CELLS, read_lines
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


def test_a_cluster_gives_the_figures_of_one_process(
    cluster: "Cluster", grid: Path, tmp_path: Path
) -> None:
    homes = tmp_path / "here", tmp_path / "there"
    here, there = (
        Ablation(grid=grid, home=home, device="cpu", only=["gain"]) for home in homes
    )
    rows = plstore.ablate(here)
    found = plstore.ablate(there, engine=Ray(address=cluster.address))
    lines = [
        sorted((line.cell, line.seed, line.identity, str(line.values)) for line in read)
        for read in (read_lines(home / CELLS) for home in homes)
    ]

    assert found == rows
    assert lines[0] == lines[1]
    assert len(lines[0]) == 4  # two cells of two seeds
