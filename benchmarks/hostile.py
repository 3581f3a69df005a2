"""SQL of somebody who wants out, or all of the time and memory: does anything get through?

    python -m benchmarks.hostile [--quick] [--json FILE]

Every statement runs as people run it, by the command line, with limits of 3 s and 500 MB. An
escape is a secret that is printed (from a file beside the store, one in its folder, or the
environment), or any file that is made, changed or gone. A hang is an answer more than a second
after the limit, the start of the command aside, twice in a row: somebody else may use the
machine. A crash is an end other than by an exit code
and a message. Memory is the largest resident one of the command and all its processes.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.hostile_sql import statements
from benchmarks.record import Measurement, publish

SECONDS = 3
MEMORY = "500MB"
SECRET = "planted-7f3a9c51"  # noqa: S105  the one to be found
_SLACK_SECONDS = 1.0
_STARTS = 7
_NUM_CLASSES = 5
_NUM_LABELED = 20
_NUM_UNLABELED = 400
_QUICK_STEP = 30
_HEADER = """-- Mine.
--
-- grain: one row an image
-- column sample_id bigint: the image
"""

EXPRESSIONS = (
    "md5(repeat('x', 1000000000)) = 'x'",
    "pg_sleep(60) is null",
    "len(list_sort(range(12000000))) > 0",
    "1 = 1) or (1 = 1",
    "true); copy (select 1) to '{out}/where.csv'; select (1",
    "true) union all select 1, 2, 3, null from read_text('{secret}') where (true",
    "exists (select 1 from read_text('{secret}'))",
    "a.class_id = getenv('PLANTED')::integer",
    "error(getenv('PLANTED')) is null",
    "true /* never closed",
    "true -- a note) or (",
    "unnest([true, true])",
)
"""What a selection may be told."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one statement.

    Attributes:
        kind: What it wanted.
        sql: Its text.
        escapes: What it reached.
        seconds: From start to end.
        code: Exit code; below 0 a signal.
        has_message: Whether it said what is wrong, in place of a traceback.
        peak_kilobytes: Of resident memory, of any process of it.
    """

    kind: str
    sql: str
    escapes: tuple[str, ...]
    seconds: float
    code: int
    has_message: bool
    peak_kilobytes: int

    @property
    def is_crash(self) -> bool:
        """Whether it ended other than by an exit code and, unless that is 0, a message."""
        return self.code < 0 or (self.code != 0 and not self.has_message)


def make_labeled_store(folder: Path) -> None:
    """Make a store of small images, most of them with soft labels."""
    import numpy as np
    from PIL import Image

    import plstore
    from plstore.codec import Codec
    from plstore.images import ImageRecord, import_images
    from plstore.labels import LabelBatch, LabelSet, commit_labels, write_labels

    noise = np.random.default_rng(0)
    names = [f"class-{n}" for n in range(_NUM_CLASSES)]
    records = []
    for index in range(_NUM_LABELED + _NUM_UNLABELED):
        stream = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (8, 8), dtype=np.uint8)).save(stream, "PNG")
        split = "labeled" if index < _NUM_LABELED else "unlabeled"
        label = names[index % _NUM_CLASSES] if split == "labeled" else None
        key = f"{index}.png"
        records.append(ImageRecord(key=key, split=split, data=stream.getvalue(), label=label))
    store = plstore.create(folder / "store")
    import_images(store, records, dataset="noise", class_names=names)
    probs = noise.dirichlet([0.4] * _NUM_CLASSES, _NUM_UNLABELED).astype(np.float32)
    ids = np.arange(_NUM_LABELED, _NUM_LABELED + _NUM_UNLABELED)
    batch = LabelBatch(sample_ids=ids, probabilities=probs)
    label_set = LabelSet(iteration=1, teacher_id="a", split="unlabeled")
    shards = write_labels(store, label_set, [batch], codec=Codec(), identity="a")
    commit_labels(store, shards, lineage={"step": "label"}, transaction="a")


def plant(folder: Path) -> dict[str, str]:
    """Make a store, and secrets beside it; return what statements call them.

    In another process: the memory of one that starts others is the least that theirs seems.
    """
    words = ["-m", "benchmarks.hostile", "--make", str(folder)]
    subprocess.run([sys.executable, *words], check=True)
    places = {
        "secret": folder / "secret.txt",
        "inside": folder / "store" / "inside.txt",
        "out": folder / "out",
        "store": folder / "store",
    }
    places["out"].mkdir()
    for name in ("secret", "inside"):
        places[name].write_text(f"{SECRET}\n")
    return {name: str(path) for name, path in places.items()}


def run_one(folder: Path, kind: str, sql: str, words: Sequence[str]) -> Outcome:
    """Run the command with some words, and see what it did."""
    before = _tree(folder)
    start = time.monotonic()
    command = [sys.executable, "-m", "plstore.cli.main", *words]
    environment = {**os.environ, "PLANTED": SECRET}
    with (
        tempfile.TemporaryFile() as printed,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, env=environment
        ) as process,
    ):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
        printed.seek(0)
        text = printed.read().decode(errors="replace")
    escapes = [f"printed {SECRET}"] if SECRET in text else []
    after = _tree(folder)
    escapes += [name for name in before.keys() | after if before.get(name) != after.get(name)]
    return Outcome(
        kind=kind,
        sql=sql,
        escapes=tuple(escapes),
        seconds=seconds,
        code=process.returncode,
        has_message="plstore: " in text and "Traceback" not in text,
        peak_kilobytes=usage.ru_maxrss,
    )


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return all files with size and time; what a selection takes for its own work aside."""
    found = {}
    for path in folder.rglob("*"):
        is_work = ".pool-" in str(path) or ".spill-" in str(path)
        if path.is_file() and not is_work:
            status = path.stat()
            found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found


