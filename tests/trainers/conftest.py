"""A Ray cluster of two nodes with a CPU each, for all tests: one takes ten seconds to start."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.trainers.engines.given import OBJECT_BYTES, ROOT

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

QUICK = {  # a node that is gone is found out within seconds
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="session")
def cluster() -> Iterator["Cluster"]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        )
        patch.setenv("OMP_NUM_THREADS", "1")
        pytest.importorskip("ray")
        started = _start()
        yield started
        started.shutdown()


def _start(tries: int = 3) -> "Cluster":
    """Start the nodes: where cores are busy, one is late for the 30 seconds that Ray waits."""
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": OBJECT_BYTES}
    started = Cluster()
    try:
        started.add_node(**options, include_dashboard=False, _system_config=QUICK)
        started.add_node(**options)
    except Exception:
        started.shutdown()
        if tries == 1:
            raise
        return _start(tries - 1)
    return started
