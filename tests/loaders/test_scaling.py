"""Large JPEGs decoded at a scale: which one, and that every backend sees the same pixels."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch
from PIL import Image

import plstore
from plstore.images import ImageRecord, import_images
from plstore.loaders import (
    Crop,
    ImageFormat,
    Noise,
    RandAugment,
    clean_batches,
    open_split,
)
from plstore.loaders.scaling import decode_scales, decoded, resized
from plstore.views import View
from tests.conftest import CLASS_NAMES
from tests.decoding.made import lossless_jpeg
from tests.loaders.conftest import BACKENDS, loader_of, make_view, same, some

SIZES = ((701, 540), (640, 512), (333, 900), (31, 30))
STILL = Noise(crop=Crop(min_area=0.1), augment=RandAugment(n=0))


def photo(size: tuple[int, int], kind: str = "JPEG", **options: Any) -> bytes:  # noqa: ANN401
    stream = io.BytesIO()
    Image.fromarray(skimage.data.coffee()).resize(size).save(stream, kind, **options)
    return stream.getvalue()


def bytes_of(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> View:
    """A view of photos of up to 900 pixels: JPEGs of several kinds, every fifth a PNG."""
    records = []
    for index in range(30):
        size = SIZES[index % len(SIZES)]
        data = photo(size, quality=90, progressive=index % 3 == 0, subsampling=index % 3)
        data = photo(size, "PNG") if index % 5 == 4 else data
        split = ("labeled", "unlabeled", "unlabeled", "test", "unlabeled")[index % 5]
        label = None if split == "unlabeled" else CLASS_NAMES[index % 3]
        records.append(ImageRecord(key=f"{index:02d}", split=split, data=data, label=label))
    store = plstore.create(tmp_path_factory.mktemp("large") / "store")
    import_images(store, records, dataset="photos", class_names=CLASS_NAMES)
    return make_view(store, quota=10)


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        (99, 400, 1),
        (100, 199, 1),
        (199, 199, 1),
        (200, 200, 2),
        (399, 900, 2),
        (400, 400, 4),
        (799, 799, 4),
        (800, 801, 8),
        (4000, 3000, 8),
    ],
)
def test_the_scale_is_the_largest_that_magnifies_nothing(
    height: int, width: int, scale: int
) -> None:
    windows = np.array([[7, 3, 7 + height, 3 + width]] * 4, np.int32)
    files = [photo((40, 40), kind) for kind in ("JPEG", "PNG", "WEBP")]
    files.append(lossless_jpeg(np.zeros((4, 4), np.uint8)))
    encoded = [bytes_of(data) for data in files]

    assert decode_scales(encoded, windows, ImageFormat(size=100)).tolist() == [scale, 1, 1, 1]
    off = ImageFormat(size=100, scaled_decoding=False)
    assert decode_scales(encoded, windows, off).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("channels", "shuffle"),
    [pytest.param(1, "windowed", marks=pytest.mark.nightly), (3, "global")],
)
def test_all_backends_see_the_same_pixels_of_scaled_images(
    large: View, channels: int, shuffle: str
) -> None:
    half = (0.5,) * channels
    values: dict[str, Any] = {
        "image_format": ImageFormat(size=48, channels=channels, mean=half, std=half),
        "noise": STILL,
        "shuffle": shuffle,
    }
    loader = loader_of(large, **values)
    scales = [loader.work(step).scales for step in range(3)]
    one, *others = [some(loader_of(large, backend=name, **values), 3) for name in BACKENDS]

    assert set(np.concatenate(scales).tolist()) == {1, 2, 4, 8}
    for other in others:
        for a, b, scale in zip(one, other, scales, strict=True):
            scaled = torch.from_numpy(scale > 1)
            assert torch.equal(a.sample_ids, b.sample_ids)
            assert torch.equal(a.images[scaled], b.images[scaled])
            assert (a.images.int() - b.images.int()).abs().float().mean() < 1.2


@pytest.mark.parametrize("backend", BACKENDS)
def test_clean_images_are_scaled_alike(large: View, backend: Any) -> None:  # noqa: ANN401
    images = open_split(large.store, "test")
    (a,) = clean_batches(images, ImageFormat(size=48), backend=backend)
    (b,) = clean_batches(images, ImageFormat(size=48), backend="torch")
    (whole,) = clean_batches(
        images, ImageFormat(size=48, scaled_decoding=False), backend=backend
    )
    scaled = torch.from_numpy(np.minimum(images.widths, images.heights) >= 96)

    assert torch.equal(a.images[scaled], b.images[scaled])
    assert torch.equal(a.images[~scaled], whole.images[~scaled])
    difference = (a.images[scaled].int() - whole.images[scaled].int()).abs().float()
    assert 0 < difference.mean() < 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_can_be_turned_off(large: View, backend: str) -> None:
    off = ImageFormat(size=48, scaled_decoding=False)
    values: dict[str, Any] = {"image_format": off, "noise": STILL, "backend": backend}
    loader = loader_of(large, **values)
    work = loader.work(0)
    (batch,) = some(loader, 1)

    assert (work.scales == 1).all()
    for slot in np.flatnonzero((work.windows[:, 2:] - work.windows[:, :2]).min(axis=1) > 96):
        with Image.open(io.BytesIO(work.encoded[slot].tobytes())) as file:
            top, left, bottom, right = work.windows[slot].tolist()
            window = file.convert("RGB").crop((left, top, right, bottom))
        if work.noise is not None and work.noise.flips[slot]:
            window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        expected = np.asarray(window.resize((48, 48), Image.Resampling.BILINEAR)).astype(int)
        found = batch.images[slot].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(found - expected).mean() < 0.5
    scaled = loader_of(large, **{**values, "image_format": ImageFormat(size=48)})
    assert scaled.state_dict()["plan"] != loader.state_dict()["plan"]


def test_a_window_stays_where_it_is_between_scaled_pixels() -> None:
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.tile(ramp, (801, 1))).save(stream, "JPEG", quality=100)
    data, format_ = bytes_of(stream.getvalue()), ImageFormat(size=50)
    whole = Image.open(io.BytesIO(data.tobytes())).convert("RGB")
    for scale in (2, 4, 8):
        for left in range(9):
            window = np.array([3, left, 3 + 50 * scale, left + 50 * scale], np.int32)
            found = resized(decoded(data, scale, 3), window, scale, format_).astype(int)
            box = (left, 3, left + 50 * scale, 3 + 50 * scale)
            expected = np.asarray(whole.resize((50, 50), Image.Resampling.BILINEAR, box=box))

            assert np.abs(found - expected.astype(int))[:, 1:-1].max() <= 1


def test_decoded_images_that_are_kept_are_the_same(large: View) -> None:
    values: dict[str, Any] = {"image_format": ImageFormat(size=48), "noise": STILL}
    kept = some(loader_of(large, **values), 3)
    not_kept = some(loader_of(large, cache_bytes=0, **values), 3)

    assert all(same(a, b) for a, b in zip(kept, not_kept, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scaled_view_is_verified(large: View, backend: str) -> None:
    found = loader_of(large, backend=backend, image_format=ImageFormat(size=48)).verify(3)

    assert found.ok, found.errors
    assert found.samples == 96