def _tasks(folder: Path, places: Mapping[str, str]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield kind, text and words of each statement."""
    limits = ["--seconds", str(SECONDS), "--memory", MEMORY]
    at = ["--store", places["store"], *limits]
    select = ["select", "v", "--teacher", "a", "--dry-run", *at]
    for number, (kind, template) in enumerate(statements()):
        sql = _filled(template, places)
        # Half of them as JSON: rows are held to the limits too while they become text.
        yield kind, sql, ["sql", *at, "--format", ("json", "csv")[number % 2], "--", sql]
    for option in ("--where", "--class-id", "--confidence"):
        for template in EXPRESSIONS:
            sql = _filled(template, places)
            yield f"select {option}", sql, [*select, f"{option}={sql}"]
    own = folder / "own.sql"
    for template in (
        "select * from read_text('{secret}')",
        "select md5(repeat('x', 1000000000)) as sample_id",
        "copy (select 1) to '{out}/own.csv'",
        "select pg_sleep(60) as sample_id; -- note",
    ):
        sql = _filled(template, places)
        own.write_text(_HEADER + sql)
        yield "query run", sql, ["query", "run", str(own), *at]
        yield "select --query", sql, [*select, "--query", str(own)]


def _filled(template: str, places: Mapping[str, str]) -> str:
    for name, place in places.items():
        template = template.replace(f"{{{name}}}", place)
    return template


def measure(folder: Path, *, quick: bool) -> list[Measurement]:
    """Run the statements; return what came of them."""
    places = plant(folder)
    at = ["--store", places["store"]]
    select = ["select", "v", "--teacher", "a", "--dry-run", "--where", "true", *at]
    run_one(folder, "first", "", select)  # leaves caches of the store's own
    sound = [_start(folder, at) for _ in range(_STARTS)]
    outcomes, hangs = [], 0
    for number, (kind, sql, words) in enumerate(_tasks(folder, places)):
        if quick and number % _QUICK_STEP:
            continue
        outcome = run_one(folder, kind, sql, words)
        if outcome.seconds > statistics.median(sound) + SECONDS + _SLACK_SECONDS:
            start = _start(folder, at)
            again = run_one(folder, kind, sql, words)
            hangs += again.seconds > start + SECONDS + _SLACK_SECONDS
            print(f"slow beside a start of {start:.2f} s: {again}", file=sys.stderr)
            outcome = replace(again, escapes=outcome.escapes + again.escapes)
        outcomes.append(outcome)
        if outcome.escapes or outcome.is_crash:
            print(outcome, file=sys.stderr)
    return list(_summary(outcomes, hangs, statistics.median(sound)))


def _start(folder: Path, at: Sequence[str]) -> float:
    """Return the seconds of a sound statement that does nothing."""
    sound = run_one(folder, "start", "", ["sql", *at, "select 1"])
    if sound.code:
        raise SystemExit("a sound statement was refused: nothing was measured")
    return sound.seconds


def _summary(outcomes: Sequence[Outcome], hangs: int, start: float) -> Iterator[Measurement]:
    counts = {
        "statements": len(outcomes),
        "escapes": sum(bool(one.escapes) for one in outcomes),
        "hangs": hangs,
        "crashes": sum(one.is_crash for one in outcomes),
        "refused": sum(one.code != 0 for one in outcomes),
        "answered": sum(one.code == 0 for one in outcomes),
    }
    kinds = Counter(one.kind for one in outcomes)
    values: list[tuple[str, float, str]] = [(name, n, "count") for name, n in counts.items()]
    values += [(f"statements: {kind}", n, "count") for kind, n in kinds.items()]
    values += [
        ("largest_memory", max(one.peak_kilobytes for one in outcomes) / 1024, "MB"),
        ("longest", max(one.seconds for one in outcomes), "s"),
        ("start", start, "s"),
    ]
    for name, value, unit in values:
        yield Measurement(
            case=f"hostile-sql-{SECONDS}s-{MEMORY}",
            contender="plstore",
            metric=name,
            value=round(value, 3),
            unit=unit,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within 45 seconds")
    parser.add_argument("--json", type=Path, help="where the measurements go")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.make is not None:
        make_labeled_store(options.make)
        return
    command = "python -m benchmarks.hostile" + (" --quick" if options.quick else "")
    with tempfile.TemporaryDirectory() as folder:
        measurements = measure(Path(folder), quick=options.quick)
    publish(measurements, command=command, json_path=options.json)


if __name__ == "__main__":
    main()
