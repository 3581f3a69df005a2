"""Loaders: images a CPU second beside DataLoader + PIL and beside bare decoding.

    python -m benchmarks.loaders [--quick] [--json FILE] [--folder DIR] [--figure FILE]
                                 [--contenders pil,threads,…]
                                 [--cases plain,randaugment,phone]

The same JPEGs of ImageNet's size with soft labels of 1,000 classes, batches of 64 at 224
pixels, two threads or worker processes. The case `phone` has photos of 12 megapixels instead
(see `benchmarks.loader_photos`), in batches of 8, from the originals and from a view of images
shrunk to 512 pixels. Each contender runs in a process of its own, warmed up, one after another
in every round; ratios are taken within a round, and their median is given, for `phone` also
that of the fastest rounds. CPU seconds are those of the process and of all it started; peak
memory is the sum over them. Before anything is timed, the alignment of image, label and id is
checked. A quick run has several contenders in one process, whose memory is that of all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.record import Measurement, publish
from benchmarks.watch import peak_kilobytes

_CASES: Final = ("plain", "randaugment", "phone")
_WARM_UP_BATCHES: Final = 12
_NUM_PHOTOS: Final = 40
_QUICK_NAMES: Final = ("decode-ceiling", "pil", "dali", "threads")
_QUICK_PHOTOS: Final = ("pil", "threads", "threads-shrunk")
_QUICK_SIDES: Final = (2016, 1512)
_VIEW_ONLY: Final = frozenset(
    {"threads-windowed", "threads-plain-files", "threads-ratio-1", "threads-ratio-14"}
)  # what the source costs does not depend on the noise
_NOT_MEASURED: Final = {
    "mosaicml-streaming": "pins numpy < 2.2 and breaks datasets 5 in the same environment",
    "spdl": "its wheel needs the system's FFmpeg libraries",
    "ffcv": "no wheel; builds against OpenCV's and libturbojpeg's headers",
}


_Job = tuple[str, str]
"""A contender and a case."""


def run_child(folder: Path, jobs: Sequence[_Job], *, seconds: float, warm_up: int) -> None:
    """Measure contenders, one after the other; print a JSON line for each."""
    import torch

    torch.set_num_threads(2)
    for job in jobs:
        print(json.dumps(_measured(folder, job, seconds, warm_up)))
    sys.stdout.flush()
    os._exit(0)  # worker processes and pools of some contenders do not end


def _measured(folder: Path, job: _Job, seconds: float, warm_up: int) -> dict[str, float]:
    from benchmarks.loader_contenders import CONTENDERS

    name, case = job
    where = folder / "phone" if case == "phone" else folder
    batches = CONTENDERS[name](where, case)  # type: ignore[arg-type]  # one of the cases
    for _ in range(warm_up):
        next(batches)
    images, cpu, start = 0, _family()[0], time.perf_counter()
    while time.perf_counter() - start < seconds:
        images += len(next(batches)[0])
    wall = time.perf_counter() - start
    now, peak_kb = _family()
    shared_kb = sum(_proportional_kilobytes(pid) for pid in _pids())
    sums = {"images": images, "cpu": now - cpu, "wall": wall}
    return {**sums, "peak_kb": peak_kb, "pss_kb": shared_kb}


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
    folder: Path, groups: Sequence[Sequence[_Job]], *, rounds: int, seconds: float, warm_up: int
) -> Iterator[Measurement]:
    """Yield the figures of all contenders, from interleaved rounds; a group has one process."""
    found: dict[_Job, list[dict[str, Any]]] = {}
    for number in range(rounds):
        for jobs in groups:
            results = _run(folder, jobs, seconds, warm_up)
            for job, result in zip(jobs, results, strict=True):
                found.setdefault(job, []).append(result)
                speed = result["images"] / result["cpu"]
                words = f"round {number} {job[1]} {job[0]}: {speed:.0f}"
                print(words, file=sys.stderr, flush=True)
    yield from _figures(found)


def _figures(found: Mapping[_Job, Sequence[dict[str, Any]]]) -> Iterator[Measurement]:
    for (name, case), results in found.items():
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
            theirs = found.get((other, case))
            if theirs is not None:
                ratios = [
                    speed / (r["images"] / r["cpu"])
                    for speed, r in zip(speeds, theirs, strict=True)
                ]
                yield _value(case, name, metric, median(ratios), "")
    yield from _best(found)


def _best(found: Mapping[_Job, Sequence[dict[str, Any]]]) -> Iterator[Measurement]:
    """Yield the fastest round of each that looks at large photos, by either clock."""
    photos = {name: results for (name, case), results in found.items() if case == "phone"}
    for clock, metric in (("wall", "images_per_s"), ("cpu", "images_per_cpu_s")):
        best = {name: max(r["images"] / r[clock] for r in rs) for name, rs in photos.items()}
        for name, speed in best.items():
            yield _value("phone", name, f"best_{metric}", speed, "1/s")
            if "pil" in best:
                ratio = speed / best["pil"]
                yield _value("phone", name, f"best_{metric}_to_pil", ratio, "")


def _run(
    folder: Path, jobs: Sequence[_Job], seconds: float, warm_up: int
) -> list[dict[str, Any]]:
    words = ",".join(f"{name}:{case}" for name, case in jobs)
    command = [sys.executable, "-m", "benchmarks.loaders", "--child", words]
    command += ["--folder", str(folder), "--seconds", str(seconds), "--warm-up", str(warm_up)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"images"')]
    if len(lines) != len(jobs):
        raise SystemExit(f"{words} gave {len(lines)} results:\n{done.stderr[-3000:]}")
    return [json.loads(line) for line in lines]


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
    parser.add_argument("--photos", type=int, default=_NUM_PHOTOS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--warm-up", type=int, default=_WARM_UP_BATCHES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        jobs = [job.split(":") for job in arguments.child.split(",")]
        run_child(
            arguments.folder,
            [(name, case) for name, case in jobs],
            seconds=arguments.seconds,
            warm_up=arguments.warm_up,
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        measurements = list(_measure_all(folder, arguments))
    command = "python -m benchmarks.loaders" + (" --quick" if arguments.quick else "")
    if arguments.cases != ",".join(_CASES):
        command += f" --cases {arguments.cases}"
    publish(measurements, command=command, json_path=arguments.json)
    for name, reason in _NOT_MEASURED.items():
        print(f"{name}: not measured: {reason}")
    if arguments.figure:
        from benchmarks.loader_figure import draw

        draw(measurements, arguments.figure)


def _measure_all(folder: Path, arguments: argparse.Namespace) -> Iterator[Measurement]:
    from benchmarks.loader_costs import measure_alignment, measure_costs
    from benchmarks.loader_data import make_data

    quick, cases = arguments.quick, arguments.cases.split(",")
    if unknown := sorted(set(cases) - set(_CASES)):
        raise SystemExit(f"no case {unknown[0]!r}; wanted {', '.join(_CASES)}")
    names = _names(arguments)
    if "phone" in cases:
        yield from _photos(folder / "phone", arguments)
    if set(cases) != {"phone"}:
        images, peers = 96 if quick else arguments.images, not quick or arguments.contenders
        make_data(folder, images, peers=bool(peers))
        yield from measure_alignment(folder, samples=256 if quick else 100_000)
    groups = _quick_groups(names, cases) if quick else [[j] for j in _jobs(names, cases)]
    yield from measure(
        folder,
        groups,
        rounds=1 if quick else arguments.rounds,
        seconds=0.7 if quick else arguments.seconds,
        warm_up=_WARM_UP_BATCHES // 4 if quick else _WARM_UP_BATCHES,
    )
    if set(cases) != {"phone"}:
        yield from measure_costs(folder, quick=quick)


def _photos(folder: Path, arguments: argparse.Namespace) -> Iterator[Measurement]:
    from benchmarks.loader_photos import SIDES, check_photos, make_photos

    if arguments.quick:
        make_photos(folder, 4, _QUICK_SIDES)
    else:
        make_photos(folder, arguments.photos, SIDES)
    yield from check_photos(folder, steps=1 if arguments.quick else 10)


def _names(arguments: argparse.Namespace) -> list[str]:
    """Return the contenders that were asked for and are installed."""
    from benchmarks.loader_contenders import CONTENDERS, installed

    names = list(CONTENDERS)
    if arguments.contenders:
        names = arguments.contenders.split(",")
    elif arguments.quick:
        names = list(dict.fromkeys((*_QUICK_NAMES, *_QUICK_PHOTOS)))
    if unknown := sorted(set(names) - set(CONTENDERS)):
        raise SystemExit(f"no contender {unknown[0]!r}; wanted {', '.join(CONTENDERS)}")
    for name in names:
        if not installed(name):
            print(f"{name}: not installed, left out", file=sys.stderr)
    return [name for name in names if installed(name)]


def _jobs(names: Sequence[str], cases: Sequence[str]) -> list[_Job]:
    """Return which contender looks at which case, case by case."""
    from benchmarks.loader_contenders import PHOTOS, PHOTOS_ALONE

    def takes_part(name: str, case: str) -> bool:
        if case == "phone":
            return name in PHOTOS
        return name not in PHOTOS_ALONE and (case == "plain" or name not in _VIEW_ONLY)

    return [(name, case) for case in cases for name in names if takes_part(name, case)]


def _quick_groups(names: Sequence[str], cases: Sequence[str]) -> list[list[_Job]]:
    """Return the jobs of the first case and of `phone`, those of peers in one process."""
    wanted = [case for case in cases if case in {cases[0], "phone"}]
    groups: dict[bool, list[_Job]] = {}
    for name, case in _jobs(names, wanted):
        if case != "phone" or name in _QUICK_PHOTOS:
            groups.setdefault(name in {"pil", "decode-ceiling"}, []).append((name, case))
    return list(groups.values())


if __name__ == "__main__":
    main()
