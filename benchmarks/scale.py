"""Stores of a million to a billion images: what the log, the plans and the upkeep take.

    python -m benchmarks.scale [--quick] [--json FILE] [--rows 1e6,1e8,…] [--folder DIR]

The log is real, the files are mostly one file under many names (`scale_store`). Each step runs
in a process of its own, is checked first, and says its time and its peak memory, libraries
included; time is without importing them. A size that is done is kept in ``FILE.parts`` and not
done again. `plan` is one worker of a labeling that others share: what eight ranges lack, files
read. `select` is what a selection needs before it reads labels: which images may be
chosen, and counts by class and confidence; `python -m benchmarks.select` has the rest. `diff`
pairs the files of two iterations; `python -m benchmarks.store` reads them.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

import plstore
from benchmarks.record import Measurement, publish
from benchmarks.scale_store import (
    IMAGES_A_FILE,
    Plan,
    build,
    label_files,
    label_set,
    synthetic_counts,
)
from benchmarks.watch import peak_kilobytes
from plstore.labels import NUM_BUCKETS, SHARD_IDS
from plstore.query import pair_shards

_SIZES: Final = (10**6, 10**7, 10**8, 3 * 10**8, 10**9)
_QUICK: Final = (10**6,)
_FLOOR: Final = 0.3
_ORPHANS: Final = 100
_COMMITS: Final = 5

Found = dict[str, float]


def open_store(folder: Path, plan: Plan) -> Found:
    """Open the store, ask the newest version of every table, and list files of both kinds."""
    start = time.perf_counter()
    store = plstore.open(folder / "store")
    versions = store.versions()
    opened = time.perf_counter()
    images = store.table("images").shards(versions["images"])
    labels = store.table("soft_labels").shards(versions["soft_labels"], label_set(2).partition)
    listed = time.perf_counter()
    _check("files of images", len(images), plan.num_images // IMAGES_A_FILE)
    _check("files of labels", len(labels), plan.num_ranges)
    return {"open_s": opened - start, "list_files_s": listed - opened}


def connect(folder: Path, plan: Plan) -> Found:
    """Open a snapshot in SQL, and count the labels of one range."""
    store = plstore.open(folder / "store")
    start = time.perf_counter()
    with plstore.connect(store) as sql:
        connected = time.perf_counter()
        (count,) = sql.sql("select count(*) from images").fetchall()[0]
    _check("images in SQL", count, plan.num_images)
    return {"connect_s": connected - start, "count_images_s": time.perf_counter() - connected}


def plan_labeling(folder: Path, plan: Plan) -> Found:
    """Find what one of many workers is to label; its ranges have no label yet."""
    from trainers.inference.missing import (  # torch is in the memory of it alone
        Labeling,
        missing_labels,
    )

    store = plstore.open(folder / "store")
    labeling = Labeling(teacher_id="t3", iteration=3, part=(0, plan.parts))
    start = time.perf_counter()
    found = list(missing_labels(store, labeling, "unlabeled"))
    seconds = time.perf_counter() - start
    wanted = len(plan.read_ranges) * SHARD_IDS
    _check("images to label", sum(len(missing.ids) for missing in found), wanted)
    return {"wall_s": seconds}


def choose(folder: Path, plan: Plan) -> Found:
    """Count what a balanced selection keeps, by class."""
    from plstore.selection import Balance, Selection, preview

    store = plstore.open(folder / "store")
    quota = max(130_000 * plan.num_images // 300_000_000, 1)
    balance = Balance(min_confidence=_FLOOR, images_per_class=quota)
    selection = Selection(view="v", teachers=["t2"], balance=balance)
    start = time.perf_counter()
    counts = preview(store, selection)
    seconds = time.perf_counter() - start
    cells = synthetic_counts()
    above = cells["bucket"].to_numpy() >= round(_FLOOR * NUM_BUCKETS)
    by_class = np.bincount(cells["class_id"].to_numpy(), cells["num_labels"].to_numpy() * above)
    kept = np.minimum(by_class * plan.num_ranges, quota).sum()
    _check("images kept", counts["kept"], int(kept))
    return {"wall_s": seconds}


def compare(folder: Path, plan: Plan) -> Found:
    """Pair the files of two iterations."""
    store = plstore.open(folder / "store")
    start = time.perf_counter()
    aligned, others = pair_shards(store, [label_set(1)], [label_set(2)])
    seconds = time.perf_counter() - start
    _check("pairs of files", (len(aligned), len(others)), (plan.num_ranges, 0))
    return {"wall_s": seconds}


def collect_files(folder: Path, _: Plan) -> Found:
    """Find files that no commit names, and delete them."""
    from plstore.upkeep import collect, collectable

    store = plstore.open(folder / "store")
    root = store.table("images").root
    for number in range(_ORPHANS):
        (root / f"part-orphan-{number:04d}.parquet").write_bytes(b"left by a killed writer")
    start = time.perf_counter()
    found = collectable(store, grace=timedelta(0))
    looked = time.perf_counter()
    deleted = collect(store, grace=timedelta(0))
    done = time.perf_counter()
    orphans = [sum(item.reason == "never_committed" for item in x) for x in (found, deleted)]
    _check("orphans found", orphans, [_ORPHANS, _ORPHANS])
    _check("orphans left", len(list(root.glob("part-orphan-*"))), 0)
    return {"look_s": looked - start, "collect_s": done - looked}


def commit(folder: Path, plan: Plan) -> Found:
    """Commit one file of images, as an import does, some times; then a whole label set."""
    store = plstore.open(folder / "store")
    table = store.table("images")
    rows = table.dataset_of(table.shards()[-1:]).to_table()
    times = []
    for number in range(_COMMITS):
        start = time.perf_counter()
        table.append(rows, lineage={"step": "import"}, transaction=f"once-{number}")
        times.append(time.perf_counter() - start)
    shards = label_files(store, plan, 3)
    start = time.perf_counter()
    store.table("soft_labels").commit(shards, lineage={}, transaction="set", replace=True)
    seconds = time.perf_counter() - start
    there = store.table("soft_labels").shards(partition=label_set(3).partition)
    _check("files of the new label set", len(there), plan.num_ranges)
    return {
        "first_image_file_s": times[0],
        "next_image_file_s": statistics.median(times[1:]),
        "label_set_s": seconds,
    }


_STEPS: Final[dict[str, Callable[[Path, Plan], Found]]] = {
    "open": open_store,
    "connect": connect,
    "plan": plan_labeling,
    "select": choose,
    "select-again": choose,
    "diff": compare,
    "gc": collect_files,
    "commit": commit,
}


def _check(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"{what}: found {found}, wanted {wanted}")


def measure(folder: Path, num_rows: int) -> Iterator[Measurement]:
    """Build the store of a size, run every step, yield what each took."""
    plan = Plan.of(num_rows)
    case = f"{num_rows:.0e}-rows".replace("+0", "").replace("+", "")
    start = time.perf_counter()
    store = build(folder, plan)
    _tell(case, "build", time.perf_counter() - start)
    for metric, value, unit in _sizes(store.root, plan):
        yield _measurement(case, metric, value, unit)
    for step in _STEPS:
        found = _in_a_process(step, folder, num_rows)
        peak = found.pop("peak_rss_mb")
        for metric, value in found.items():
            yield _measurement(case, f"{step}_{metric}", value, "s")
        yield _measurement(case, f"{step}_peak_rss_mb", peak, "MB")
        _tell(case, step, sum(found.values()))


def _sizes(root: Path, plan: Plan) -> Iterator[tuple[str, float, str]]:
    yield "images", plan.num_images, "count"
    for name in ("images", "soft_labels"):
        log = [path for path in (root / name / "_delta_log").iterdir() if path.is_file()]
        yield f"{name}_files", len(list((root / name).rglob("*.parquet"))), "count"
        yield f"{name}_commits", sum(p.suffix == ".json" for p in log), "count"
        yield f"{name}_log_mb", sum(path.stat().st_size for path in log) / 1e6, "MB"
        marks = [path.stat().st_size for path in sorted(log) if "checkpoint.p" in path.name]
        yield f"{name}_checkpoints", len(marks), "count"
        yield f"{name}_last_checkpoint_mb", (marks or [0])[-1] / 1e6, "MB"


def _measurement(case: str, metric: str, value: float, unit: str) -> Measurement:
    return Measurement(
        case=case, contender="plstore", metric=metric, value=round(value, 4), unit=unit
    )


def _tell(case: str, step: str, seconds: float) -> None:
    print(f"{case} {step}: {seconds:.2f} s", file=sys.stderr, flush=True)


def _in_a_process(step: str, folder: Path, num_rows: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scale", "--step", step]
    command += ["--folder", str(folder), "--rows", str(num_rows)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{step} of {num_rows} rows failed")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _work(step: str, folder: Path, num_rows: int) -> None:
    """Be the process of one step; print what it took."""
    found = _STEPS[step](folder, Plan.of(num_rows))
    print(json.dumps({**found, "peak_rss_mb": peak_kilobytes_of_self() / 1024}))


def peak_kilobytes_of_self() -> int:
    """Return the peak memory of this process."""
    from os import getpid

    return peak_kilobytes(getpid())


def run(sizes: Sequence[int], home: Path | None, parts: Path | None) -> list[Measurement]:
    """Measure every size, or take what was measured of it before."""
    found: list[Measurement] = []
    for num_rows in sizes:
        kept = None if parts is None else parts / f"{num_rows}.json"
        if kept is not None and kept.exists():
            found += [Measurement(**row) for row in json.loads(kept.read_text())]
            continue
        folder = Path(tempfile.mkdtemp(prefix=f"scale-{num_rows}-", dir=home))
        try:
            measured = list(measure(folder, num_rows))
        finally:
            shutil.rmtree(folder)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps([vars(m) for m in measured]))
        found += measured
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="up to ten million images")
    parser.add_argument("--json", type=Path, help="where the measurements go")
    parser.add_argument("--rows", help="sizes, by commas, such as 1e6,3e8")
    parser.add_argument("--folder", type=Path, help="where the stores are made, and deleted")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    sizes = list(_QUICK if options.quick else _SIZES)
    if options.rows:
        sizes = [int(float(text)) for text in options.rows.split(",")]
    if options.step is not None:
        _work(options.step, options.folder, sizes[0])
        return
    parts = options.json.with_suffix(".parts") if options.json and not options.quick else None
    command = "python -m benchmarks.scale" + (" --quick" if options.quick else "")
    publish(run(sizes, options.folder, parts), command=command, json_path=options.json)
    if parts is not None:
        shutil.rmtree(parts)


if __name__ == "__main__":
    main()
