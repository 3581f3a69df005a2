"""Labeling: `plstore.label` into a store beside the bare forward pass of the same network.

    python -m benchmarks.labeling [--quick] [--json FILE] [--folder DIR] [--model NAME]
                                  [--images N] [--rounds N] [--threads N]

JPEGs of 128 to 160 pixels a side, smooth patterns, in a store; two teachers of one architecture
with weights and normalisations of their own, that see 128 pixels. The bare forward pass has
normalised float32 tensors in memory, channels last, in batches of the same size, on the same
threads, and keeps nothing: once as it comes (`forward`), once with freed memory kept, as
plstore keeps it while it labels (`forward-memory-kept`). `plstore.label` opens the model,
reads, checks and decodes the JPEGs, looks, codes and commits. Labels must be the softmax of the
bare pass, and those of two teachers in one pass the same files as in two. Contenders take
turns; ratios are within a round, of wall and CPU time of the process. On a machine that others
share, trust the CPU time; with several threads torch's idle ones spin, which counts as well, so
the budget is of one thread.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.record import Measurement, publish
from plstore.machine import freed_memory_kept

if TYPE_CHECKING:
    import torch

    from plstore.loaders import ImageSet
    from plstore.store import Store
    from trainers.labeling.label import Labeling
    from trainers.models.model import Bundle

NUM_CLASSES: Final = 1000
SIZE: Final = 128
BATCH: Final = 64
TEACHERS: Final = ("one", "two")
_SIDES: Final = (128, 160)
_WAVES: Final = 12
_QUALITY: Final = 90
_TOLERANCE: Final = 1e-5
_RATIOS: Final = (
    ("plstore", "forward"),
    ("plstore", "forward-memory-kept"),
    ("plstore-one-pass", "plstore-two-passes"),
)
_MEANS: Final = {"one": [0.485, 0.456, 0.406], "two": [0.5, 0.5, 0.5]}


def jpegs(number: int) -> Iterator[bytes]:
    """Yield JPEGs of sums of waves, each another one."""
    for seed in range(number):
        random = np.random.default_rng(seed)
        height, width = random.integers(*_SIDES, 2, endpoint=True)
        y, x = np.mgrid[:height, :width]
        pixels = np.full((height, width, 3), 128.0)
        for _ in range(_WAVES):
            down, right = random.normal(0, 0.25, 2)
            wave = np.sin(down * y + right * x + random.uniform(0, 2 * np.pi))
            pixels += 30 * wave[..., None] * random.uniform(-1, 1, 3)
        file = io.BytesIO()
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(file, "JPEG", quality=_QUALITY)
        yield file.getvalue()


def make_store(folder: Path, model: str, num_images: int) -> "Store":
    """Return a store with images and two teachers."""
    import torch

    import plstore
    from plstore.images import ImageRecord, import_images
    from trainers.models.bringing import bring_teacher
    from trainers.models.model import build_model, image_format, save_bundle
    from trainers.sections import Model

    store = plstore.create(folder / "store")
    classes = [f"class-{n:03d}" for n in range(NUM_CLASSES)]
    records = [
        ImageRecord(key=f"{n:06d}.jpg", split="unlabeled", data=data)
        for n, data in enumerate(jpegs(num_images))
    ]
    import_images(store, records, dataset="waves", class_names=classes)
    for seed, name in enumerate(TEACHERS):
        torch.manual_seed(seed)
        settings = Model(
            architecture=model, resolution=SIZE, stochastic_depth=0, mean=_MEANS[name]
        )
        network = build_model(settings, model, NUM_CLASSES)
        save_bundle(folder / name, network, image_format(settings, network), classes)
        bring_teacher(store, name, str(folder / name), device="cpu")
    return store


@dataclass
class Bench:
    """What contenders work on.

    Attributes:
        store: With images and teachers.
        bundles: Of the teachers, by name.
        ids: int64 [images].
        tensors: Of teacher "one", normalised, a tensor a batch.
        threads: Of torch.
    """

    store: "Store"
    bundles: "dict[str, Bundle]"
    ids: npt.NDArray[np.int64]
    tensors: "list[torch.Tensor]"
    threads: int

    def __post_init__(self) -> None:
        """Label into a fresh iteration each time."""
        self._iterations = count(1)

    def labeling(self, name: str, iteration: int) -> "Labeling":
        """Return how a teacher labels."""
        from trainers.labeling.label import Labeling

        return Labeling(
            teacher_id=name,
            iteration=iteration,
            splits=("unlabeled",),
            device="cpu",
            batch=BATCH,
        )

    def forward(self) -> "list[torch.Tensor]":
        """Look at the tensors in memory; return logits."""
        import torch

        with torch.inference_mode():
            return [self.bundles["one"].network(images) for images in self.tensors]

    def forward_kept(self) -> None:
        """Look at the tensors, with freed memory kept."""
        with freed_memory_kept():
            self.forward()

    def label(self, *passes: tuple[str, ...]) -> int:
        """Label by each pass's teachers; return the iteration of the labels."""
        from trainers.labeling.label import label_by_all

        iteration = next(self._iterations)
        for names in passes:
            label_by_all(self.store, [self.labeling(name, iteration) for name in names])
        return iteration


