"""Filter and balance: what it takes beside a raw scan, SQL windows, polars, pandas and Spark.

    python -m benchmarks.select [--rows N] [--quick] [--json FILE] [--folder DIR]
                                [--contenders scan,plstore,…]

Labels of 1,000 classes, the n-th as frequent as 1 / n, most of them confident; of each class
the K = 130,000 N / 300 M most confident above 0.3, fewer copied up to K. Each contender runs in
a process of its own over the same files, ends with all rows it keeps having passed through its
hands, and must keep the same images; those that count copies (plstore, window, spark) must give
the same copies too. Peak memory is that of the process, libraries included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from benchmarks.watch import Descendants, peak_kilobytes
from plstore.machine import import_without_pandas
from plstore.schema import LABEL_TYPE

if TYPE_CHECKING:
    from benchmarks.record import Measurement
    from plstore.store import Store

NUM_CLASSES: Final = 1000
FLOOR: Final = 0.3
SEED: Final = 5
_TEACHER = "t0"
_WINDOW_MEMORY = "14GB"  # what it needs above that goes to disk
_SECONDS = 1500
_COPIES = frozenset({"plstore", "plstore-sidecar", "window", "spark"})
_CONTENDERS = (
    "scan", "plstore", "plstore-sidecar", "retune", "window", "polars", "pandas", "spark",
)  # fmt: skip


def quota(num_rows: int) -> int:
    """Return K: the paper's 130,000 of 300 million."""
    return max(130_000 * num_rows // 300_000_000, 1)


def make_store(folder: Path, num_rows: int) -> None:
    """Fill a store with labels, unless it is there."""
    import plstore
    from plstore.labels import SHARD_IDS, LabelSet, commit_labels

    store = plstore.create(folder / "store")
    store.ensure_classes([f"class-{n}" for n in range(NUM_CLASSES)])
    table = store.table("soft_labels")
    if sum(shard.num_rows for shard in table.shards()) == num_rows:
        return
    frequency = 1 / np.arange(1, NUM_CLASSES + 1)
    steps = np.cumsum(frequency / frequency.sum())
    partition = LabelSet(iteration=1, teacher_id=_TEACHER, split="unlabeled").partition
    shards = []
    for block, start in enumerate(range(0, num_rows, SHARD_IDS)):
        count = min(SHARD_IDS, num_rows - start)
        random = np.random.default_rng([7, block])
        rows = pa.table(
            {
                "sample_id": np.arange(start, start + count),
                "class_id": np.searchsorted(steps, random.random(count)).astype(np.int32),
                "confidence": random.beta(1.6, 0.92, count).astype(np.float32),
                "entropy": pa.nulls(count, pa.float32()),
                "label": pa.nulls(count, LABEL_TYPE),
            }
        )
        shards.append(table.write_shard(f"labels-bench-{block:06d}", rows, partition))
    commit_labels(store, shards, lineage={"step": "label"}, transaction="bench")


_WINDOW: Final = """
with ranked as (
    select sample_id, class_id,
        row_number() over (partition by class_id order by confidence desc, sample_id) as place,
        count(*) over (partition by class_id) as n
    from labels where confidence > $floor::float
), kept as (select * from ranked where place <= $k), few as (
    select sample_id, row_number() over (
        partition by class_id order by lottery(sample_id, $seed), sample_id) as drawn
    from kept where n < $k
)
select kept.sample_id,
    case when n >= $k then 1 else $k // n + (drawn <= $k % n)::int end as copies
from kept left join few on kept.sample_id = few.sample_id
"""


class _Sums:
    """What rows add up to, whatever their order: the same rows give the same sums."""

    def __init__(self) -> None:
        self.rows = 0
        self.ids = self.copies = 0

    def add(self, sample_ids: Any, copies: Any = None) -> None:  # noqa: ANN401  Arrow columns
        mixed = np.asarray(sample_ids).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        self.rows += len(mixed)
        self.ids = (self.ids + int(mixed.sum())) % 2**64
        if copies is not None:
            times = (mixed * np.asarray(copies).astype(np.uint64)).sum()
            self.copies = (self.copies + int(times)) % 2**64

    def add_all(self, batches: Iterable[pa.RecordBatch]) -> None:
        for batch in batches:
            copies = batch["copies"] if "copies" in batch.schema.names else None
            self.add(batch["sample_id"], copies)

    def as_json(self) -> dict[str, int]:
        return {"rows": self.rows, "ids": self.ids, "copies": self.copies}


def _open(folder: Path) -> "Store":
    import_without_pandas()
    from plstore.store import open as open_store

    return open_store(folder / "store")


def _files(folder: Path) -> list[str]:
    return _open(folder).table("soft_labels").files()


def _duckdb(folder: Path, spill: str) -> Any:  # noqa: ANN401  a connection
    import duckdb

    from plstore.query import create_macros

    connection = duckdb.connect(
        config={"memory_limit": _WINDOW_MEMORY, "temp_directory": spill}
    )
    connection.execute("set enable_progress_bar = false")
    create_macros(connection)
    connection.read_parquet(_files(folder), hive_partitioning=False).create_view("labels")
    return connection


def run_scan(folder: Path, _: int) -> _Sums:
    """Read the columns once, filter and count by class: what nothing can be faster than."""
    sums = _Sums()
    rows = _duckdb(folder, "").sql(
        "select class_id, count(*) as n from labels where confidence > $floor::float "
        "group by class_id",
        params={"floor": FLOOR},
    )
    sums.rows = sum(n for _, n in rows.fetchall())
    return sums


def run_plstore(folder: Path, num_rows: int, *, sidecars: bool = False) -> _Sums:
    """Select, with the counts that were kept when labels were written, or without."""
    store = _open(folder)
    if not sidecars:
        for path in store.work_folder("histograms").rglob("*.parquet"):
            path.unlink()
    from plstore.labels import LabelSet
    from plstore.selection import (
        Balance,
        DuckDBEngine,
        find_cuts,
        find_standing,
        pool_of_labels,
        scratch_connection,
        scratch_folder,
    )

    balance = Balance(min_confidence=FLOOR, images_per_class=quota(num_rows), seed=SEED)
    label_set = LabelSet(iteration=1, teacher_id=_TEACHER, split="unlabeled")
    sums = _Sums()
    with ExitStack() as stack:
        connection = stack.enter_context(scratch_connection(scratch_folder(store)))
        shards = store.table("soft_labels").shards(partition=label_set.partition)
        pool = pool_of_labels(store, label_set, shards, find_standing(store, store.versions()))
        engine = DuckDBEngine(connection, pool)
        cuts = find_cuts(
            engine,
            balance,
            lambda candidates: balance.quotas_of(candidates, store.class_names),
            num_classes=NUM_CLASSES,
            counts=pool.counts,
        )
        sums.add_all(cuts.decisions(engine))
    return sums


def run_retune(folder: Path, num_rows: int) -> _Sums:
    """Count by class what another floor and another K would keep, from the kept counts."""
    store = _open(folder)
    from plstore.selection import Balance, Selection, preview

    balance = Balance(min_confidence=0.55, images_per_class=quota(num_rows) // 2)
    counts = preview(store, Selection(view="v", teachers=[_TEACHER], balance=balance))
    sums = _Sums()
    sums.rows = counts["kept"]
    return sums


def run_window(folder: Path, num_rows: int) -> _Sums:
    """Rank every candidate of every class: SQL as one writes it, with two keys."""
    sums = _Sums()
    values = {"floor": FLOOR, "seed": SEED, "k": quota(num_rows)}
    with tempfile.TemporaryDirectory(dir=folder) as spill:
        sums.add_all(
            _duckdb(folder, spill).sql(_WINDOW, params=values).to_arrow_reader(100_000)
        )
    return sums


def run_polars(folder: Path, num_rows: int) -> _Sums:
    """`top_k_by` of each group; copies are not counted."""
    import polars as pl

    columns = ["confidence", "sample_id"]
    frame = (
        pl.scan_parquet(_files(folder), hive_partitioning=False)
        .select("class_id", *columns)
        .filter(pl.col("confidence") > pl.lit(FLOOR, pl.Float32))
        .group_by("class_id")
        .agg(
            pl.col("sample_id").top_k_by(
                ["confidence", "sample_id"], quota(num_rows), reverse=[False, True]
            )
        )
        .select(pl.col("sample_id").explode())
        .collect(engine="streaming")
    )
    sums = _Sums()
    sums.add(frame["sample_id"].to_numpy())
    return sums


def run_pandas(folder: Path, num_rows: int) -> _Sums:
    """Read, sort and take the head of each group; copies are not counted."""
    import pyarrow.dataset

    dataset = pyarrow.dataset.dataset(_files(folder), format="parquet")
    where = pyarrow.dataset.field("confidence") > pa.scalar(FLOOR, pa.float32())
    columns = ["class_id", "confidence", "sample_id"]
    frame = dataset.to_table(columns=columns, filter=where).to_pandas(self_destruct=True)
    frame = frame.sort_values(columns, ascending=[True, False, True])
    kept = frame.groupby("class_id").head(quota(num_rows))
    sums = _Sums()
    sums.add(kept["sample_id"].to_numpy())
    return sums


def run_spark(folder: Path, num_rows: int) -> _Sums:
    """The same steps in Spark, on all cores of this machine; histogram counted there too."""
    store = _open(folder)
    from plstore.selection import Balance, Pool, SparkEngine, find_cuts, find_standing

    balance = Balance(min_confidence=FLOOR, images_per_class=quota(num_rows), seed=SEED)
    shards = store.table("soft_labels").shards()
    standing = find_standing(store, store.versions())
    pool = Pool(store=store, shards=shards, standing=standing, num_labels=num_rows)
    sums = _Sums()
    with SparkEngine(pool) as engine:
        cuts = find_cuts(
            engine,
            balance,
            lambda candidates: balance.quotas_of(candidates, store.class_names),
            num_classes=NUM_CLASSES,
        )
        sums.add_all(cuts.decisions(engine))
    return sums


_RUNS: dict[str, Callable[[Path, int], _Sums]] = {
    "scan": run_scan,
    "plstore": run_plstore,
    "plstore-sidecar": lambda folder, rows: run_plstore(folder, rows, sidecars=True),
    "retune": run_retune,
    "window": run_window,
    "polars": run_polars,
    "pandas": run_pandas,
    "spark": run_spark,
}


def run_one(name: str, folder: Path, num_rows: int) -> dict[str, Any]:
    """Run a contender in this process and say what it took."""
    # Where memory ends, the system ends this process and no other.
    Path("/proc/self/oom_score_adj").write_text("1000")
    with Descendants() as others:
        start, cpu = time.perf_counter(), time.process_time()
        sums = _RUNS[name](folder, num_rows)
        wall, own = time.perf_counter() - start, time.process_time() - cpu
    peak = peak_kilobytes(os.getpid()) + sum(others.peak_kb.values())
    return {
        "wall_s": wall,
        "cpu_s": own + sum(others.cpu_s.values()),
        "peak_rss_mb": peak / 1024,
        **sums.as_json(),
    }


def measure(folder: Path, num_rows: int, names: Iterable[str]) -> "list[Measurement]":
    """Run contenders one after the other; stop if two keep different images."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.select", "--run", name]
        command += ["--folder", str(folder), "--rows", str(num_rows)]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired:
            print(f"{name}: stopped after {_SECONDS} s", file=sys.stderr)
            continue
        lines = done.stdout.splitlines()
        if done.returncode or not lines:
            last = (done.stderr.strip().splitlines() or ["killed"])[-1]
            print(f"{name}: failed ({done.returncode}): {last[:200]}", file=sys.stderr)
            continue
        found[name] = json.loads(lines[-1])
        print(f"{name}: {found[name]['wall_s']:.2f} s", file=sys.stderr, flush=True)
    _check({name: sums for name, sums in found.items() if name not in {"scan", "retune"}})
    return list(_measurements(found, num_rows))


def _check(found: dict[str, dict[str, Any]]) -> None:
    for keys, names in (("ids", set(found)), ("copies", set(found) & _COPIES)):
        answers = {name: (found[name]["rows"], found[name][keys]) for name in sorted(names)}
        if len(set(answers.values())) > 1:
            raise SystemExit(f"contenders keep different {keys}: {answers}")


def _measurements(found: dict[str, dict[str, Any]], num_rows: int) -> "Iterable[Measurement]":
    from benchmarks.record import Measurement  # not in the memory of contenders

    case = f"select-{num_rows}-rows"
    for name, values in found.items():
        contender, where = (
            ("plstore-sidecar", f"retune-{num_rows}-rows") if name == "retune" else (name, case)
        )
        for metric, unit in (("wall_s", "s"), ("cpu_s", "s"), ("peak_rss_mb", "MB")):
            yield Measurement(
                case=where,
                contender=contender,
                metric=metric,
                value=round(values[metric], 3),
                unit=unit,
            )
        if "scan" in found and name not in {"scan", "retune"}:
            ratio = values["cpu_s"] / found["scan"]["cpu_s"]
            yield Measurement(
                case=case,
                contender=name,
                metric="cpu_to_scan",
                value=round(ratio, 2),
                unit="times",
            )


def main() -> None:
    """Read the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=lambda text: int(float(text)), default=None)
    parser.add_argument("--quick", action="store_true", help="a million rows, without Spark")
    parser.add_argument("--json", type=Path, default=None, help="file for the result")
    parser.add_argument("--folder", type=Path, default=None, help="keep the store there")
    parser.add_argument("--contenders", default=None, help="by commas; all unless given")
    parser.add_argument("--run", default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    num_rows = given.rows or (1_000_000 if given.quick else 300_000_000)
    if given.run is not None:
        print(json.dumps(run_one(given.run, given.folder, num_rows)))
        return
    quick = tuple(name for name in _CONTENDERS if name != "spark")
    names = given.contenders.split(",") if given.contenders else quick if given.quick else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        make_store(folder, num_rows)
        measurements = measure(folder, num_rows, names or _CONTENDERS)
    from benchmarks.record import publish

    publish(measurements, command="python -m benchmarks.select", json_path=given.json)


if __name__ == "__main__":
    main()
