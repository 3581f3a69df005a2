"""Three writers on one store, killed again and again: is anything lost or there twice?

Each writer goes through the same endless list of work: two labelings, their fusion, a
selection, a compaction, a collection. What it finished it notes in a journal. A writer that is
killed is started again and repeats what it had not noted, whether or not it was committed.
"""

import argparse
import io
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

import plstore
from benchmarks.record import Measurement
from plstore.codec import Codec
from plstore.errors import CommitConflictError
from plstore.store import (
    ImageRecord,
    LabelBatch,
    LabelSet,
    Member,
    Store,
    collect,
    commit_labels,
    compact,
    find_view,
    import_images,
    make_ensemble,
    verify,
    write_labels,
)

NUM_WRITERS = 3
NUM_UNLABELED = 400
NUM_CLASSES = 5
GRACE = timedelta(seconds=20)
_LONGEST_LIFE = 2.5
_KINDS = ("label", "label", "fuse", "select", "compact", "collect")


def make_store(path: Path) -> Store:
    """Return a store of small images."""
    store = plstore.create(path)
    names = [f"class-{n}" for n in range(NUM_CLASSES)]
    noise = np.random.default_rng(0)
    records = []
    for index in range(NUM_UNLABELED + 20):
        labeled = index < 20  # noqa: PLR2004  a few of them
        pixels = noise.integers(0, 256, (8, 8), dtype=np.uint8)
        records.append(
            ImageRecord(
                key=f"{index}.png",
                split="labeled" if labeled else "unlabeled",
                data=_png(pixels),
                label=names[index % NUM_CLASSES] if labeled else None,
            )
        )
    import_images(store, records, dataset="noise", class_names=names)
    return store


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def distributions(writer: int, number: int) -> LabelBatch:
    """Return what a writer's labeling of that number holds, the same every time."""
    rng = np.random.default_rng([writer, number])
    probs = rng.dirichlet([0.4] * NUM_CLASSES, NUM_UNLABELED).astype(np.float32)
    return LabelBatch(sample_ids=np.arange(20, 20 + NUM_UNLABELED), probabilities=probs)


def work(store: Store, writer: int, number: int) -> dict[str, object]:
    """Do one piece of work, or find that it is done; return what the journal notes."""
    kind = _KINDS[number % len(_KINDS)]
    teacher = f"w{writer}-n{number}"
    if kind == "label":
        label_set = LabelSet(iteration=1, teacher_id=teacher, split="unlabeled")
        shards = write_labels(
            store, label_set, [distributions(writer, number)], codec=Codec(), identity=teacher
        )
        commit_labels(store, shards, lineage={"step": "label"}, transaction=f"l-{teacher}")
    elif kind == "fuse":
        members = [Member(teacher_id=f"w{writer}-n{number - n}", iteration=1) for n in (2, 1)]
        make_ensemble(store, teacher, members, iteration=1)
    elif kind == "select":
        selection = plstore.Selection(
            view=f"view-{writer}",
            teachers=[f"w{writer}-n{number - 1}@1"],
            balance=plstore.Balance(images_per_class=40, seed=number),
        )
        plstore.select(store, selection, identity=teacher)
    elif kind == "compact":
        compact(store)
    else:
        collect(store, grace=GRACE)
    return {"number": number, "kind": kind}


def write_until_killed(path: Path, writer: int, journal: Path, last: int) -> None:
    """Be a writer: go on after what the journal notes, up to a last piece of work."""
    store = plstore.open(path)
    lines = journal.read_text().splitlines() if journal.is_file() else []
    done = sum(1 for line in lines if line.endswith("}"))
    print("ready", flush=True)
    with journal.open("a") as file:
        if lines and not lines[-1].endswith("}"):
            file.write("\n")  # killed while it noted: that piece is done again
        number = done
        while number < last:
            journal.with_name(f"now-{writer}").write_text(_KINDS[number % len(_KINDS)])
            try:
                note = work(store, writer, number)
            except CommitConflictError as error:  # told clearly: tried again
                print(f"conflict {type(error).__name__}", flush=True)
                continue
            file.write(json.dumps(note) + "\n")
            file.flush()
            number += 1


