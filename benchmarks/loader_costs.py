"""What else `loaders` asks: alignment, the cost of a plan, waiting for input, small images."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.record import Measurement

if TYPE_CHECKING:
    from plstore.loaders import Batch, Loader
    from plstore.loaders.work import BackendName
    from trainers.recipe import Recipe

_SMALL_STEPS = 60
_BACKENDS: "tuple[BackendName, ...]" = ("threads", "dali", "torch")


def measure_alignment(folder: Path, *, samples: int) -> Iterator[Measurement]:
    """Yield the errors among samples of every backend; stop if there is one.

    Raises:
        SystemExit: If image, label and id of a sample do not belong together.
    """
    shares = {"threads": 0.8, "dali": 0.2}
    for backend, share in shares.items():
        loader = _loader(folder, backend)
        found = loader.verify(math.ceil(samples * share / loader.plan.batch_size))
        if found.errors:
            raise SystemExit(f"{backend}: {len(found.errors)} wrong: {found.errors[:3]}")
        yield _value("alignment", backend, "samples", found.samples, "")
        yield _value("alignment", backend, "errors", len(found.errors), "")


def measure_costs(folder: Path, *, quick: bool) -> Iterator[Measurement]:
    """Yield what a plan costs, how long training waits, and the share of small-image noise."""
    yield from _plan_cost(folder, steps=5 if quick else 100)
    yield from _wait_share(folder, ("threads",) if quick else _BACKENDS, 1 if quick else 12)
    yield from _small_images(folder, quick=quick)


def _loader(folder: Path, backend: str, **changes: Any) -> "Loader":  # noqa: ANN401  arguments of load
    import plstore
    from plstore.loaders import ImageFormat, Noise, load
    from plstore.views import open_view

    values: dict[str, Any] = {
        "labeled_batch": 16,
        "pseudo_batch": 48,
        "image_format": ImageFormat(size=224),
        "noise": Noise(),
        "seed": 0,
        "num_threads": 2,
    }
    view = open_view(plstore.open(folder / "store"), "reference")
    return load(view, backend=backend, **{**values, **changes})  # type: ignore[arg-type]  # a name


def _plan_cost(folder: Path, *, steps: int) -> Iterator[Measurement]:
    loader = _loader(folder, "threads")
    batch = loader.plan.batch_size
    samples, _ = loader.samples(0)
    parts: dict[str, Callable[[int], object]] = {
        "rows": loader.plan.rows,
        "noise": lambda step: loader.plan.noise(step, samples),
        "read": lambda step: loader.source.fetch(loader.plan.rows(step)),
        "targets": lambda _: loader.source.images.targets(samples.rows),  # type: ignore[attr-defined]  # of this source
    }
    for name, part in parts.items():
        part(0)
        start = time.process_time()
        for step in range(steps):
            part(step)
        cost = (time.process_time() - start) / steps / batch
        yield _value("plan", "plstore", f"{name}_us_per_image", 1e6 * cost, "us")


def _wait_share(folder: Path, backends: Sequence[str], steps: int) -> Iterator[Measurement]:
    """Train resnet18 at 128 pixels and see how long each step waits for its batch."""
    import timm
    import torch

    from plstore.loaders import ImageFormat

    torch.set_num_threads(2)
    case, format_ = "wait-resnet18-128px", ImageFormat(size=128)
    for backend in backends:
        network = timm.create_model("resnet18", num_classes=1000)
        network = network.to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

        def train(
            batch: "Batch",
            network: torch.nn.Module = network,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> None:
            logits = network(format_.normalise(batch.images))
            loss = torch.nn.functional.cross_entropy(logits, batch.targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's is
            optimizer.step()

        batches = iter(_loader(folder, backend, image_format=format_))
        batch = next(batches)
        train(batch)
        waited, begun = 0.0, time.perf_counter()
        for _ in range(steps):
            start = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - start
            train(batch)
        fed = time.perf_counter() - begun
        del batches  # its threads end
        begun = time.perf_counter()
        for _ in range(steps):
            train(batch)
        alone = time.perf_counter() - begun
        yield _value(case, backend, "input_wait_share", waited / fed, "")
        yield _value(case, backend, "step_ms", 1e3 * fed / steps, "ms")
        yield _value(case, backend, "step_without_input_ms", 1e3 * alone / steps, "ms")


def _small_images(folder: Path, *, quick: bool) -> Iterator[Measurement]:
    """Yield the CPU time of input and of training of the demo's recipe, by step."""
    import torch

    from plstore.loaders import load
    from trainers.models.model import build_model, image_format
    from trainers.recipe import load_recipe
    from trainers.training.losses import combined_cross_entropy

    torch.set_num_threads(2)
    steps = 5 if quick else _SMALL_STEPS
    recipe = load_recipe("fashion_mnist", ["data.limit_unlabeled=500"] if quick else ())
    network = build_model(recipe.model, recipe.model.architecture, 10).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    format_ = image_format(recipe.model, network)
    view = _small_view(folder / ("small-quick" if quick else "small"), recipe)
    labeled, pseudo = recipe.train.labeled_batch, recipe.train.pseudo_batch
    images = torch.zeros(labeled + pseudo, 1, 28, 28)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.full((labeled + pseudo, 10), 0.1)

    def train() -> None:
        loss = combined_cross_entropy(
            network(images), targets, num_labeled=labeled, label_smoothing=0.0
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's is
        optimizer.step()

    train()
    start = time.process_time()
    for _ in range(steps):
        train()
    training = (time.process_time() - start) / steps
    yield _value("small-28px", "training", "cpu_ms_per_step", 1e3 * training, "ms")
    for backend in _BACKENDS:
        loader = load(
            view,
            labeled_batch=labeled,
            pseudo_batch=pseudo,
            image_format=format_,
            noise=recipe.noise.as_noise(),
            seed=0,
            backend=backend,
            num_threads=2,
        )
        batches = iter(loader)
        for _ in islice(batches, 2 if quick else 60):
            pass
        start = time.process_time()
        for _ in islice(batches, steps):
            pass
        cost = (time.process_time() - start) / steps
        yield _value("small-28px", backend, "cpu_ms_per_step", 1e3 * cost, "ms")
        yield _value("small-28px", backend, "share_of_training_step", cost / training, "")


def _small_view(folder: Path, recipe: "Recipe") -> Any:  # noqa: ANN401  a View
    """Return a view of the bundled sample, labeled by chance: its cost is what counts."""
    import numpy as np

    import plstore
    from plstore.codec import Codec
    from plstore.images import import_images
    from plstore.labels import LabelBatch, LabelSet, commit_labels, write_labels
    from plstore.selection import Balance, Selection, select
    from plstore.views import open_view
    from trainers.sources import open_source

    if (folder / "store").is_dir():
        return open_view(plstore.open(folder / "store"), "small")
    source = open_source(recipe.data, seed=0)
    store = plstore.create(folder / "store")
    import_images(
        store, source.records(), dataset=source.dataset, class_names=source.class_names
    )
    rows = store.table("images").read(columns=["sample_id", "split"]).to_pylist()
    ids = np.array([r["sample_id"] for r in rows if r["split"] == "unlabeled"], np.int64)
    probs = np.random.default_rng(0).dirichlet([0.1] * 10, len(ids)).astype(np.float32)
    label_set = LabelSet(teacher_id="chance", iteration=1, split="unlabeled")
    batch = LabelBatch(sample_ids=np.sort(ids), probabilities=probs)
    shards = write_labels(store, label_set, [batch], codec=Codec(), identity="labels")
    commit_labels(store, shards, lineage={"step": "label"}, transaction="labels")
    balance = Balance(min_confidence=0.3, images_per_class=1200)
    return select(store, Selection(view="small", teachers=["chance@1"], balance=balance))


def _value(case: str, contender: str, metric: str, value: float, unit: str) -> Measurement:
    return Measurement(
        case=case, contender=contender, metric=metric, value=round(value, 4), unit=unit
    )
