"""The launch file of Ray trains with two workers, on a CPU, what one process trains."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from plstore.store import open as open_store
from tests.trainers.engines.given import ROOT
from tests.trainers.training.test_processes import command, filled, finish, losses, start

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

STEPS = 50


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_workers_of_ray_have_the_losses_of_one_process(
    cluster: "Cluster", tmp_path: Path
) -> None:
    one, two = filled(tmp_path / "one"), filled(tmp_path / "two")
    said = finish(start(one, 1, train__steps=STEPS, train__accumulate=2))
    assert "result: " in said, said
    words = command(two, 1, train__steps=STEPS)
    words = words[words.index("run") + 1 :]
    done = subprocess.run(
        [sys.executable, ROOT / "docs/launch/train_ray.py", "2", *words],
        env={**os.environ, "RAY_ADDRESS": cluster.address, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    expected, found = losses(one), losses(two)
    assert set(expected) == set(found) == {"t0", "t1"}
    for model, values in expected.items():
        assert np.allclose(values, found[model], rtol=1e-3), (model, values, found[model])
    assert len(open_store(two.root).table("teachers").read()) == 2
    result = json.loads((two.root.parent / "result.json").read_text())
    assert [student["iteration"] for student in result["students"]] == [1]