def _start(path: Path, writer: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.kills", "--path", str(path)]
    command += ["--writer", str(writer), "--last", str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_writers(folder: Path, kills: int, on_kills: Callable[[int], None]) -> dict[str, float]:
    """Kill writers at random moments; return what was counted afterwards."""
    path = folder / "store"
    make_store(path)
    draw = random.Random(0)  # noqa: S311  when to kill is no secret
    endless = 10**9
    writers = {w: _start(path, w, endless) for w in range(NUM_WRITERS)}
    killed = failed = 0
    caught: Counter[str] = Counter()
    while killed < kills:
        for process in writers.values():
            if process.stdout is not None and process.stdout.readline() != "ready\n":
                failed += 1
                print(process.communicate()[1][-2000:], file=sys.stderr)
        time.sleep(draw.uniform(0, _LONGEST_LIFE))
        for writer, process in writers.items():
            if process.poll() is not None:
                failed += 1
                print(process.communicate()[1][-2000:], file=sys.stderr)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            now = folder / f"now-{writer}"
            caught[f"killed_in_{now.read_text() if now.is_file() else 'start'}"] += 1
            now.unlink(missing_ok=True)
            killed += 1
            on_kills(killed)
            if killed < kills:
                time.sleep(draw.uniform(0, 0.1))
            writers[writer] = _start(path, writer, endless)
    for process in writers.values():
        process.kill()
        process.communicate()
    return {**_finish(folder, killed, failed), **caught}


def _finish(folder: Path, killed: int, failed: int) -> dict[str, float]:
    """Let every writer end in peace; then count."""
    path = folder / "store"
    noted = []
    for writer in range(NUM_WRITERS):
        journal = folder / f"journal-{writer}"
        last = len(journal.read_text().splitlines()) + len(_KINDS)
        process = _start(path, writer, last)
        _, errors = process.communicate()
        failed += process.returncode != 0
        if process.returncode:
            print(errors[-2000:], file=sys.stderr)
        noted += [(writer, n) for n in range(last)]
    store = plstore.open(path)
    lost, repeated = _count(store, noted)
    problems = [p for p in verify(store) if p.what != "orphan_file"]
    for problem in problems[:10]:
        print(problem, file=sys.stderr)
    orphans = len(verify(store)) - len(problems)
    return {
        "kills": killed,
        "failed_restarts": failed,
        "pieces_of_work": len(noted),
        "commits": sum(store.versions().values()),
        "lost_rows": lost,
        "repeated_rows": repeated,
        "problems": len(problems),
        "orphan_files": orphans,
    }


def _count(store: Store, noted: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return committed rows that are missing or wrong, and rows that are there twice."""
    lost = repeated = 0
    rows = store.table("soft_labels").read(
        columns=["teacher_id", "sample_id", "class_id", "confidence"]
    )
    teachers = Counter(
        store.table("teachers").read(columns=["teacher_id"])["teacher_id"].to_pylist()
    )
    views = Counter(store.table("views").read(columns=["identity"])["identity"].to_pylist())
    by_teacher = {
        name: rows.filter(pc.equal(rows["teacher_id"], name)).sort_by("sample_id")
        for name in set(rows["teacher_id"].to_pylist())
    }
    for writer, number in noted:
        kind, name = _KINDS[number % len(_KINDS)], f"w{writer}-n{number}"
        if kind in {"label", "fuse"}:
            missing, extra = _compare(by_teacher.get(name), writer, number, kind)
            lost, repeated = lost + missing, repeated + extra
        if kind == "fuse":
            lost, repeated = lost + (not teachers[name]), repeated + max(teachers[name] - 1, 0)
        if kind == "select":
            view = find_view(store, name)
            held = 0 if view is None else sum(s.num_rows for s in view.shards())
            lost += NUM_UNLABELED if view is None else view.record.num_images - held
            repeated += max(views[name] - 1, 0)
    return lost, repeated


def _counted(store: Store, table: str, column: str) -> Counter[str]:
    return Counter(store.table(table).read(columns=[column])[column].to_pylist())


def _compare(found: pa.Table | None, writer: int, number: int, kind: str) -> tuple[int, int]:
    if found is None:
        return NUM_UNLABELED, 0
    ids = found["sample_id"].to_numpy()
    extra = len(ids) - len(np.unique(ids))
    missing = NUM_UNLABELED - len(np.unique(ids))
    if kind == "label" and not missing and not extra:
        wanted = distributions(writer, number).probabilities
        same = found["class_id"].to_numpy() == wanted.argmax(axis=1)
        same &= found["confidence"].to_numpy() == wanted.max(axis=1)
        missing = int((~same).sum())
    return missing, extra


def measure(kills: int, on_kills: Callable[[int], None] = lambda _: None) -> list[Measurement]:
    """Return the counts as measurements, after checking that nothing was lost."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = kill_writers(Path(folder), kills, on_kills)
    counts["wall"] = round(time.monotonic() - start, 1)
    return [
        Measurement(
            case="three-writers-killed",
            contender="plstore",
            metric=name,
            value=value,
            unit="s" if name == "wall" else "count",
        )
        for name, value in counts.items()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--writer", type=int, required=True)
    parser.add_argument("--last", type=int, required=True)
    options = parser.parse_args()
    journal_path = options.path.parent / f"journal-{options.writer}"
    write_until_killed(options.path, options.writer, journal_path, options.last)
