"""The Ray engine gives what one process gives, file for file, whoever is killed on the way."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import plstore
from benchmarks.engine_work import Troubled, committed, files
from plstore.errors import InputError, StoreNotFoundError
from plstore.store import Store
from plstore.upkeep import verify
from tests.trainers.engines.given import (
    IMAGES_OF_A_RANGE,
    NUM_RANGES,
    OBJECT_BYTES,
    ROOT,
    Failing,
    adds,
    transactions,
)
from trainers.engines import Ray
from trainers.features.embedding import Embedding
from trainers.features.work import embed_images
from trainers.inference.ranges import Range
from trainers.labeling.label import Labeling, label
from trainers.labeling.work import LabelRanges

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,  # a cluster takes a minute to start where cores are busy
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MINE = Labeling(teacher_id="mine", device="cpu")
ALL = {"unlabeled": 20 * NUM_RANGES, "validation": 4 * NUM_RANGES}


@pytest.fixture
def alone(spread: Store, tmp_path: Path) -> Iterator[Store]:
    """The same store, labeled by this process on one thread, as a worker has it."""
    copy = plstore.open(shutil.copytree(spread.root, tmp_path / "alone"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert label(copy, MINE) == ALL
        yield copy
    finally:
        torch.set_num_threads(threads)


def assert_same(found: Store, wanted: Store, table: str = "soft_labels") -> None:
    ids = found.table(table).read(columns=["sample_id"])["sample_id"].to_pylist()
    commits = transactions(found, table)

    assert len(ids) == len(set(ids)) == NUM_RANGES * IMAGES_OF_A_RANGE
    assert files(found, table) == files(wanted, table)
    assert adds(found, table) == adds(wanted, table)
    assert len(commits) == len(set(commits))
    assert verify(found) == []


def test_a_cluster_gives_the_files_of_one_process(
    cluster: "Cluster", spread: Store, alone: Store
) -> None:
    ray = Ray(address=cluster.address)
    counts = label(spread, MINE, engine=ray)
    again = label(spread, MINE, engine=ray)

    assert counts == ALL
    assert again == dict.fromkeys(ALL, 0)
    assert_same(spread, alone)


def test_what_a_worker_raises_is_told_as_it_is_without_ray(
    cluster: "Cluster",
) -> None:
    ray = Ray(address=cluster.address, workers=(1, 1))
    lost = LabelRanges(place="/nowhere/store", labelings=(MINE,))
    with ray.connected():
        with pytest.raises(
            StoreNotFoundError, match="no plstore store at /nowhere/store"
        ) as no:
            list(ray.run(lost, [Range("unlabeled", 0)], lambda _: None))
        with pytest.raises(InputError, match="wanted an even number: 3") as odd:
            list(ray.run(Failing(), [2, 3], lambda _: None))
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            list(ray.run(Failing(), [0], lambda _: None))

    assert "said by a worker on node" in str(no.value)
    assert "All nodes must see a store in a folder at the same path" in str(no.value)
    assert "Traceback" not in str(odd.value)


def test_embeddings_and_fusions_are_those_of_one_process(
    cluster: "Cluster", spread: Store, alone: Store
) -> None:
    ray = Ray(address=cluster.address, workers=(1, 2))
    embedding = Embedding(teacher="mine", splits=["unlabeled", "validation"], device="cpu")
    with ray.connected():
        label(spread, MINE, engine=ray)
        label(spread, Labeling(teacher_id="mine", iteration=2, temperature=2.0), engine=ray)
        name, counts = embed_images(spread, embedding, engine=ray)
        made = plstore.fuse(spread, "both", ["mine@1", "mine@2"], spread=ray.run)
    label(alone, Labeling(teacher_id="mine", iteration=2, temperature=2.0))

    assert (name, counts) == embed_images(alone, embedding)
    assert made.images == plstore.fuse(alone, "both", ["mine@1", "mine@2"]).images
    assert files(spread) == files(alone)
    assert_same(spread, alone, "embeddings")


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_worker_that_is_killed_is_replaced(
    cluster: "Cluster", spread: Store, alone: Store, tmp_path: Path, when: str
) -> None:
    marker = tmp_path / "killed"
    ray = Troubled(address=cluster.address, at=Range("unlabeled", 2), marker=marker, when=when)

    assert label(spread, MINE, engine=ray) == ALL
    assert marker.exists()
    assert_same(spread, alone)


def test_a_node_that_goes_away_and_one_that_comes_change_nothing(
    cluster: "Cluster", spread: Store, alone: Store
) -> None:
    (leaving,) = cluster.worker_nodes

    def churn() -> None:
        cluster.remove_node(leaving, allow_graceful=False)  # by SIGKILL
        cluster.add_node(num_cpus=1, object_store_memory=OBJECT_BYTES)

    ray = Troubled(address=cluster.address, workers=(1, 2), pause=1.0, after=3, happens=churn)

    assert label(spread, MINE, engine=ray) == ALL
    assert leaving not in cluster.worker_nodes
    assert_same(spread, alone)


DRIVER = """
import sys
import plstore
from benchmarks.engine_work import Troubled
from tests.trainers.engines.test_on_ray import MINE
from trainers.labeling.label import label

Troubled.commit_seconds = 0.5
label(plstore.open(sys.argv[1]), MINE, engine=Troubled(address=sys.argv[2], pause=1.0))
"""


def test_a_driver_that_is_killed_begins_again(
    cluster: "Cluster", spread: Store, alone: Store
) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(spread.root), cluster.address], cwd=ROOT
    )
    next(rows for rows in committed(spread) if rows or driver.poll() is not None)
    driver.kill()
    driver.wait()
    done = spread.table("soft_labels").dataset().count_rows()
    counts = label(spread, MINE, engine=Ray(address=cluster.address))

    assert 0 < done < NUM_RANGES * IMAGES_OF_A_RANGE
    assert sum(counts.values()) == NUM_RANGES * IMAGES_OF_A_RANGE - done
    assert_same(spread, alone)