def open_bench(folder: Path, model: str, num_images: int, threads: int) -> Bench:
    import torch

    from plstore.loaders import clean_batches
    from trainers.inference.portions import ids_of_split, read_images
    from trainers.models.model import load_bundle

    torch.set_num_threads(threads)
    store = make_store(folder, model, num_images)
    bundles = {name: load_bundle(folder / name) for name in TEACHERS}
    version, format_ = store.table("images").version(), bundles["one"].format
    ids = ids_of_split(store, "unlabeled", version)
    tensors = [
        format_.normalise(batch.images)
        for _, images in read_images(store, ids, version)
        for batch in clean_batches(images, format_, batch_size=BATCH)
    ]
    return Bench(store, bundles, ids, tensors, threads)


def check(bench: Bench) -> None:
    """Stop unless labels are the bare pass's, and those of one pass those of two."""
    import torch

    together, apart = bench.label(TEACHERS), bench.label(*((name,) for name in TEACHERS))
    table = bench.store.table("soft_labels")

    def files(name: str, iteration: int) -> list[str]:
        partition = bench.labeling(name, iteration).label_set("unlabeled").partition
        return [shard.path for shard in table.shards(partition=partition)]

    for name in TEACHERS:
        # A file's name ends with the hash of its bytes.
        one, two = (
            [path.rpartition("-")[2] for path in files(name, iteration)]
            for iteration in (together, apart)
        )
        if one != two or not one:
            raise SystemExit(f"teacher {name} labels otherwise in company: {one}, {two}")
    probs = torch.softmax(torch.cat(bench.forward()), dim=1)
    rows = table.dataset_of(
        table.shards(partition=bench.labeling("one", apart).label_set("unlabeled").partition)
    ).to_table(columns=["sample_id", "class_id", "confidence"])
    rows = rows.sort_by("sample_id")
    wanted = probs[torch.arange(len(probs)), torch.tensor(rows["class_id"].to_pylist())]
    worst = float((wanted - probs.max(dim=1).values).abs().max())
    worst = max(worst, float(np.abs(rows["confidence"].to_numpy() - wanted.numpy()).max()))
    if not np.array_equal(rows["sample_id"].to_numpy(), bench.ids) or worst > _TOLERANCE:
        raise SystemExit(f"labels are not those of the bare forward pass: {worst} off")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds of wall and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(bench: Bench, model: str, rounds: int) -> Iterator[Measurement]:
    """Yield images a second of each contender, and ratios within rounds."""
    work: dict[str, Callable[[], object]] = {
        "forward": bench.forward,
        "forward-memory-kept": bench.forward_kept,
        "plstore": lambda: bench.label(("one",)),
        "plstore-one-pass": lambda: bench.label(TEACHERS),
        "plstore-two-passes": lambda: bench.label(*((name,) for name in TEACHERS)),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, do in work.items():
            found[name].append(timed(do))
    case, images = f"{model}-{SIZE}px-{bench.threads}-threads", len(bench.ids)
    for name, times in found.items():
        for kind, seconds in zip(("", "cpu_"), zip(*times, strict=True), strict=True):
            rate = images / statistics.median(seconds)
            yield Measurement(
                case=case,
                contender=name,
                metric=f"images_per_{kind}second",
                value=rate,
                unit="images/s",
            )
    for name, base in _RATIOS:
        pairs = list(zip(found[base], found[name], strict=True))
        for place, kind in enumerate(("wall", "cpu")):
            ratio = statistics.median(a[place] / b[place] for a, b in pairs)
            metric = f"rate_to_{base}_by_{kind}"
            yield Measurement(case=case, contender=name, metric=metric, value=ratio, unit="")


def measure_budget(bench: Bench, model: str) -> Iterator[Measurement]:
    """Yield the CPU time an image of each part, on one thread, and how long models wait."""
    import torch

    from plstore.codec import Codec
    from plstore.labels import LabelBatch, LabelSet, commit_labels, write_labels
    from plstore.loaders import clean_stream
    from trainers.inference.portions import Portions, read_images

    store, bundle = bench.store, bench.bundles["one"]
    version, case = store.table("images").version(), f"{model}-{SIZE}px-budget"
    probs = torch.softmax(torch.cat(bench.forward()), dim=1).numpy()
    portions = [images for _, images in read_images(store, bench.ids, version)]
    label_set = LabelSet(iteration=0, teacher_id="budget", split="unlabeled")
    batches: list[torch.Tensor] = []

    def decode() -> None:
        stream = clean_stream(Portions(iter(portions)).left(), bundle.format, batch_size=BATCH)
        batches.extend(batch.images for batch in stream)

    def write() -> None:
        labels = [LabelBatch(sample_ids=bench.ids, probabilities=probs)]
        shards = write_labels(store, label_set, labels, codec=Codec(), identity="budget")
        commit_labels(store, shards, lineage={}, transaction="budget")

    parts: dict[str, Callable[[], object]] = {
        "read": lambda: list(read_images(store, bench.ids, version)),
        "decode": decode,
        "normalise": lambda: [bundle.format.normalise(images) for images in batches],
        "forward": bench.forward_kept,
        "write": write,
    }
    torch.set_num_threads(1)
    try:
        with freed_memory_kept():
            costs = {name: timed(do)[1] / len(bench.ids) for name, do in parts.items()}
        for name, cost in costs.items():
            yield Measurement(
                case=case,
                contender="plstore",
                metric=f"{name}_cpu_ms_per_image",
                value=1e3 * cost,
                unit="ms",
            )
    finally:
        torch.set_num_threads(bench.threads)
    yield replace(_wait(bench, portions), case=case)


def _wait(bench: Bench, portions: "list[ImageSet]") -> Measurement:
    """Return the share of labeling in which the model waits for its next batch."""
    import torch

    from plstore.loaders import clean_stream
    from trainers.inference.portions import Portions

    bundle = bench.bundles["one"]
    start = begun = time.perf_counter()
    waited = 0.0
    stream = clean_stream(Portions(iter(portions)).left(), bundle.format, batch_size=BATCH)
    for number, batch in enumerate(stream):
        if number:  # the first has nothing to hide behind
            waited += time.perf_counter() - begun
        with torch.inference_mode():
            bundle.logits(batch.images)
        begun = time.perf_counter()
    share = waited / (time.perf_counter() - start)
    return Measurement(
        case="", contender="plstore", metric="input_wait_share", value=share, unit=""
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--folder", type=Path, help="for its files; a temporary one if not given"
    )
    parser.add_argument("--model", help="timm name; resnet18, quickly test_resnet")
    parser.add_argument("--images", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    argv = sys.argv[1:]
    given = parser.parse_args(argv)
    quick = given.quick
    model = given.model or ("test_resnet" if quick else "resnet18")
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="labeling-") as folder:
        images = given.images or (384 if quick else 1024)
        bench = open_bench(Path(folder), model, images, given.threads)
        check(bench)
        found = list(measure(bench, model, given.rounds or (1 if quick else 3)))
        found += measure_budget(bench, model)
    publish(
        found, command=" ".join(["python -m benchmarks.labeling", *argv]), json_path=given.json
    )


if __name__ == "__main__":
    main()
