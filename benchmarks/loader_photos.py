"""Synthetic photos of a phone's 12 megapixels, and views of them, for the case `phone`.

A photo is 4,032 x 3,024 pixels. Its ground is one of the photos of `benchmarks.teachers`,
enlarged; upon it lie 300 pieces of these photos, each over those before it, whose sides are
distributed as 1 / side^3 between 100 and 1,500 pixels. Such a collage of objects that hide each
other has edges and a spectrum like those of natural images, at every scale (Lee, Mumford and
Huang 2001, Occlusion Models for Natural Images). Grain of two levels and quality 88
with chroma of half the sides bring the file to what phones write, about 3 MB. All of it follows
from the number of the photo.
"""

import io
import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

import plstore
from benchmarks.loader_data import make_store, soft_labels
from benchmarks.record import Measurement
from benchmarks.teachers import photo_paths
from plstore.loaders import ImageFormat, Loader, Noise, RandAugment, load
from plstore.seeds import Purpose, generator
from plstore.views import open_view

SIDES: Final = (4032, 3024)
MAX_SIDE: Final = 512
_PIECES: Final = 300
_PIECE_SIDES: Final = (100, 1500)
_QUALITY: Final = 88
_GRAIN: Final = 2
_LABELED_EVERY: Final = 4
_BATCH: Final = 8
_MOST_LEVELS: Final = 4.0  # of 255: more is another image


def make_photos(folder: Path, count: int, sides: tuple[int, int] = SIDES) -> None:
    """Make photos, labels and a store with views of both sizes, unless they are there."""
    done = folder / "done.json"
    wanted = {"photos": count, "sides": list(sides)}
    if done.is_file() and wanted.items() <= json.loads(done.read_text()).items():
        return
    shutil.rmtree(folder, ignore_errors=True)
    files = folder / "files"
    files.mkdir(parents=True)
    maker = _Maker(sides)
    for number in range(count):
        (files / f"{number:05d}.jpg").write_bytes(maker.photo(number))
    labels = soft_labels(count)
    np.save(folder / "labels.npy", labels)
    views: dict[str, dict[str, Any]] = {
        "packed": {"mode": "packed"},
        "shrunk": {"max_side": MAX_SIDE},
    }
    make_store(folder / "store", files, labels, views, labeled_every=_LABELED_EVERY)
    mean_bytes = sum(path.stat().st_size for path in files.iterdir()) / count
    done.write_text(json.dumps({**wanted, "mean_bytes": round(mean_bytes)}))


class _Maker:
    """Makes photos of one size."""

    def __init__(self, sides: tuple[int, int]) -> None:
        self._sides = sides
        self._sources: list[Image.Image] = []
        for path in photo_paths():
            with Image.open(path) as file:
                self._sources.append(file.convert("RGB"))

    def photo(self, number: int) -> bytes:
        """Return a photo, a JPEG."""
        random = generator(0, Purpose.SAMPLE, 9, number)
        width, height = self._sides
        image = self._piece(random, width, height)
        low, high = (1 / side**2 for side in reversed(_PIECE_SIDES))
        for side in np.sort(random.uniform(low, high, _PIECES)) ** -0.5:
            stretch = np.exp(random.uniform(-0.5, 0.5))
            piece = self._piece(random, int(side * stretch), int(side / stretch))
            left = int(random.integers(-piece.width // 2, width - piece.width // 2))
            top = int(random.integers(-piece.height // 2, height - piece.height // 2))
            image.paste(piece, (left, top))
        grain = random.normal(0, _GRAIN, (height, width, 1)).astype(np.int16)
        pixels = np.clip(np.asarray(image, np.int16) + grain, 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY)
        return stream.getvalue()

    def _piece(self, random: np.random.Generator, width: int, height: int) -> Image.Image:
        """Return half to all of a source, at a random place, in a size."""
        source = self._sources[int(random.integers(len(self._sources)))]
        share = random.uniform(0.5, 1)
        scale = share * min(source.width / width, source.height / height)
        crop_w, crop_h = max(int(width * scale), 1), max(int(height * scale), 1)
        left = int(random.integers(source.width - crop_w + 1))
        top = int(random.integers(source.height - crop_h + 1))
        box = (left, top, left + crop_w, top + crop_h)
        return source.resize((width, height), Image.Resampling.BICUBIC, box=box)


def check_photos(folder: Path, *, steps: int) -> Iterator[Measurement]:
    """Yield how many samples were checked, and how far scaled decoding is from whole.

    Raises:
        SystemExit: If image, label and id of a sample do not belong together, or a scaled image
            is far from the one that is decoded whole.
    """
    for view in ("packed", "shrunk"):
        found = _loader(folder, view).verify(steps)
        if found.errors:
            raise SystemExit(f"{view} photos: {len(found.errors)} wrong: {found.errors[:3]}")
        yield _value(f"threads-{view}", "samples", found.samples, "")
        yield _value(f"threads-{view}", "errors", len(found.errors), "")
    levels, scales = _difference(folder, steps)
    if not levels < _MOST_LEVELS:
        raise SystemExit(f"scaled decoding is {levels:.1f} levels from decoding whole")
    yield _value("threads", "mean_levels_to_whole", levels, "")
    for scale in (1, 2, 4, 8):
        yield _value("threads", f"share_at_1_{scale}", float((scales == scale).mean()), "")


def _difference(folder: Path, steps: int) -> tuple[float, npt.NDArray[np.int32]]:
    """Return mean absolute levels between scaled and whole images, and all scales."""
    scaled, whole = (_loader(folder, "packed", scaled_decoding=on) for on in (True, False))
    sums, scales = [], []
    for a, b in islice(zip(scaled, whole, strict=True), steps):
        scales.append(scaled.work(a.step).scales)
        is_scaled = torch.from_numpy(scales[-1] > 1)
        pairs = (a.images[is_scaled].int() - b.images[is_scaled].int()).abs().float()
        sums.append(pairs.mean(dim=(1, 2, 3)))
    return float(torch.cat(sums).mean()), np.concatenate(scales)


def _loader(folder: Path, view: str, *, scaled_decoding: bool = True) -> Loader:
    return load(
        open_view(plstore.open(folder / "store"), view),
        labeled_batch=_BATCH // 4,
        pseudo_batch=_BATCH - _BATCH // 4,
        image_format=ImageFormat(size=224, scaled_decoding=scaled_decoding),
        noise=Noise(augment=RandAugment(n=0)),
        seed=0,
        backend="threads",
        num_threads=2,
        cache_bytes=0,
    )


def _value(contender: str, metric: str, value: float, unit: str) -> Measurement:
    return Measurement(
        case="phone-check",
        contender=contender,
        metric=metric,
        value=round(value, 4),
        unit=unit,
    )
