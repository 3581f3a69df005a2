"""Labeling on a Ray cluster beside labeling in one process, and after workers are killed.

    python -m benchmarks.engines [--quick] [--json FILE] [--folder DIR] [--model NAME]
                                 [--ranges N] [--images N] [--rounds N]

JPEGs of 128 to 160 pixels a side, in so many ranges of sample ids with so many images each; a
teacher that sees 128 pixels; one thread of torch a process. The cluster is on this machine, a
CPU a worker, started once; its start is measured apart, and so is the first labeling, whose
workers import torch and load the model. Before anything is timed, its labels must be those of
one process: the same files, byte by byte. Then workers and a driver are killed, by SIGKILL, and
the labels must be the same again.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.labeling import NUM_CLASSES, SIZE, jpegs
from benchmarks.record import Measurement, publish

if TYPE_CHECKING:
    from plstore.store import Store
    from trainers.engines import Engine
    from trainers.labeling.label import Labeling

TEACHER: Final = "one"
_ROOT: Final = Path(__file__).parents[1]
_KILLED: Final = {
    "before": "worker-killed-before-its-range",
    "during": "worker-killed-while-it-labels",
    "after": "worker-killed-after-its-file",
}
_DRIVER: Final = """
import sys
import plstore
from benchmarks.engine_work import Troubled
from benchmarks.engines import labeling
from trainers.labeling.label import label

