"""Loaders: images a CPU second beside DataLoader + PIL and beside bare decoding.

    python -m benchmarks.loaders [--quick] [--json FILE] [--folder DIR] [--figure FILE]
                                 [--contenders pil,threads,…] [--cases plain,randaugment]

The same JPEGs of ImageNet's size with soft labels of 1,000 classes, batches of 64 at 224
pixels, two threads or worker processes. Each contender runs in a process of its own, warmed
up, one after another in every round; ratios are taken within a round, and their median is
given. CPU seconds are those of the process and of all it started; peak memory is the sum over
them. Before anything is timed, the alignment of image, label and id is checked.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.record import Measurement, publish
from benchmarks.watch import peak_kilobytes

_CASES: Final = ("plain", "randaugment")
_WARM_UP_BATCHES: Final = 12
_VIEW_ONLY: Final = frozenset(
    {"threads-windowed", "threads-plain-files", "threads-ratio-1", "threads-ratio-14"}
)  # what the source costs does not depend on the noise
_NOT_MEASURED: Final = {
    "mosaicml-streaming": "pins numpy < 2.2 and breaks datasets 5 in the same environment",
    "spdl": "its wheel needs the system's FFmpeg libraries",
    "ffcv": "no wheel; builds against OpenCV's and libturbojpeg's headers",
}


def run_child(folder: Path, name: str, case: str, seconds: float) -> None:
    """Measure one contender; print one JSON line."""
    import torch

    from benchmarks.loader_contenders import CONTENDERS

    torch.set_num_threads(2)
    batches = CONTENDERS[name](folder, case)  # type: ignore[arg-type]  # one of the cases
    for _ in range(_WARM_UP_BATCHES):
        next(batches)
    images, cpu, start = 0, _family()[0], time.perf_counter()
    while time.perf_counter() - start < seconds:
        images += len(next(batches)[0])
    wall = time.perf_counter() - start
    now, peak_kb = _family()
    result = {"images": images, "cpu": now - cpu, "wall": wall, "peak_kb": peak_kb}
    result["pss_kb"] = sum(_proportional_kilobytes(pid) for pid in _pids())
    print(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # worker processes and pools of some contenders do not end


def _pids() -> Iterator[int]:
    """Yield this process and its living descendants."""
    family = {os.getpid()}
    for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        if int(path.name) in family or parent in family:
            family.add(int(path.name))
            yield int(path.name)


def _proportional_kilobytes(pid: int) -> int:
    """Return the memory of a process, pages that it shares divided by those who share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def _family() -> tuple[float, int]:
    """Return CPU seconds and peak kilobytes of this process and of all it started.

    The seconds of those that have ended are in their parent's; their memory is not.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    seconds, peak_kb = 0.0, 0
    for pid in _pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += sum(int(value) for value in fields[11:15]) / ticks
        peak_kb += peak_kilobytes(pid)
    return seconds, peak_kb


def measure(
    folder: Path, names: Sequence[str], cases: Sequence[str], *, rounds: int, seconds: float
) -> Iterator[Measurement]:
    """Yield the figures of all contenders, from interleaved rounds."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for case in cases:
            for name in names:
                if case != "plain" and name in _VIEW_ONLY:
                    continue
                result = _run(folder, name, case, seconds)
                found.setdefault((case, name), []).append(result)
                speed = result["images"] / result["cpu"]
                print(f"round {number} {case} {name}: {speed:.0f}", file=sys.stderr, flush=True)
    for (case, name), results in found.items():
        speeds = [r["images"] / r["cpu"] for r in results]
        yield _value(case, name, "images_per_cpu_s", median(speeds), "1/s")
        walls = [r["images"] / r["wall"] for r in results]
        yield _value(case, name, "images_per_s", median(walls), "1/s")
        peak = max(r["peak_kb"] for r in results) / 1000
        yield _value(case, name, "peak_rss_mb", peak, "MB")
        shared = max(r["pss_kb"] for r in results) / 1000
        yield _value(case, name, "proportional_mb", shared, "MB")
        for metric, other in (
            ("ratio_to_pil", "pil"),
            ("share_of_decode_ceiling", "decode-ceiling"),
        ):
            theirs = found.get((case, other))
            if theirs is not None:
                ratios = [
                    speed / (r["images"] / r["cpu"])
                    for speed, r in zip(speeds, theirs, strict=True)
                ]
                yield _value(case, name, metric, median(ratios), "")


def _run(folder: Path, name: str, case: str, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.loaders", "--child", name, "--cases", case]
    command += ["--folder", str(folder), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"images"')]
    if not lines:
        raise SystemExit(f"{name} {case} gave nothing:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def _value(case: str, contender: str, metric: str, value: float, unit: str) -> Measurement:
    return Measurement(
        case=case, contender=contender, metric=metric, value=round(value, 4), unit=unit
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few images, one short round")
    parser.add_argument("--json", type=Path, nargs="?", const=Path("loaders.json"))
    parser.add_argument("--figure", type=Path, help="where to draw the figure (.png or .svg)")
    parser.add_argument("--folder", type=Path, help="where images are kept for the next run")
    parser.add_argument("--contenders", default=None)
    parser.add_argument("--cases", default=",".join(_CASES))
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.folder, arguments.child, arguments.cases, arguments.seconds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        measurements = list(_measure_all(folder, arguments))
    command = "python -m benchmarks.loaders" + (" --quick" if arguments.quick else "")
    publish(measurements, command=command, json_path=arguments.json)
    for name, reason in _NOT_MEASURED.items():
        print(f"{name}: not measured: {reason}")
    if arguments.figure:
        from benchmarks.loader_figure import draw

        draw(measurements, arguments.figure)


def _measure_all(folder: Path, arguments: argparse.Namespace) -> Iterator[Measurement]:
    from benchmarks.loader_contenders import CONTENDERS, installed
    from benchmarks.loader_costs import measure_alignment, measure_costs
    from benchmarks.loader_data import make_data

    quick = arguments.quick
    make_data(
        folder, 96 if quick else arguments.images, peers=not quick or bool(arguments.contenders)
    )
    yield from measure_alignment(folder, samples=256 if quick else 100_000)
    wanted = arguments.contenders
    if quick and wanted is None:
        wanted = "decode-ceiling,pil,dali,threads"
    if quick:
        arguments.cases = arguments.cases.partition(",")[0]
    names = wanted.split(",") if wanted else list(CONTENDERS)
    unknown = sorted(set(names) - set(CONTENDERS))
    if unknown:
        raise SystemExit(f"no contender {unknown[0]!r}; wanted {', '.join(CONTENDERS)}")
    missing = [name for name in names if not installed(name)]
    for name in missing:
        print(f"{name}: not installed, left out", file=sys.stderr)
    names = [name for name in names if name not in missing]
    rounds, seconds = (1, 0.7) if quick else (arguments.rounds, arguments.seconds)
    cases = arguments.cases.split(",")
    yield from measure(folder, names, cases, rounds=rounds, seconds=seconds)
    yield from measure_costs(folder, quick=quick)


if __name__ == "__main__":
    main()
