import io
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor

from plstore.codec import decode
from plstore.errors import InputError
from plstore.loaders import (
    Batch,
    ComposedAugment,
    Crop,
    ImageFormat,
    ImageSet,
    Loader,
    Noise,
    Plan,
    clean_batches,
    clean_stream,
    dali,
    load,
    open_split,
    open_view_images,
)
from plstore.loaders.noise import ComposedDraw
from plstore.loaders.sources import TwinSource
from plstore.loaders.work import BackendName
from plstore.selection import Balance, Selection, select
from plstore.store import Store
from plstore.views import View
from tests.conftest import give_labels

GRAY = ImageFormat(size=16, channels=1, mean=(0.5,), std=(0.25,))
RGB = ImageFormat(size=16)
STRONG_OPS = {
    "rotate": 20,
    "shear_x": 0.2,
    "translate_y": 0.2,
    "zoom": 0.2,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
}
STRONG = Noise(augment=ComposedAugment(n=2, ops=STRONG_OPS))


@pytest.fixture
def view(store: Store) -> View:
    give_labels(store)
    balance = Balance(min_confidence=0.4, images_per_class=23, seed=0)
    selection = Selection(view="v", teachers=["t0@1"], balance=balance)
    return select(store, selection)


def loader_of(view: View, **changes: Any) -> Loader:  # noqa: ANN401
    values: dict[str, Any] = {
        "labeled_batch": 5,
        "pseudo_batch": 15,
        "image_format": RGB,
        "noise": STRONG,
        "seed": 0,
    }
    return load(view, **{**values, **changes})


def batches(view: View, count: int, **changes: Any) -> list[Batch]:  # noqa: ANN401
    return list(islice(loader_of(view, **changes), count))


def plan_of(images: ImageSet, **changes: Any) -> Plan:  # noqa: ANN401
    values: dict[str, Any] = {"noise": STRONG, "size": 16, "seed": 3}
    return Plan(TwinSource(images), **{**values, **changes})


def equal(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.images, b.images)
        and torch.equal(a.targets, b.targets)
        and torch.equal(a.sample_ids, b.sample_ids)
    )


@pytest.mark.parametrize("backend", ["dali", "threads", "torch"])
@pytest.mark.parametrize("image_format", [RGB, GRAY])
def test_a_resumed_loader_gives_the_same_bits(
    view: View, backend: str, image_format: ImageFormat
) -> None:
    whole = batches(view, 7, backend=backend, image_format=image_format)
    resumed = batches(view, 4, backend=backend, image_format=image_format, first_step=3)

    assert all(equal(a, b) for a, b in zip(whole[3:], resumed, strict=True))
    assert [batch.step for batch in resumed] == [3, 4, 5, 6]


def test_another_seed_gives_other_batches(view: View) -> None:
    assert not equal(batches(view, 1)[0], batches(view, 1, seed=1)[0])


def test_image_and_soft_label_belong_together(view: View) -> None:
    rows = {row["sample_id"]: row for b in view.batches() for row in b.to_pylist()}
    for batch in batches(view, 6):
        for slot, sample_id in enumerate(batch.sample_ids.tolist()):
            row = rows[sample_id]
            assert (row["kind"] == "labeled") == (slot < batch.num_labeled)
            assert batch.targets[slot].argmax() == row["class_id"]
            assert abs(float(batch.targets[slot].max()) - row["confidence"]) < 2e-3


@pytest.mark.parametrize("backend", ["dali", "threads", "torch"])
def test_an_identity_plan_shows_the_stored_pixels(store: Store, backend: Any) -> None:  # noqa: ANN401
    images = open_split(store, "test")
    rows = store.table("images").read().sort_by("sample_id").to_pylist()
    side = ImageFormat(size=20, crop_pct=1.0)
    (batch,) = clean_batches(images, side, backend=backend)
    stored = {row["sample_id"]: row["image"]["bytes"] for row in rows}
    for image, sample_id in zip(batch.images, batch.sample_ids.tolist(), strict=True):
        with Image.open(io.BytesIO(stored[sample_id])) as file:
            rgb = file.convert("RGB")
        side_px = min(rgb.size)
        left, top = (rgb.width - side_px) // 2, (rgb.height - side_px) // 2
        square = rgb.crop((left, top, left + side_px, top + side_px))
        expected = square.resize((20, 20), Image.Resampling.BILINEAR)
        difference = np.abs(
            image.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected).astype(int)
        )
        assert difference.max() <= {"dali": 4, "threads": 1, "torch": 0}[backend]