Troubled.commit_seconds = 0.5
engine = Troubled(address=sys.argv[2], pause=1.0)
label(plstore.open(sys.argv[1]), labeling(), engine=engine)
"""


def labeling() -> "Labeling":
    """Return how images are labeled."""
    from trainers.labeling.label import Labeling

    return Labeling(teacher_id=TEACHER, splits=("unlabeled",), device="cpu", batch=64)


def make_store(folder: Path, model: str, num_ranges: int, num_images: int) -> "Store":
    """Return a store with a teacher, and images in so many ranges of ids."""
    import torch

    import plstore
    from benchmarks.engine_work import skip_to
    from plstore.images import ImageRecord, import_images
    from plstore.labels import SHARD_IDS
    from trainers.models.bringing import bring_teacher
    from trainers.models.model import build_model, image_format, save_bundle
    from trainers.sections import Model

    store = plstore.create(folder / "store")
    classes = [f"class-{n:03d}" for n in range(NUM_CLASSES)]
    data = jpegs(num_ranges * num_images)
    for number in range(num_ranges):
        skip_to(store, number * SHARD_IDS)
        records = [
            ImageRecord(key=f"{number}-{n:06d}.jpg", split="unlabeled", data=next(data))
            for n in range(num_images)
        ]
        import_images(store, records, dataset="waves", class_names=classes)
    torch.manual_seed(0)
    settings = Model(architecture=model, resolution=SIZE, stochastic_depth=0)
    network = build_model(settings, model, NUM_CLASSES)
    save_bundle(folder / TEACHER, network, image_format(settings, network), classes)
    bring_teacher(store, TEACHER, str(folder / TEACHER), device="cpu")
    return store


@dataclass
class Bench:
    """What engines work on.

    Attributes:
        folder: For copies.
        store: With images and a teacher, and no labels.
        rows: Images to label.
        shards: Ranges of ids.
    """

    folder: Path
    store: "Store"
    rows: int
    shards: int

    def copy(self) -> "Store":
        """Return a store of the same images, teacher and versions, to be labeled."""
        import plstore

        place = Path(tempfile.mkdtemp(dir=self.folder)) / "store"
        return plstore.open(shutil.copytree(self.store.root, place))

    def label(self, engine: "Engine", store: "Store | None" = None) -> "Store":
        """Label all images of a copy; return it."""
        from trainers.labeling.label import label

        labeled = self.copy() if store is None else store
        label(labeled, labeling(), engine=engine)
        return labeled


def equality(bench: Bench, case: str, found: "Store", wanted: "Store") -> list[Measurement]:
    """Return what a cluster left beside what one process did.

    Raises:
        SystemExit: If it is not the same.
    """
    from benchmarks.engine_work import files
    from plstore.upkeep import verify

    ids = found.table("soft_labels").read(columns=["sample_id"])["sample_id"].to_pylist()
    ours, theirs = files(found), files(wanted)
    values = {
        "shards": len(ours),
        "rows_expected": bench.rows,
        "rows": len(ids),
        "distinct_rows": len(set(ids)),
        "files_equal": sum(theirs.get(path) == data for path, data in ours.items()),
        "problems": len(verify(found)),
    }
    right = {"shards": bench.shards, "rows": bench.rows, "distinct_rows": bench.rows}
    right |= {"files_equal": bench.shards, "problems": 0}
    if wrong := {name: values[name] for name, value in right.items() if values[name] != value}:
        raise SystemExit(f"{case}: {wrong}; wanted {right}")
    return [
        Measurement(case=case, contender="plstore-ray", metric=name, value=value, unit="")
        for name, value in values.items()
    ]


def speeds(bench: Bench, engine: "Engine") -> dict[str, float]:
    """Return images a second of a labeling: of all of it, and between its ranges' ends.

    The second leaves out the start of workers, with the ranges that were done by then: the
    first of each worker.
    """
    from trainers.events import TaskAdvanced
    from trainers.labeling.label import label

    ends: list[float] = []
    store, started = bench.copy(), time.perf_counter()

    def listen(event: object) -> None:
        if isinstance(event, TaskAdvanced):
            ends.append(time.perf_counter())

    label(store, labeling(), engine=engine, on_event=listen)
    rates = {"images_per_second": bench.rows / (time.perf_counter() - started)}
    if not engine.is_here:
        later, seconds = ends[1:], ends[-1] - ends[1]
        left = (len(later) - 1) * bench.rows / bench.shards
        rates["images_per_second_once_begun"] = left / seconds
    return rates


def measure(bench: Bench, model: str, rounds: int, *, quick: bool) -> Iterator[Measurement]:
    """Yield seconds to start, images a second, and what is left after each kill."""
    import ray

    from trainers.engines import HERE, Ray

    engine, case = Ray(workers=(2, 2)), f"{model}-{SIZE}px-{bench.shards}-ranges"
    started = time.perf_counter()
    with engine.connected():
        yield _of(case, "plstore-ray", "start", time.perf_counter() - started, "s")
        alone = bench.label(HERE)
        started = time.perf_counter()
        first = bench.label(engine)
        seconds = time.perf_counter() - started
        yield from equality(bench, "no-one-killed", first, alone)
        yield _of(case, "plstore-ray", "first_labeling", seconds, "s")
        rates: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for name, each in (("plstore", HERE), ("plstore-ray", engine)):
                for metric, rate in speeds(bench, each).items():
                    rates.setdefault((name, metric), []).append(rate)
        for (name, metric), found in rates.items():
            yield _of(case, name, metric, statistics.median(found), "images/s")
            yield _of(case, name, f"{metric}_best", max(found), "images/s")
        yield from workers_killed(bench, alone, ["after"] if quick else list(_KILLED))
        if not quick:
            yield from driver_killed(bench, alone, ray.get_runtime_context().gcs_address)


def workers_killed(
    bench: Bench, alone: "Store", moments: Sequence[str]
) -> Iterator[Measurement]:
    """Yield what is left after a worker is killed at each of some moments."""
    from benchmarks.engine_work import Troubled
    from trainers.inference.ranges import Range

    for when in moments:
        marker = bench.folder / f"killed-{when}"
        engine = Troubled(workers=(2, 2), at=Range("unlabeled", 1), marker=marker, when=when)
        found = bench.label(engine)
        if not marker.exists():
            raise SystemExit(f"no worker was killed {when} its range")
        yield from equality(bench, _KILLED[when], found, alone)


def driver_killed(bench: Bench, alone: "Store", address: str) -> Iterator[Measurement]:
    """Yield what is left after a driver is killed, and another labels the rest."""
    from benchmarks.engine_work import committed
    from trainers.engines import Ray

    store, case = bench.copy(), "driver-killed-and-started-again"
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    driver = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, str(store.root), address],
        env={**os.environ, "PYTHONPATH": path},
    )
    done = next(rows for rows in committed(store) if rows or driver.poll() is not None)
    driver.kill()
    driver.wait()
    if not 0 < done < bench.rows:
        raise SystemExit(f"{done} rows of {bench.rows} were there when the driver was killed")
    yield _of(case, "plstore-ray", "rows_before", done, "")
    yield from equality(bench, case, bench.label(Ray(workers=(2, 2)), store), alone)


def _of(case: str, contender: str, metric: str, value: float, unit: str) -> Measurement:
    return Measurement(case=case, contender=contender, metric=metric, value=value, unit=unit)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--folder", type=Path, help="for its files; a temporary one if not given"
    )
    parser.add_argument("--model", help="timm name; resnet18, quickly test_resnet")
    parser.add_argument("--ranges", type=int)
    parser.add_argument("--images", type=int, help="of a range")
    parser.add_argument("--rounds", type=int)
    argv = sys.argv[1:]
    given = parser.parse_args(argv)
    quick = given.quick
    model = given.model or ("test_resnet" if quick else "resnet18")
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch, here and in workers
    import torch

    torch.set_num_threads(1)
    ranges, images = given.ranges or (4 if quick else 8), given.images or (8 if quick else 128)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="engines-") as name:
        folder = Path(name)
        store = make_store(folder, model, ranges, images)
        bench = Bench(folder=folder, store=store, rows=ranges * images, shards=ranges)
        rounds = given.rounds or (1 if quick else 3)
        found = list(measure(bench, model, rounds, quick=quick))
    publish(
        found, command=" ".join(["python -m benchmarks.engines", *argv]), json_path=given.json
    )


if __name__ == "__main__":
    main()
