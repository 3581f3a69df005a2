"""Three writers on one store, killed again and again: is anything lost or there twice?

Each writer goes through the same endless list of work, `kill_work.KINDS`: labelings, their
fusion and calibration, a selection, an import, decisions of people, a deletion, a tag, a
compaction, a collection. What it finished it notes in a journal. A writer that is killed is
started again, now and then only after the grace of the others' collections, and repeats what it
had not noted, whether or not it was committed.
"""

import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import plstore
from benchmarks.kill_work import (
    GRACE,
    KINDS,
    NUM_WRITERS,
    bytes_left,
    count,
    make_store,
    write_until_killed,
)
from benchmarks.record import Measurement
from plstore.upkeep import collect, verify

_MEAN_LIFE = 2.0
"""Seconds; exponential, so that some live long enough for a deletion."""

_LONG_DEATHS = 0.02
_HALF = len(KINDS) // 2  # a deletion is in the first
_ENDLESS = 10**9


class _Nursery:
    """Starts writers as forks of a process that has imported all they need."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["benchmarks.kill_work"])

    def start(self, writer: int, last: int) -> tuple[BaseProcess, Connection]:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_be_writer, args=(self._path, writer, last, theirs), daemon=True
        )
        process.start()
        theirs.close()
        return process, ours


def _be_writer(path: Path, writer: int, last: int, pipe: Connection) -> None:
    write_until_killed(path, writer, last, pipe.send)


def _is_ready(pipe: Connection) -> bool:
    try:
        return bool(pipe.recv() == "ready")
    except EOFError:  # it died before: its own traceback is on stderr
        return False


def kill_writers(folder: Path, kills: int, on_kills: Callable[[int], None]) -> dict[str, float]:
    """Kill writers at random moments; return what was counted afterwards."""
    path = folder / "store"
    make_store(path)
    nursery = _Nursery(path)
    draw = random.Random(0)  # noqa: S311  when to kill is no secret
    writers = {w: nursery.start(w, _ENDLESS) for w in range(NUM_WRITERS)}
    late = dict.fromkeys(writers, 0.0)
    killed = failed = 0
    caught: Counter[str] = Counter()
    while killed < kills:
        for writer, (process, pipe) in writers.items():
            if process.is_alive() and late[writer] == 0:
                failed += not _is_ready(pipe)
        time.sleep(draw.expovariate(1 / _MEAN_LIFE))
        for writer, (process, _) in writers.items():
            if late[writer] > time.monotonic():
                continue
            if late[writer] == 0:
                failed += process.exitcode is not None
                process.kill()
                process.join()
                caught[f"killed_in_{_doing(folder, writer)}"] += 1
                killed += 1
                on_kills(killed)
            if late[writer] == 0 and draw.random() < _LONG_DEATHS:
                late[writer] = time.monotonic() + GRACE.total_seconds() + 2
                continue
            late[writer] = 0.0
            writers[writer] = nursery.start(writer, _ENDLESS)
    for process, _ in writers.values():
        process.kill()
        process.join()
    return {**_finish(folder, nursery, killed, failed), **caught}


def _doing(folder: Path, writer: int) -> str:
    now = folder / f"now-{writer}"
    kind = (now.read_text() if now.is_file() else "") or "start"
    now.unlink(missing_ok=True)
    return kind


def _finish(folder: Path, nursery: _Nursery, killed: int, failed: int) -> dict[str, float]:
    """Let every writer end in peace; then count."""
    noted = []
    for writer in range(NUM_WRITERS):
        journal = folder / f"journal-{writer}"
        lines = journal.read_text().splitlines() if journal.is_file() else []
        last = max(-(-len(lines) // _HALF), 1) * _HALF
        process, _ = nursery.start(writer, last)
        process.join()
        failed += process.exitcode != 0
        noted += [(writer, n) for n in range(last)]
    store = plstore.open(folder / "store")
    problems = [p for p in verify(store) if p.what != "orphan_file"]
    counts = count(store, noted)
    collect(store, grace=timedelta(0))
    problems += verify(store)
    for problem in problems[:10]:
        print(problem, file=sys.stderr)
    return {
        "kills": killed,
        "failed_restarts": failed,
        "pieces_of_work": len(noted),
        "commits": sum(store.versions().values()),
        **counts,
        "deleted_images_with_bytes": bytes_left(store, noted),
        "problems": len(problems),
    }


def measure(kills: int, on_kills: Callable[[int], None] = lambda _: None) -> list[Measurement]:
    """Return the counts as measurements."""
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