def test_clean_batches_show_every_image_once_in_order(store: Store) -> None:
    images = open_split(store, "unlabeled")
    found = [i for b in clean_batches(images, RGB, batch_size=7) for i in b.sample_ids.tolist()]

    assert found == images.sample_ids.tolist() == sorted(found)
    assert len(found) == 60


def test_a_stream_has_the_batches_of_each_portion_alone(store: Store) -> None:
    sets = [open_split(store, "unlabeled"), open_split(store, "validation")]
    portions = [(images, np.arange(len(images))[1:]) for images in sets]
    found = list(clean_stream(iter(portions), RGB, batch_size=16))
    alone = [
        batch
        for images, rows in portions
        for batch in clean_batches(images, RGB, batch_size=16, rows=rows)
    ]

    assert [len(batch.images) for batch in found] == [16, 16, 16, 11, 5]
    assert [batch.step for batch in found] == list(range(5))
    for one, other in zip(found, alone, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.sample_ids, other.sample_ids)


@pytest.mark.parametrize("backend", ["threads", "torch"])
def test_the_next_batch_is_begun_before_this_one_is_given(
    store: Store, backend: BackendName
) -> None:
    images, drawn = open_split(store, "unlabeled"), list[int]()

    def portions() -> Iterator[tuple[ImageSet, npt.NDArray[np.int64]]]:
        for number in range(4):
            drawn.append(number)
            yield images, np.arange(2)

    stream = clean_stream(portions(), RGB, backend=backend, batch_size=2)
    next(stream)

    assert drawn[:2] == [0, 1]
    assert len(list(stream)) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["threads", "torch"])
def test_on_a_cuda_device_batches_are_those_of_the_cpu(
    store: Store, backend: BackendName
) -> None:
    images = open_split(store, "unlabeled")
    here = list(clean_batches(images, RGB, backend=backend, batch_size=7))
    there = list(clean_batches(images, RGB, backend=backend, batch_size=7, device="cuda"))

    for one, other in zip(here, there, strict=True):
        assert other.images.device.type == other.targets.device.type == "cuda"
        assert torch.equal(one.images, other.images.cpu())
        assert torch.equal(one.targets, other.targets.cpu())
        assert torch.equal(one.sample_ids, other.sample_ids)


@pytest.mark.parametrize("op", sorted(STRONG_OPS))
def test_both_backends_do_the_same_to_the_pixels(view: View, op: str) -> None:
    noise = Noise(
        crop=Crop(min_area=0.5),
        augment=ComposedAugment(n=1, ops={op: STRONG_OPS[op]}),
        fill=128,
    )
    dali = batches(view, 2, noise=noise, backend="dali")
    others = [batches(view, 2, noise=noise, backend=name) for name in ("threads", "torch")]
    for a, b in [pair for other in others for pair in zip(dali, other, strict=True)]:
        difference = (a.images.int() - b.images.int()).abs().float()
        assert torch.equal(a.sample_ids, b.sample_ids)
        assert torch.equal(a.targets, b.targets)
        assert difference.mean() < 2.5, op


def test_copies_are_honoured_exactly_in_every_pass(view: View) -> None:
    images = open_view_images(view)
    draws = int(images.copies[images.is_pseudo].sum())
    plan = Plan(
        TwinSource(images), labeled_batch=4, pseudo_batch=draws, noise=STRONG, size=16, seed=3
    )
    for step in range(3):
        rows = Counter(plan.rows(step)[4:].tolist())
        assert rows == {r: int(images.copies[r]) for r in np.flatnonzero(images.is_pseudo)}
    assert plan.rows(0).tolist() != plan.rows(1).tolist()


def test_an_epoch_draws_every_labeled_image_once(view: View) -> None:
    images = open_view_images(view)
    plan = Plan(
        TwinSource(images), labeled_batch=4, pseudo_batch=0, noise=STRONG, size=16, seed=3
    )
    rows = [r for step in range(plan.steps_per_epoch) for r in plan.rows(step).tolist()]

    assert plan.steps_per_epoch == 3
    assert sorted(rows) == np.flatnonzero(~images.is_pseudo).tolist()


