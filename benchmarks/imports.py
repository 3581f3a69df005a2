"""Importing a long listing of images that stay in place, and importing it again.

    python -m benchmarks.imports [--quick] [--json FILE] [--before FOLDER]

The listing names 1,000,000 paths, a twentieth of them labeled; the files are links to 64 small
JPEGs, so what is measured is the import and not the disk. Each import is `plstore import table
--in-place` in a process of its own. `--before` names a checkout of other code, which does the
same in the same run.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import plstore
from benchmarks.record import Measurement, publish

_NUM_PATHS = 1_000_000
_NUM_CONTENTS = 64
_PER_FOLDER = 1000
_LABELED_EVERY = 20
_CLASSES = 10
_SIDE = 32  # pixels

_PROGRAM = """
import json, sys, time
from pathlib import Path
from plstore.cli.main import main
report = sys.argv.pop(1)
start, cpu = time.perf_counter(), time.process_time()
try:
    main()
except SystemExit as end:
    if end.code:
        raise
status = Path("/proc/self/status").read_text()
line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
figures = {
    "wall_s": time.perf_counter() - start,
    "cpu_s": time.process_time() - cpu,
    "peak_rss_mb": int(line.split()[1]) / 1000,
}
Path(report).write_text(json.dumps(figures))
"""


def write_listing(folder: Path, num_paths: int) -> Path:
    """Write files and a listing of them; return the listing."""
    random = np.random.default_rng(0)
    contents = folder / "contents"
    contents.mkdir()
    for number in range(_NUM_CONTENTS):
        pixels = random.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="JPEG")
        (contents / f"{number}.jpg").write_bytes(stream.getvalue())
    listing = folder / "pool.csv"
    with listing.open("w") as file:
        file.write("path,label\n")
        for number in range(num_paths):
            name = f"pool/{number // _PER_FOLDER:05d}/{number:09d}.jpg"
            if number % _PER_FOLDER == 0:
                (folder / name).parent.mkdir(parents=True)
            os.link(contents / f"{number % _NUM_CONTENTS}.jpg", folder / name)
            kind = number // _LABELED_EVERY % _CLASSES
            label = f"class-{kind}" if number % _LABELED_EVERY == 0 else ""
            file.write(f"{name},{label}\n")
    return listing


def measure(listing: Path, store: Path, code: Path) -> tuple[dict[str, float], dict[str, int]]:
    """Import a listing by some code; return time and memory, and what became of the images."""
    report = store.with_name(f"{store.name}.json")
    words = ["import", "table", str(listing), "--in-place", "--store", str(store)]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(report), *words, "--format", "json"],
        cwd=code,  # the first place where it looks for plstore
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    rows = {row["what"]: row["images"] for row in json.loads(done.stdout)}
    figures: dict[str, float] = json.loads(report.read_text())
    return figures, rows


def run(codes: dict[str, Path], *, num_paths: int) -> Iterator[Measurement]:
    """Yield time and peak memory of a first and of a second import, by each code."""
    units = {"wall_s": "s", "cpu_s": "s", "peak_rss_mb": "MB"}
    with tempfile.TemporaryDirectory() as folder:
        listing = write_listing(Path(folder), num_paths)
        for contender, code in codes.items():
            store = Path(folder, contender.replace(" ", "-"))
            for case, what in (("first", "accepted"), ("again", "already there")):
                figures, rows = measure(listing, store, code)
                there = plstore.open(store).table("images").dataset().count_rows()
                if (rows.get(what), there) != (num_paths, num_paths):
                    raise SystemExit(f"{contender}, {case}: {rows}, {there} in the store")
                for metric, unit in units.items():
                    yield Measurement(
                        case=f"import-{num_paths}-paths-{case}",
                        contender=contender,
                        metric=metric,
                        value=round(figures[metric], 1),
                        unit=unit,
                    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within 45 seconds")
    parser.add_argument("--json", type=Path, help="where the measurements go")
    parser.add_argument("--before", type=Path, help="a checkout of other code")
    options = parser.parse_args(arguments)
    num_paths = 20_000 if options.quick else _NUM_PATHS
    codes = {"plstore": Path(__file__).resolve().parents[1]}
    if options.before is not None:
        codes["before"] = options.before.resolve()
    command = "python -m benchmarks.imports" + (" --quick" if options.quick else "")
    command += "" if options.before is None else " --before FOLDER"
    measurements = list(run(codes, num_paths=num_paths))
    publish(measurements, command=command, json_path=options.json)


if __name__ == "__main__":
    main()
