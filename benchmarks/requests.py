"""What every verb asks of a bucket: requests by kind, and bytes, counted by a server between.

    python -m benchmarks.requests [--quick] [--json FILE]

Images of 12 pixels, files of 128 images and labels where a real store has thousands, so that a
small pool has several; 8 files of images, then 16: the difference is what a file costs. An
import commits what it wrote in half a minute, here all; `import-file-by-file` commits each
file, so that both together tell what a commit costs. A verb runs in a process of its own with
an empty cache, as on a worker that was just started, and what it did is checked.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import numpy as np

from benchmarks.record import Measurement, publish

BUCKET: Final = "counted"
FILE_ROWS: Final = 128
_CLASSES: Final = ("cat", "dog", "owl")
_KINDS: Final = ("GET", "HEAD", "LIST", "PUT", "PART", "MULTIPART", "DELETE", "POST")


def small_files() -> None:
    """Make files of few rows, in this process."""
    import plstore.images.importing
    import plstore.labels.writing
    import plstore.views.writing
    import trainers.inference.missing

    plstore.images.importing._SHARD_ROWS = FILE_ROWS  # noqa: SLF001
    plstore.views.writing._FILE_ROWS = FILE_ROWS  # noqa: SLF001
    for module in (plstore.labels.writing, trainers.inference.missing):
        module.SHARD_IDS = FILE_ROWS  # type: ignore[attr-defined]


def records(count: int) -> Iterator[Any]:
    """Yield images: a tenth labeled, the others not."""
    import io

    from PIL import Image

    from plstore.images import ImageRecord

    random = np.random.default_rng(0)
    for number in range(count):
        stream = io.BytesIO()
        pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, format="PNG")
        is_labeled = number < count // 10
        yield ImageRecord(
            key=f"{number:06d}.png",
            split="labeled" if is_labeled else "unlabeled",
            data=stream.getvalue(),
            label=_CLASSES[number % 3] if is_labeled else None,
        )


def _import(url: str, count: int) -> None:
    import plstore
    from plstore.images import import_images

    store = plstore.create(url)
    found = import_images(store, records(count), dataset="pool", class_names=_CLASSES)
    _check("imported", found.verdicts["accepted"], count)


def _import_file_by_file(url: str, count: int) -> None:
    import plstore.images.committing

    plstore.images.committing.COMMIT_FILES = 1
    _import(f"{url}-by-file", count)


def _import_again(url: str, count: int) -> None:
    import plstore
    from plstore.images import import_images

    found = import_images(
        plstore.open(url), records(count), dataset="pool", class_names=_CLASSES
    )
    _check("already there", found.already_there, count)


def _bring(url: str, _: int) -> None:
    import plstore
    from trainers.models.bringing import bring_teacher
    from trainers.models.model import build_model, image_format, save_bundle
    from trainers.sections import Model

    settings = Model(architecture="test_resnet", resolution=32, stochastic_depth=0)
    network = build_model(settings, "test_resnet", 3)
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(Path(folder), network, image_format(settings, network), _CLASSES)
        bring_teacher(plstore.open(url), "mine", folder, device="cpu")


def _label(url: str, count: int) -> None:
    import plstore
    from trainers.labeling.label import Labeling, label

    labeling = Labeling(teacher_id="mine", splits=["unlabeled"], device="cpu")
    found = label(plstore.open(url), labeling)
    _check("labeled", found["unlabeled"], count - count // 10)


def _select(mode: str) -> Callable[[str, int], None]:
    def select(url: str, count: int) -> None:
        import plstore

        balance = plstore.Balance(min_confidence=0.0, policy="none")
        selection = plstore.Selection(
            view=mode,
            teachers=["mine"],
            balance=balance,
            mode=mode,  # type: ignore[arg-type]  # one of the two
        )
        view = plstore.select(plstore.open(url), selection)
        _check("images of the view", view.record.num_images, count)

    return select


def _load(mode: str) -> Callable[[str, int], None]:
    def load(url: str, count: int) -> None:
        import plstore
        from plstore.loaders import ImageFormat, Noise, RandAugment, load

        loader = load(
            plstore.open_view(plstore.open(url), mode),
            labeled_batch=8,
            pseudo_batch=32,
            image_format=ImageFormat(size=16),
            noise=Noise(augment=RandAugment(n=0)),
            seed=0,
        )
        found = loader.verify()
        _check("images of an epoch", (found.ok, found.images), (True, count))

    return load


def _sql(url: str, count: int) -> None:
    import plstore
    from plstore.query import run_sql

    sql = "select count(*) as n, avg(confidence) as c from soft_labels"
    (row,) = run_sql(plstore.open(url), sql).to_pylist()
    _check("labels in SQL", row["n"], count - count // 10)


def _verify(url: str, _: int) -> None:
    import plstore
    from plstore.upkeep import verify

    _check("wrong", verify(plstore.open(url)), [])


def _collect(url: str, _: int) -> None:
    import plstore
    from plstore.upkeep import collect

    _check("collected", collect(plstore.open(url), grace=timedelta(days=1)), [])


_VERBS: Final[dict[str, Callable[[str, int], None]]] = {
    "import": _import,
    "import-file-by-file": _import_file_by_file,
    "import-again": _import_again,
    "bring-teacher": _bring,
    "label": _label,
    "select-reference": _select("reference"),
    "select-packed": _select("packed"),
    "epoch-reference": _load("reference"),
    "epoch-packed": _load("packed"),
    "sql": _sql,
    "verify": _verify,
    "collect": _collect,
}


def _check(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"{what}: found {found}, wanted {wanted}")


@contextmanager
def served() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the URL of the counting server, and the environment of who is to ask it."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    target, proxy = (f"http://127.0.0.1:{port}" for port in ports)
    commands = (
        ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports[0])],
        ["-m", "benchmarks.proxy", "--port", str(ports[1]), "--target", target],
    )
    null = subprocess.DEVNULL
    started = [
        subprocess.Popen([sys.executable, *words], stdout=null, stderr=null)
        for words in commands
    ]
    try:
        for port in ports:
            _wait_for(port)
        with urlopen(Request(f"{target}/{BUCKET}", method="PUT")) as answer:  # noqa: S310
            answer.read()
        aws = {
            "ENDPOINT_URL": proxy,
            "ACCESS_KEY_ID": "test",
            "SECRET_ACCESS_KEY": "test",
            "REGION": "us-east-1",
            "DEFAULT_REGION": "us-east-1",
            "ALLOW_HTTP": "true",
        }
        yield proxy, {**os.environ, **{f"AWS_{name}": value for name, value in aws.items()}}
    finally:
        for process in started:
            process.terminate()
            process.wait()


def _wait_for(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("the emulator did not start within 30 seconds")


def _counted(proxy: str) -> dict[str, Any]:
    with urlopen(f"{proxy}/_control") as answer:  # noqa: S310  our own
        found: dict[str, Any] = json.loads(answer.read())
    return found


def measure(num_files: int, verbs: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return requests by kind, and bytes, of every verb on a pool of so many files."""
    found = {}
    with served() as (proxy, environment):
        for verb in verbs:
            cache = tempfile.mkdtemp()
            words = ["--verb", verb, "--files", str(num_files)]
            try:
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.requests", *words],
                    check=True,
                    env={**environment, "PLSTORE_CACHE": cache},
                )
            finally:
                shutil.rmtree(cache)
            counted = _counted(proxy)
            found[verb] = {kind: counted["requests"].get(kind, 0) for kind in _KINDS}
            found[verb] |= {name: counted["bytes"].get(name, 0) for name in _BYTES}
            print(f"{num_files} files, {verb}: {counted}", file=sys.stderr, flush=True)
    return found


