"""The loader as people use it: ranks, resume, damage, sources, formats, others' loops."""

import io
import json
import logging
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

import plstore
from plstore.errors import InputError, MissingExtraError, StoreError
from plstore.images import ImageRecord, import_images
from plstore.loaders import (
    Batch,
    Crop,
    ImageFormat,
    Loader,
    Noise,
    RandAugment,
    clean_batches,
    load,
    open_split,
    pick_backend,
)
from plstore.loaders.dali import build_pipeline
from plstore.loaders.sources import WindowSource
from plstore.loaders.work import BackendSpec
from plstore.selection import Balance, Selection, select
from plstore.store import Store, parquet
from plstore.views import View
from plstore.views import view as views
from tests.conftest import CLASS_NAMES, give_labels, make_records

RGB = ImageFormat(size=32)
PAPER = Noise(augment=RandAugment(n=2, m=9, translate_const=14, cutout_const=6))
BACKENDS = ["dali", "threads", "torch"]
SHUFFLES = ["global", "windowed"]


def make_view(store: Store, mode: str = "reference", quota: int = 23) -> View:
    give_labels(store)
    balance = Balance(min_confidence=0.4, images_per_class=quota, seed=0)
    selection = Selection(view=mode, teachers=["t0@1"], balance=balance, mode=mode)  # type: ignore[arg-type]  # one of its names
    return select(store, selection)


@pytest.fixture
def view(store: Store) -> View:
    return make_view(store)


def loader_of(view: View, **changes: Any) -> Loader:  # noqa: ANN401
    values: dict[str, Any] = {
        "labeled_batch": 8,
        "pseudo_batch": 24,
        "image_format": RGB,
        "noise": PAPER,
        "seed": 0,
        "window": 40,
    }
    return load(view, **{**values, **changes})


def some(loader: Loader, count: int) -> list[Batch]:
    return list(islice(loader, count))


def together(parts: list[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    """Put the batches of all ranks into the order of the one that a single rank has."""

    def joined(name: str) -> Tensor:
        values = [(getattr(part, name), part.num_labeled) for part in parts]
        return torch.cat([v[:n] for v, n in values] + [v[n:] for v, n in values])

    return joined("images"), joined("targets"), joined("sample_ids")


def same(a: Batch, b: Batch) -> bool:
    names = ("images", "targets", "sample_ids")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_ranks_share_the_batches_of_one_bit_for_bit(
    view: View, backend: str, shuffle: str
) -> None:
    alone = some(loader_of(view, backend=backend, shuffle=shuffle), 3)
    for world_size in (2, 4, 8):
        ranks = [
            some(
                loader_of(
                    view,
                    backend=backend,
                    shuffle=shuffle,
                    rank=rank,
                    world_size=world_size,
                    num_threads=1 + rank % 3,
                ),
                3,
            )
            for rank in range(world_size)
        ]
        for step, whole in enumerate(alone):
            parts = together([rank[step] for rank in ranks])
            for part, name in zip(parts, ("images", "targets", "sample_ids"), strict=True):
                assert torch.equal(part, getattr(whole, name)), (world_size, name)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_a_run_goes_on_with_another_number_of_ranks(view: View, shuffle: str) -> None:
    alone = some(loader_of(view, shuffle=shuffle), 6)
    first = loader_of(view, shuffle=shuffle)
    some(first, 4)
    state = json.loads(json.dumps(first.state_dict()))
    ranks = []
    for rank in range(2):
        loader = loader_of(view, shuffle=shuffle, rank=rank, world_size=2)
        loader.load_state_dict(state)
        ranks.append(some(loader, 2))

    assert state["step"] == 4
    assert set(state) == {"view", "plan", "seed", "step"}
    for number in range(2):
        images, _, ids = together([rank[number] for rank in ranks])
        assert torch.equal(images, alone[4 + number].images)
        assert torch.equal(ids, alone[4 + number].sample_ids)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"seed": 1}, "seed"),
        ({"noise": Noise(augment=RandAugment(m=8))}, "plan"),
        ({"pseudo_batch": 16}, "plan"),
        ({"image_format": ImageFormat(size=32, interpolation="bicubic")}, "plan"),
        ({"shuffle": "windowed"}, "plan"),
    ],
)
def test_a_state_of_other_batches_is_refused(
    view: View, changes: dict[str, Any], word: str
) -> None:
    state = loader_of(view).state_dict()
    with pytest.raises(InputError, match=f"the state is of {word}"):
        loader_of(view, **changes).load_state_dict(state)


