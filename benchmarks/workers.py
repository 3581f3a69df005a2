"""Many workers label for one teacher at once, each its own ranges of images: does any fail?"""

import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

import plstore
from benchmarks.record import Measurement
from plstore.codec import Codec
from plstore.labels import SHARD_IDS, LabelBatch, LabelSet, commit_labels, write_labels

_ROWS = 256
_NUM_CLASSES = 10


def _work(path: Path, worker: int, num_workers: int, commits: int, pipe: Connection) -> None:
    """Commit the labels of every `num_workers`-th range; tell failures and the longest wait."""
    store = plstore.open(path)
    label_set = LabelSet(iteration=1, teacher_id="many", split="unlabeled")
    pipe.send("ready")
    pipe.recv()
    failures, longest = [], 0.0
    for turn in range(commits):
        ids = np.arange(_ROWS) + (turn * num_workers + worker) * SHARD_IDS
        rng = np.random.default_rng([worker, turn])
        probs = rng.dirichlet([1] * _NUM_CLASSES, _ROWS).astype(np.float32)
        name = f"w{worker}-{turn}"
        batch = LabelBatch(sample_ids=ids, probabilities=probs)
        shards = write_labels(store, label_set, [batch], codec=Codec(), identity=name)
        start = time.perf_counter()
        try:
            commit_labels(store, shards, lineage={}, transaction=name, beside=[])
        except plstore.PlstoreError as error:
            failures.append(str(error))
        longest = max(longest, time.perf_counter() - start)
    pipe.send((failures, longest))


def measure(num_workers: int, commits: int) -> list[Measurement]:
    """Return failures, rows and waits of workers that all begin at the same moment.

    Args:
        num_workers: Processes.
        commits: Of each, one after the other.
    """
    context = multiprocessing.get_context("forkserver")
    # A program has one such server: it also starts the writers of kills.py.
    context.set_forkserver_preload(["benchmarks.workers", "benchmarks.kill_work"])
    with tempfile.TemporaryDirectory() as folder:
        store = plstore.create(Path(folder) / "store")
        store.ensure_classes([f"class-{n}" for n in range(_NUM_CLASSES)])
        pipes = []
        for worker in range(num_workers):
            ours, theirs = context.Pipe()
            context.Process(
                target=_work,
                args=(store.root, worker, num_workers, commits, theirs),
                daemon=True,
            ).start()
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()
        start = time.perf_counter()
        for pipe in pipes:
            pipe.send("go")
        answers = [pipe.recv() for pipe in pipes]
        wall = time.perf_counter() - start
        ids = store.table("soft_labels").read(columns=["sample_id"])["sample_id"]
        unique = pc.count_distinct(ids).as_py()
    values = {
        "workers": (num_workers, "count"),
        "commits": (num_workers * commits, "count"),
        "failures": (sum(len(failures) for failures, _ in answers), "count"),
        "lost_rows": (num_workers * commits * _ROWS - unique, "count"),
        "repeated_rows": (len(ids) - unique, "count"),
        "wall": (wall, "s"),
        "longest_commit": (max(longest for _, longest in answers), "s"),
    }
    return [
        Measurement(
            case="label-workers-at-once",
            contender="plstore",
            metric=metric,
            value=round(value, 3),
            unit=unit,
        )
        for metric, (value, unit) in values.items()
    ]
