"""Photos of all formats and sizes, the libraries that backends need, and loops of others."""

import io
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import plstore
from plstore.errors import MissingExtraError
from plstore.images import ImageRecord, import_images
from plstore.loaders import (
    Crop,
    ImageFormat,
    Loader,
    Noise,
    RandAugment,
    pick_backend,
)
from plstore.loaders.dali import build_pipeline
from plstore.loaders.work import BackendSpec
from plstore.views import View
from tests.conftest import CLASS_NAMES
from tests.loaders.conftest import (
    BACKENDS,
    RGB,
    loader_of,
    make_view,
    same,
    some,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> View:
    """A view of photos in three formats, colour and gray, of 28 to 800 pixels."""
    random = np.random.default_rng(0)
    names = ["astronaut", "chelsea", "coffee"]
    records = []
    for index in range(36):
        source = Image.fromarray(getattr(skimage.data, names[index % 3])()[:, :, :3])
        sides = (28, 45, 800, 333, 120, 64)
        size = (sides[index % 6], sides[(index + index // 6) % 6])
        image = source.resize(size).rotate(int(random.integers(4)) * 90, expand=True)
        if index % 4 == 0:
            image = image.convert("L")
        stream = io.BytesIO()
        kind = ("JPEG", "PNG", "WEBP")[index % 3]
        image.save(stream, kind, **({"lossless": True} if kind == "WEBP" else {"quality": 92}))
        labeled = index < 8
        records.append(
            ImageRecord(
                key=f"{index:02d}",
                split="labeled" if labeled else "unlabeled",
                data=stream.getvalue(),
                label=CLASS_NAMES[index % 3] if labeled else None,
            )
        )
    store = plstore.create(tmp_path_factory.mktemp("photos") / "store")
    import_images(store, records, dataset="photos", class_names=CLASS_NAMES)
    return make_view(store, quota=20)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("backend", ["dali", "threads"])
def test_backends_agree_on_photos_of_all_formats_and_sizes(
    photos: View, backend: str, channels: int
) -> None:
    format_ = ImageFormat(
        size=96, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels
    )
    still = Noise(crop=Crop(min_area=0.4), augment=RandAugment(n=0))
    values: dict[str, Any] = {"image_format": format_, "noise": still}
    reference = some(loader_of(photos, backend="torch", **values), 3)
    found = some(loader_of(photos, backend=backend, **values), 3)
    for a, b in zip(reference, found, strict=True):
        difference = (a.images.int() - b.images.int()).abs().float()
        assert torch.equal(a.sample_ids, b.sample_ids)
        assert b.images.shape == (32, channels, 96, 96)
        assert difference.mean() < (0.3 if backend == "threads" else 1.2)
        assert difference.amax(dim=(1, 2, 3)).median() <= (2 if backend == "threads" else 24)


def test_verify_holds_for_photos(photos: View) -> None:
    for backend in BACKENDS:
        found = loader_of(photos, backend=backend).verify(6)
        assert found.ok, found.errors


def test_bicubic_is_pillows(photos: View) -> None:
    format_ = ImageFormat(size=64, interpolation="bicubic")
    values: dict[str, Any] = {"image_format": format_, "noise": Noise(augment=RandAugment(n=0))}
    a = some(loader_of(photos, backend="torch", **values), 1)[0]
    b = some(loader_of(photos, backend="threads", **values), 1)[0]
    assert (a.images.int() - b.images.int()).abs().max() <= 2


def test_decoded_images_are_kept_only_where_they_fit(photos: View, view: View) -> None:
    def keeps(loader: Loader) -> bool:
        return loader.spec(loader.work, first_step=0).keep_decoded

    assert keeps(loader_of(view))
    assert not keeps(loader_of(photos, cache_bytes=1 << 20))
    with_cache = some(loader_of(photos), 2)
    without = some(loader_of(photos, cache_bytes=0), 2)
    assert all(same(a, b) for a, b in zip(with_cache, without, strict=True))


@pytest.mark.parametrize("dialect", ["noisystudent", "timm", "torchvision", "dali"])
def test_the_gpu_graph_of_every_dialect_is_legal(dialect: Any) -> None:  # noqa: ANN401
    def never(step: int) -> Any:  # noqa: ANN401
        raise AssertionError(f"step {step} was asked for")

    spec = BackendSpec(
        work=never,
        format=RGB,
        noise=Noise(augment=RandAugment(m=9, dialect=dialect)),
        max_batch=4,
        device="cuda:0",
        num_threads=1,
    )
    graph = build_pipeline(spec, device_id=None, on_gpu=True).serialize()

    assert b"mixed" in graph
    assert b"gpu" in graph


def test_auto_says_what_it_picked(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="plstore"):
        assert pick_backend("auto", "cpu") == "threads"
        assert pick_backend("auto", "cuda:0") == "dali"
    assert "the loader's backend is threads, on cpu" in caplog.text


def test_a_backend_that_is_not_installed_names_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from plstore.loaders import backends

    gone = replace(backends.BACKENDS["dali"], needs=("nvidia_dali_that_is_not_there",))
    monkeypatch.setitem(backends.BACKENDS, "dali", gone)
    with pytest.raises(MissingExtraError, match=r"pip install 'plstore\[dali\]'"):
        pick_backend("dali")
    assert pick_backend("auto", "cuda") == "threads"


def test_timm_trains_on_epochs(view: View) -> None:
    loader = loader_of(view, labeled_batch=4, pseudo_batch=4)
    epochs = loader.epochs()
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
    loss_fn = torch.nn.CrossEntropyLoss()
    steps = []
    for _ in range(3):  # as timm's train.py goes through its loader
        steps.append(0)
        for images, targets in epochs:
            loss = loss_fn(network(images), targets)
            loss.backward()
            steps[-1] += 1

    assert len(epochs) == 3
    assert steps == [3, 3, 3]
    assert loader.step == 9
    assert not epochs.mixup_enabled
    assert not hasattr(epochs.sampler, "set_epoch")


ACCELERATE = """
import os, sys
import torch
from accelerate import Accelerator
from plstore.loaders import ImageFormat, Noise, RandAugment, load
from plstore.views import open_view
import plstore

accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 3))
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
network, optimizer = accelerator.prepare(network, optimizer)
form = ImageFormat(size=16)
noise = Noise(augment=RandAugment(n=0))
view = open_view(plstore.open(sys.argv[1]), "reference")
loader = load(view, labeled_batch=4, pseudo_batch=12, image_format=form, noise=noise, seed=0)
ids = []
for batch in loader:
    logits = network(form.normalise(batch.images))
    accelerator.backward(torch.nn.functional.cross_entropy(logits, batch.targets))
    optimizer.step()
    optimizer.zero_grad()
    ids += batch.sample_ids.tolist()
    if batch.step == 3:
        break
weights = accelerator.unwrap_model(network)[1].weight.detach()
torch.save({"weights": weights, "ids": ids}, f"{sys.argv[2]}-{accelerator.process_index}.pt")
"""


@pytest.mark.nightly
def test_accelerate_trains_the_same_on_one_and_two_processes(
    view: View, tmp_path: Path, unused_port: Callable[[], int]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(ACCELERATE)

    def run(world_size: int) -> list[dict[str, Any]]:
        out = tmp_path / f"world-{world_size}"
        port = str(unused_port())
        running = []
        for rank in range(world_size):
            variables = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            }
            command = ["env", *(f"{k}={v}" for k, v in variables.items())]
            command += [sys.executable, str(program), str(view.store.root), str(out)]
            running.append(subprocess.Popen(command))
        assert [process.wait(timeout=120) for process in running] == [0] * world_size
        return [torch.load(f"{out}-{rank}.pt") for rank in range(world_size)]

    (alone,) = run(1)
    first, second = run(2)

    assert torch.equal(first["weights"], second["weights"])
    torch.testing.assert_close(first["weights"], alone["weights"], rtol=1e-4, atol=1e-5)
    assert sorted(first["ids"] + second["ids"]) == sorted(alone["ids"])