def test_a_state_of_another_view_is_refused(store: Store, view: View) -> None:
    other = make_view(store, quota=9)
    with pytest.raises(InputError, match="the state is of view"):
        loader_of(other).load_state_dict(loader_of(view).state_dict())


@pytest.mark.parametrize(("batch", "window"), [(16, 64), (16, 200), (7, 30)])
def test_copies_stay_apart_in_windows_too(store: Store, batch: int, window: int) -> None:
    view = make_view(store, "packed", quota=40)
    loader = loader_of(
        view, shuffle="windowed", pseudo_batch=batch, labeled_batch=1, window=window
    )
    stream = loader.source.stream(pseudo=True, batch=batch, seed=3)
    draws = stream.draws_per_pass
    whole = stream.take(0, 2 * draws)
    copies = Counter(whole[:draws].tolist())
    assert copies == Counter(whole[draws:].tolist())
    for number in range(2):
        inner = range(-(-number * draws // batch) * batch, (number + 1) * draws, batch)
        for start in inner:
            rows = whole[start : min(start + batch, (number + 1) * draws)].tolist()
            repeated = [row for row, count in Counter(rows).items() if count > 1]
            assert all(copies[row] >= window // batch for row in repeated), repeated


def test_two_readings_of_a_block_in_one_window_are_one(store: Store) -> None:
    give_labels(store)
    balance = Balance(min_confidence=0.8, images_per_class=14, seed=0)
    selection = Selection(view="few", teachers=["t0@1"], balance=balance, mode="packed")
    loader = loader_of(select(store, selection), shuffle="windowed", window=30)
    for seed in range(6):
        stream = loader.source.stream(pseudo=True, batch=6, seed=seed)
        draws = stream.draws_per_pass
        whole = stream.take(0, draws)
        copies = Counter(whole.tolist())
        assert 3 < max(copies.values()) < draws // 6  # more than a window holds apart
        batches = [whole[n : n + 6] for n in range(0, draws - 5, 6)]
        assert all(len(np.unique(batch)) == 6 for batch in batches)


@pytest.mark.parametrize("mode", ["packed", "reference"])
def test_both_shuffles_honour_copies_and_read_both_modes(store: Store, mode: str) -> None:
    view = make_view(store, mode)
    rows = {r["sample_id"]: r for b in view.batches() for r in b.to_pylist()}
    wanted = {n: r["copies"] for n, r in rows.items() if r["kind"] == "pseudo"}
    draws = sum(wanted.values())
    for shuffle in SHUFFLES:
        loader = loader_of(view, shuffle=shuffle, labeled_batch=2, pseudo_batch=3)
        ids = [b.sample_ids[2:] for b in some(loader, 2 * draws // 3)]
        stream = torch.cat(ids).tolist()
        assert Counter(stream[:draws]) == wanted, shuffle
        assert Counter(stream[draws : 2 * draws]) == wanted, shuffle
        assert stream[:draws] != stream[draws : 2 * draws]
        assert all(len(set(b.tolist())) == 3 for b in ids), shuffle


def test_windows_are_read_ahead_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_ROW_GROUP_BYTES", 100_000)
    big = plstore.create(tmp_path / "big")
    records = make_records(num_labeled=40, num_unlabeled=1200)
    import_images(big, records, dataset="pets", class_names=CLASS_NAMES)
    view = make_view(big, "packed", quota=400)
    loader = loader_of(view, shuffle="windowed", window=128, pseudo_batch=16)
    source = loader.source
    assert isinstance(source, WindowSource)
    sizes = source._ends - source._blocks.starts
    most = 0
    for step in range(60):
        loader.work(step)
        most = max(most, int(sizes[list(source._held)].sum()))

    bound = 2 * (2 * 128 + 2 * int(sizes.max()))  # two windows of each stream
    assert len(sizes) > 10
    assert most <= bound < sizes.sum()


def test_photos_in_place_are_read_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_READ_BYTES", 20 * 24 * 22)
    view = make_view(in_place_store(tmp_path))
    loader = loader_of(view, shuffle="windowed")
    source = loader.source
    assert isinstance(source, WindowSource)
    sizes = source._ends - source._blocks.starts

    assert sizes.max() <= 26
    assert sizes.sum() == view.record.num_images
    assert all(batch.num_rows <= 26 for batch in view.batches())
    assert loader.verify().ok


@pytest.mark.parametrize("ratio", [1, 14, 28])
def test_any_ratio_draws_the_same_labeled_images(view: View, ratio: int) -> None:
    one = some(loader_of(view, labeled_batch=2, pseudo_batch=2), 4)
    many = some(loader_of(view, labeled_batch=2, pseudo_batch=2 * ratio), 4)
    for a, b in zip(one, many, strict=True):
        assert torch.equal(a.images[:2], b.images[:2])
        assert torch.equal(a.sample_ids[:2], b.sample_ids[:2])
        assert len(b.images) == 2 + 2 * ratio


def test_each_copy_has_its_own_noise(view: View) -> None:
    seen: dict[int, list[Tensor]] = {}
    for batch in some(loader_of(view), 12):
        for image, sample_id in zip(batch.images, batch.sample_ids.tolist(), strict=True):
            assert not any(torch.equal(image, other) for other in seen.get(sample_id, []))
            seen.setdefault(sample_id, []).append(image)
    assert max(len(images) for images in seen.values()) > 3


def test_ranks_that_cannot_share_a_batch_are_refused(view: View) -> None:
    with pytest.raises(InputError, match="cannot be shared by 3 ranks; wanted a multiple"):
        loader_of(view, rank=0, world_size=3)
    with pytest.raises(InputError, match="rank is 2; wanted a whole number from 0 to 1"):
        loader_of(view, rank=2, world_size=2)
    with pytest.raises(InputError, match="go together"):
        loader_of(view, rank=1)


IMPOSSIBLE_ARGUMENTS: list[tuple[str, object, str]] = [
    ("labeled_batch", 0, "a whole number of 1 or more"),
    ("labeled_batch", 2.5, "a whole number"),
    ("pseudo_batch", -4, "a whole number of 0 or more"),
    ("image_format", 32, "ImageFormat"),
    ("noise", "paper", "Noise"),
    ("seed", -1, "a whole number of 0 or more"),
    ("seed", "0", "a whole number"),
    ("first_step", -1, "a whole number of 0 or more"),
    ("shuffle", "local", "'global', 'windowed'"),
    ("window", 0, "a whole number of 1 or more"),
    ("backend", "ffcv", "'auto', 'dali', 'threads', 'torch'"),
    ("num_threads", 0, "a whole number of 1 or more"),
    ("cache_bytes", -1, "a whole number of 0 or more"),
]


def test_impossible_numbers_are_refused(view: View) -> None:
    for name, value, wanted in IMPOSSIBLE_ARGUMENTS:
        with pytest.raises(InputError, match=f"{name} is .*wanted {wanted}"):
            loader_of(view, **{name: value})
    for device in ("tpu", "cuda:99", "cpu:0"):
        with pytest.raises(InputError, match=f"device is '{device}'.*wanted 'c"):
            loader_of(view, device=device)
    loader = loader_of(view)
    with pytest.raises(InputError, match="steps is 0; wanted a whole number of 1 or more"):
        loader.verify(0)
    with pytest.raises(InputError, match="step of the state is -1; wanted a whole number"):
        loader.load_state_dict({**loader.state_dict(), "step": -1})
    with pytest.raises(InputError, match="batch_size is 0; wanted a whole number of 1"):
        next(clean_batches(open_split(view.store, "test"), RGB, batch_size=0))


def in_place_store(folder: Path) -> Store:
    records = []
    for record in make_records():
        path = folder / "pets" / record.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.data)
        values = {**vars(record), "place": str(path)}
        records.append(ImageRecord(**values))
    store = plstore.create(folder / "store")
    import_images(store, records, dataset="pets", class_names=CLASS_NAMES, in_place=True)
    return store


def damage_twin(view: View, sample_ids: set[int]) -> None:
    """Flip a byte of images in the cache, as a failing disk would."""
    loader_of(view)
    (path,) = Path(view.store.cache_folder()).glob("view-*.arrow")
    data = bytearray(path.read_bytes())
    for batch in view.batches():
        for row in batch.to_pylist():
            if row["sample_id"] in sample_ids:
                data[data.index(row["image"]) + 40] ^= 0xFF
    path.unlink()  # it may be mapped
    path.write_bytes(data)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_image_is_replaced_and_counted(view: View, backend: str) -> None:
    whole = some(loader_of(view, backend=backend), 4)
    ids = whole[0].sample_ids.tolist()
    bad = {ids[0], ids[20]}
    damage_twin(view, bad)
    loader = loader_of(view, backend=backend)
    found = some(loader, 4)

    assert set(loader.replaced) == bad
    assert sum(loader.replaced.values()) == sum(len(b.replaced) for b in found)
    assert set(found[0].replaced) == bad
    for before, after in zip(whole, found, strict=True):
        kept = torch.tensor([n not in bad for n in before.sample_ids.tolist()])
        assert torch.equal(after.images[kept], before.images[kept])
        assert not bad & set(after.sample_ids.tolist())
        assert len(after.images) == 32
    split = [some(loader_of(view, backend=backend, rank=r, world_size=2), 1)[0] for r in (0, 1)]
    assert torch.equal(together(split)[0], found[0].images)


def test_a_view_of_nothing_but_damage_is_refused(view: View) -> None:
    damage_twin(view, {row["sample_id"] for b in view.batches() for row in b.to_pylist()})
    with pytest.raises(StoreError, match=r"in a row .* are damaged"):
        some(loader_of(view), 1)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_a_file_in_place_that_is_gone_is_replaced_until_it_is_back(
    tmp_path: Path, shuffle: str
) -> None:
    store = in_place_store(tmp_path)
    view = make_view(store)
    rows = store.table("images").read(columns=["sample_id", "image"]).to_pylist()
    place = {row["sample_id"]: Path(row["image"]["path"]) for row in rows}
    lost = some(loader_of(view, shuffle=shuffle), 1)[0].sample_ids.tolist()[3]
    shutil.rmtree(store.cache_folder(), ignore_errors=True)  # windows copy nothing
    data = place[lost].read_bytes()
    place[lost].unlink()
    found = some(loader_of(view, shuffle=shuffle), 1)[0]
    place[lost].write_bytes(data)
    again = some(loader_of(view, shuffle=shuffle), 1)[0]

    assert found.replaced == (lost,)
    assert again.replaced == ()
    assert again.sample_ids.tolist()[3] == lost


def test_labeling_refuses_a_damaged_image(store: Store) -> None:
    images = open_split(store, "test")
    (path,) = Path(store.cache_folder()).glob("split-*.arrow")
    data = bytearray(path.read_bytes())
    row = (
        store.table("images")
        .read()
        .filter(pa.compute.equal(store.table("images").read()["split"], "test"))
        .to_pylist()[0]
    )
    data[data.index(row["image"]["bytes"]) + 40] ^= 0xFF
    del images
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(StoreError, match="is not what the store says"):
        list(clean_batches(open_split(store, "test"), RGB))


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_verify_finds_nothing_wrong(view: View, backend: str, shuffle: str) -> None:
    loader = loader_of(view, backend=backend, shuffle=shuffle)
    found = loader.verify()

    assert found.ok
    assert found.images == view.record.num_images
    assert found.samples == loader.plan.steps_per_pass * 32
    assert loader.step == 0


@pytest.mark.parametrize(("column", "word"), [("image", "image"), ("label", "label")])
def test_verify_finds_what_was_exchanged(view: View, column: str, word: str) -> None:
    loader_of(view)
    (path,) = Path(view.store.cache_folder()).glob("view-*.arrow")
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    places = np.arange(table.num_rows)
    first = int(np.flatnonzero(np.array(table["kind"].to_pylist()) == "pseudo")[0])
    places[[first, first + 1]] = places[[first + 1, first]]
    columns = [column, "image_hash"] if column == "image" else [column]
    columns += ["width", "height"] if column == "image" else []
    for name in columns:
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), table[name].take(places))
    path.unlink()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    found = loader_of(view).verify()

    assert not found.ok
    assert all(f"its {word} is another's" in line for line in found.errors)
    wrong = {int(line.split()[1].rstrip(":")) for line in found.errors}
    assert wrong == set(table["sample_id"].to_pylist()[first : first + 2])


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

    monkeypatch.setitem(backends._NEEDS, "dali", ("nvidia_dali_that_is_not_there",))
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