def test_no_noise_means_no_change(view: View) -> None:
    still = Noise(
        crop=Crop(min_area=1, max_area=1, max_aspect=1),
        flip=0,
        augment=ComposedAugment(n=0),
    )
    images = open_view_images(view)
    source = TwinSource(images)
    plan = Plan(source, labeled_batch=8, pseudo_batch=0, noise=still, size=16, seed=0)
    noise = plan.noise(0, source.fetch(plan.rows(0))).augment

    assert isinstance(noise, ComposedDraw)
    assert np.allclose(noise.matrices, np.tile(np.eye(2, 3), (8, 1, 1)), atol=1e-5)
    assert (noise.brightness == 1).all()
    assert (noise.contrast == 1).all()
    assert (noise.saturation == 1).all()


def test_crops_stay_in_the_image_and_in_their_bounds(view: View) -> None:
    images = open_view_images(view)
    noise = Noise(crop=Crop(min_area=0.3, max_area=0.6, max_aspect=1.25))
    plan = Plan(
        TwinSource(images), labeled_batch=12, pseudo_batch=60, noise=noise, size=16, seed=0
    )
    samples = TwinSource(images).fetch(plan.rows(0))
    top, left, bottom, right = plan.noise(0, samples).windows.T
    w, h = samples.widths, samples.heights
    area = (bottom - top) * (right - left) / (w * h)
    aspect = (right - left) / (bottom - top)

    assert (top >= -1e-4).all()
    assert (left >= -1e-4).all()
    assert (bottom <= h + 1e-3).all()
    assert (right <= w + 1e-3).all()
    pixel = 0.5 / (bottom - top).min()  # windows are whole pixels
    assert area.min() >= 0.3 - 2 * pixel
    assert area.max() <= 0.6 + 2 * pixel
    assert 0.8 - 4 * pixel <= aspect.min() <= aspect.max() <= 1.25 + 4 * pixel


def test_targets_are_the_decoded_labels(view: View) -> None:
    images = open_view_images(view)
    rows = np.flatnonzero(images.is_pseudo)[:9]
    stored = pa.Table.from_batches(view.batches())["label"].combine_chunks()

    assert np.array_equal(images.targets(rows), decode(stored.take(pa.array(rows)), 3))


def test_large_images_are_decoded_a_few_at_a_time_to_the_same_bits(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = batches(view, 3, backend="dali")
    monkeypatch.setattr(dali, "_DECODED_BYTES", 7 * 24 * 24 * 3)
    work = loader_of(view).work(0)
    assert len(dali.chunk_starts(work, channels=3)) > 2
    parts = batches(view, 3, backend="dali")

    assert all(equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert parts[0].images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_normalised_to_the_same_bits_in_either_order(channels: int) -> None:
    random = torch.Generator().manual_seed(0)
    planes = torch.randint(0, 256, (5, channels, 6, 7), dtype=torch.uint8, generator=random)
    last = planes.contiguous(memory_format=torch.channels_last)
    of = ImageFormat(size=6, channels=channels, mean=(0.4,) * channels, std=(0.3,) * channels)
    of = RGB if channels == 3 else of
    shape = (1, channels, 1, 1)
    mean, std = (torch.tensor(v).mul(255).view(shape) for v in (of.mean, of.std))
    wanted, found = (planes.float() - mean) / std, of.normalise(last)

    assert torch.equal(of.normalise(planes), wanted)
    assert torch.equal(found, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_uint8_is_normalised_by_channel() -> None:
    images = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    found: Tensor = RGB.normalise(images)[0, :, 0, 0]

    torch.testing.assert_close(found, (1 - torch.tensor(RGB.mean)) / torch.tensor(RGB.std))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backend": "ffcv"}, "wanted 'auto', 'dali', 'threads', 'torch'"),
    ],
)
def test_an_unknown_backend_is_refused(view: View, changes: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        batches(view, 1, **changes)


def test_unknown_ops_are_refused() -> None:
    with pytest.raises(InputError, match="RandAugment ops spin are unknown"):
        ComposedAugment(ops={"spin": 1})


def test_the_cache_can_be_deleted(view: View) -> None:
    first = batches(view, 1)[0]
    for path in Path(view.store.cache_folder()).glob("*.arrow"):
        path.unlink()

    assert equal(first, batches(view, 1)[0])
