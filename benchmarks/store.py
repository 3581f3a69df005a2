"""Commits, opening, comparing and being killed: what the store takes and what it stands.

    python -m benchmarks.store [--quick] [--json FILE] [--only commit,open,diff,workers,kills]

Contenders of the comparison run in processes of their own, one after the other, and must give
the same answer before their time counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

import plstore
from benchmarks.record import Measurement, publish
from plstore.codec import Codec
from plstore.labels import SHARD_IDS, LabelBatch, LabelSet, coded_rows, commit_labels
from plstore.query import diff_labels
from plstore.schema import TABLES
from plstore.store import Shard, Store

_NUM_CLASSES = 1000
_SCHEMA = TABLES["soft_labels"].file_schema


def new_store(folder: Path, num_classes: int = 10) -> Store:
    """Return a store with classes and nothing else."""
    store = plstore.create(folder / "store")
    store.ensure_classes([f"class-{n}" for n in range(num_classes)])
    return store


def linked_shards(store: Store, count: int, teacher_id: str) -> list[Shard]:
    """Return shards that are there, quickly: one small file under many names."""
    probs = np.full((8, len(store.class_names)), 1 / len(store.class_names), np.float32)
    rows = coded_rows(LabelBatch(sample_ids=np.arange(8), probabilities=probs), Codec())
    label_set = LabelSet(iteration=1, teacher_id=teacher_id, split="unlabeled")
    partition = label_set.partition
    table = store.table("soft_labels")
    first = table.write_shard("first", rows, partition)
    stem = (table.root / first.path).with_suffix("")
    shards = []
    for number in range(count):
        path = stem.with_name(f"labels-{number:06d}-{stem.name.rpartition('-')[2]}.parquet")
        os.link(table.root / first.path, path)
        shards.append(replace(first, path=path.relative_to(table.root).as_posix()))
    return shards


def _milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def measure_commits(*, quick: bool) -> Iterator[Measurement]:
    """Yield the latency of one commit of 1, 100 and 10,000 shards that are written."""
    sizes = (1, 100, 500) if quick else (1, 100, 10_000)
    for size in sizes:
        times, peer = [], []
        for attempt in range(3 if quick or size > 1000 else 9):  # noqa: PLR2004  large: slow
            with tempfile.TemporaryDirectory() as folder:
                store = new_store(Path(folder))
                shards = linked_shards(store, size, f"t{attempt}")

                def commit(store: Store = store, shards: list[Shard] = shards) -> None:
                    commit_labels(store, shards, lineage={"step": "label"}, transaction="all")

                times.append(_milliseconds(commit))
                found = len(store.table("soft_labels").shards())
                if found != size:
                    raise SystemExit(f"{found} of {size} shards are committed")
                if size == 1:
                    peer.append(_peer(store, Path(folder, "peer")))
        value = statistics.median(times)
        yield _measured(f"commit-{size}-shards", "plstore", "wall_ms", value, "ms")
        if peer:
            value = statistics.median(peer)
            yield _measured("commit-1-shards", "deltalake", "write_and_commit_ms", value, "ms")


def _peer(store: Store, path: Path) -> float:
    """Return the milliseconds that `deltalake` takes to write and commit the same rows."""
    rows = store.table("soft_labels").read()
    write_deltalake(str(path), rows)
    return _milliseconds(partial(write_deltalake, str(path), rows, mode="append"))


def _measured(case: str, contender: str, metric: str, value: float, unit: str) -> Measurement:
    return Measurement(
        case=case, contender=contender, metric=metric, value=round(value, 3), unit=unit
    )


def measure_opening(*, quick: bool) -> Iterator[Measurement]:
    """Yield the time to open a store of 10,000 shards and 1,000 versions, and to ask it."""
    versions, per_version = (50, 4) if quick else (1000, 10)
    with tempfile.TemporaryDirectory() as folder:
        store = new_store(Path(folder))
        shards = linked_shards(store, versions * per_version, "t0")
        seconds = []
        for number in range(versions):
            part = shards[number * per_version : (number + 1) * per_version]

            def commit(part: list[Shard] = part, number: int = number) -> None:
                store.table("soft_labels").commit(
                    part, lineage={"step": "label"}, transaction=f"part-{number}"
                )

            seconds.append(_milliseconds(commit))
        case = f"open-{versions * per_version}-shards-{versions}-versions"
        yield _measured(case, "plstore", "commit_first_ms", seconds[0], "ms")
        tail = statistics.median(seconds[-20:])
        yield _measured(case, "plstore", "commit_last_ms", tail, "ms")
        opened = plstore.open(store.root)
        middle = versions // 2
        questions: dict[str, Callable[[], object]] = {
            "open_ms": lambda: plstore.open(store.root).table("soft_labels").version(),
            "all_versions_ms": opened.versions,
            "file_list_ms": lambda: opened.table("soft_labels").files(),
            "middle_file_list_ms": lambda: opened.table("soft_labels").files(middle),
            "connect_ms": lambda: plstore.connect(opened).close(),
            "history_ms": opened.history,
        }
        if len(opened.table("soft_labels").files(middle)) != middle * per_version:
            raise SystemExit("a middle version does not have its files")
        for metric, question in questions.items():
            value = statistics.median(_milliseconds(question) for _ in range(5))
            yield _measured(case, "plstore", metric, value, "ms")


def write_iterations(store: Store, num_rows: int) -> None:
    """Write two iterations of labels; a tenth of them differ, confidence always does."""
    random = np.random.default_rng(0)
    table = store.table("soft_labels")
    shards: dict[int, list[Shard]] = {1: [], 2: []}
    weights = 1 / np.arange(1, _NUM_CLASSES + 1)
    classes = random.choice(_NUM_CLASSES, 4 * SHARD_IDS, p=weights / weights.sum())
    for block, start in enumerate(range(0, num_rows, SHARD_IDS)):
        count = min(SHARD_IDS, num_rows - start)
        before = np.roll(classes, block * 7919)[:count].astype(np.int32)
        flip = random.random(count) < 0.1  # noqa: PLR2004  a tenth
        after = np.where(flip, np.roll(before, 1), before)
        for iteration, class_ids in ((1, before), (2, after)):
            confidence = random.random(count, dtype=np.float32)
            columns = {
                "sample_id": pa.array(np.arange(start, start + count)),
                "class_id": pa.array(class_ids),
                "confidence": pa.array(confidence),
                "entropy": pa.array(1 - confidence),
                "label": pa.nulls(count, _SCHEMA.field("label").type),
            }
            label_set = LabelSet(
                iteration=iteration, teacher_id=f"t{iteration}", split="unlabeled"
            )
            rows, partition = pa.table(columns, schema=_SCHEMA), label_set.partition
            shards[iteration].append(table.write_shard(f"labels-{block:06d}", rows, partition))
    for iteration, written in shards.items():
        commit_labels(store, written, lineage={}, transaction=f"iteration-{iteration}")


def compare(contender: str, path: Path) -> dict[str, float]:
    """Compare the two iterations; return how many labels flipped, and sums to check."""
    store = plstore.open(path)
    if contender == "plstore":
        sets = [LabelSet(iteration=n, teacher_id=f"t{n}", split="unlabeled") for n in (1, 2)]
        found = diff_labels(store, sets[:1], sets[1:])
        flipped = found.filter(pa.compute.equal(found["change"], "flipped"))
        sums = pa.compute.multiply(flipped["confidence_after"], flipped["images"])
        return {
            "pairs": flipped.num_rows,
            "flipped": pa.compute.sum(flipped["images"]).as_py(),
            "confidence": pa.compute.sum(sums).as_py(),
        }
    return _with_duckdb(store, contender)


def _with_duckdb(store: Store, contender: str) -> dict[str, float]:
    join = "positional join" if contender == "duckdb-positional" else "join"
    on = "" if contender == "duckdb-positional" else "using (sample_id)"
    lists = [
        [str(store.table("soft_labels").root / s.path) for s in shards]
        for shards in (
            store.table("soft_labels").shards(partition={"iteration": n}) for n in (1, 2)
        )
    ]
    sql = f"""
    select count(*), sum(n), sum(confidence) from (
        select a.class_id, b.class_id, count(*) as n, sum(b.confidence::double) as confidence
        from read_parquet($before) as a {join} read_parquet($after) as b {on}
        where a.class_id != b.class_id group by all
    )
    """  # noqa: S608  of our own words
    with duckdb.connect(config={"threads": 2}) as connection:
        parameters = {"before": lists[0], "after": lists[1]}
        ((pairs, flipped, confidence),) = connection.execute(sql, parameters).fetchall()
    return {"pairs": pairs, "flipped": int(flipped), "confidence": float(confidence)}


def measure_diff(*, quick: bool) -> Iterator[Measurement]:
    """Yield wall and CPU seconds and peak memory of comparing two iterations."""
    num_rows = 2_000_000 if quick else 100_000_000
    contenders = ("plstore", "duckdb", "duckdb-positional")
    with tempfile.TemporaryDirectory() as folder:
        store = new_store(Path(folder), _NUM_CLASSES)
        write_iterations(store, num_rows)
        answers: dict[str, dict[str, float]] = {}
        for contender in contenders:
            runs = [_in_a_process(contender, store.root) for _ in range(1 if quick else 3)]
            best = min(runs, key=lambda run: run["wall_s"])
            answers[contender] = {k: best[k] for k in ("pairs", "flipped")}
            if answers[contender] != answers["plstore"]:
                raise SystemExit(f"the answers differ: {answers}")
            for metric, unit in (("wall_s", "s"), ("cpu_s", "s"), ("peak_rss_mb", "MB")):
                yield _measured(f"diff-{num_rows}-rows", contender, metric, best[metric], unit)
        flipped = answers["plstore"]["flipped"]
        yield _measured(f"diff-{num_rows}-rows", "plstore", "labels_flipped", flipped, "count")


def _in_a_process(contender: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.store", "--worker", contender]
    done = subprocess.run(
        [*command, "--path", str(path)], check=True, capture_output=True, text=True
    )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def _work(contender: str, path: Path) -> None:
    """Be the process of one contender; print answer, time and memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = compare(contender, path)
    answer |= {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_rss_mb": _peak_rss_mb(),
    }
    print(json.dumps(answer))


def _peak_rss_mb() -> float:
    """Return this process's own peak; that of getrusage begins with its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell peak memory")


def run(parts: Sequence[str], *, quick: bool) -> Iterator[Measurement]:
    """Yield the measurements of the parts that are asked for."""
    if "commit" in parts:
        yield from measure_commits(quick=quick)
    if "open" in parts:
        yield from measure_opening(quick=quick)
    if "diff" in parts:
        yield from measure_diff(quick=quick)
    if "workers" in parts:
        from benchmarks.workers import measure as measure_workers

        yield from measure_workers(8 if quick else 32, commits=2 if quick else 8)
    if "kills" in parts:
        from benchmarks.kills import measure as measure_kills  # not in the memory of the others

        yield from measure_kills(2 if quick else 1000)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within 45 seconds")
    parser.add_argument("--json", type=Path, help="where the measurements go")
    parser.add_argument(
        "--only", default="commit,open,diff,workers,kills", help="parts, by commas"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        _work(options.worker, options.path)
        return
    command = f"python -m benchmarks.store --only {options.only}"
    command += " --quick" if options.quick else ""
    measurements = list(run(options.only.split(","), quick=options.quick))
    publish(measurements, command=command, json_path=options.json)


if __name__ == "__main__":
    main()