_BYTES: Final = ("sent", "received")


def measurements(found: dict[int, dict[str, dict[str, float]]]) -> Iterator[Measurement]:
    """Yield what was counted of each size, and what a file more costs."""
    for num_files, verbs in found.items():
        for verb, values in verbs.items():
            case = f"{verb}-{num_files}-files"
            yield from _rows(case, values)
    sizes = sorted(found)
    if len(sizes) > 1:
        low, high = sizes[0], sizes[-1]
        for verb, values in found[high].items():
            each = {k: (values[k] - found[low][verb][k]) / (high - low) for k in values}
            yield from _rows(f"{verb}-each-file", each)


def _rows(case: str, values: dict[str, float]) -> Iterator[Measurement]:
    for name, value in values.items():
        is_bytes = name in _BYTES
        if value or name in {"GET", "PUT"}:
            yield Measurement(
                case=case,
                contender="plstore",
                metric=name,
                value=round(value, 3),
                unit="bytes" if is_bytes else "requests",
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, count, publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="4 files, import, label and SQL")
    parser.add_argument("--json", type=Path, help="where the counts go")
    parser.add_argument("--verb", help=argparse.SUPPRESS)
    parser.add_argument("--files", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.verb is not None:
        small_files()
        url = f"s3://{BUCKET}/store"
        _VERBS[options.verb](url, options.files * FILE_ROWS)
        return
    verbs = ("import", "bring-teacher", "label", "sql") if options.quick else tuple(_VERBS)
    found = {size: measure(size, verbs) for size in ((4,) if options.quick else (8, 16))}
    command = "python -m benchmarks.requests" + (" --quick" if options.quick else "")
    publish(list(measurements(found)), command=command, json_path=options.json)


if __name__ == "__main__":
    main()
