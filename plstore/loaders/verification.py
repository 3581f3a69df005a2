"""Proof that what a loader gives belongs together: image, label, weight and id of each sample.

What the loader gives is compared with what the store says by another way: images are read from
the table `images` in its own order and rendered by Pillow, labels are decoded from the view's
rows by sample id, and weights are looked up there.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from plstore.codec import decode
from plstore.errors import StoreError
from plstore.images import IMAGE_COLUMNS, image_bytes
from plstore.loaders.backends import run_backend, work_of
from plstore.loaders.noise import center_windows
from plstore.loaders.plan import Plan
from plstore.loaders.sources import Samples
from plstore.loaders.work import BackendName, BackendSpec, ImageFormat, Work
from plstore.schema import ACCEPTED
from plstore.views import Shrink, View, shrink_image

_CELLS: Final = 8  # an image is known by the means of 8 x 8 cells
_TOLERANCE: Final = 6.0  # levels of 255, between backends; two photos differ by far more
_BATCH_ROWS: Final = 128
_LABELS: Final = ("sample_id", "kind", "class_id", "weight", "label")


@dataclass
class Verification:
    """What was found.

    Attributes:
        samples: Samples that were compared.
        images: Different images among them.
        errors: A line for each sample that is not what the store says.
        replaced: Samples that took the place of a damaged image.
    """

    samples: int = 0
    images: int = 0
    errors: list[str] = field(default_factory=list)
    replaced: int = 0

    @property
    def ok(self) -> bool:
        """Whether every sample was right."""
        return not self.errors


class Verifiable(Protocol):
    """What a loader shows of itself to be verified; see `plstore.loaders.Loader`."""

    view: View
    plan: Plan
    format: ImageFormat
    backend: BackendName

    def samples(self, step: int) -> tuple[Samples, tuple[int, ...]]:
        """Return the samples of a step, and the ids of those that were replaced."""

    def spec(
        self, work: Callable[[int], Work], *, first_step: int, noisy: bool = True
    ) -> BackendSpec:
        """Return what a backend is built from."""


def verify_loader(loader: Verifiable, steps: int | None = None) -> Verification:
    """Compare the clean images, labels, weights and ids of a loader with the store.

    Memory: about 800 bytes a sample.

    Args:
        loader: At any step; it is not moved.
        steps: From step 0 on; as many as make one pass over either stream unless given.
    """
    steps = loader.plan.steps_per_pass if steps is None else steps
    rows = _rows(loader.view)
    known = rows["sample_id"].to_numpy()
    weights = rows["weight"].fill_null(1).to_numpy()
    found = Verification()
    ids: list[npt.NDArray[np.int64]] = []
    cells: list[npt.NDArray[np.float32]] = []
    wrong: list[npt.NDArray[np.str_]] = []
    for work, images, targets, batch_ids in _clean(loader, steps):
        found.replaced += len(work.replaced)
        places = np.searchsorted(known, batch_ids)
        labels = _targets(rows, places, targets.shape[1])
        differ = (targets.cpu().numpy() != labels).any(axis=1)
        wrong.append(
            np.select([differ, work.weights != weights[places]], ["label", "weight"], "")
        )
        cells.append(_means(images.cpu()).numpy())
        ids.append(batch_ids)
    all_ids = np.concatenate(ids)
    seen, inverse = np.unique(all_ids, return_inverse=True)
    expected = _cells(loader, seen)[inverse]
    # a comparison that a missing image, NaN, does not pass
    far = ~(np.abs(np.concatenate(cells) - expected).max(axis=1) <= _TOLERANCE)
    mislabeled = np.concatenate(wrong)
    for slot in np.flatnonzero((mislabeled != "") | far).tolist():
        what = mislabeled[slot] or "image"
        found.errors.append(f"sample_id {all_ids[slot]}: its {what} is another's")
    found.samples, found.images = len(all_ids), len(seen)
    return found


_Found = tuple[Work, Tensor, Tensor, npt.NDArray[np.int64]]


def _clean(loader: Verifiable, steps: int) -> Iterator[_Found]:
    """Yield what the loader's own way gives without noise."""
    works: dict[int, Work] = {}

    def work(step: int) -> Work:
        if step >= steps:
            raise StopIteration
        samples, replaced = loader.samples(step)
        windows = center_windows(samples.widths, samples.heights, loader.format.crop_pct)
        works[step] = work_of(samples, windows, loader.format, None, replaced)
        return works[step]

    spec = loader.spec(work, noisy=False, first_step=0)
    for step, (images, targets, ids) in enumerate(run_backend(loader.backend, spec)):
        yield works.pop(step), images, targets, ids.cpu().numpy()


def _rows(view: View) -> pa.Table:
    dataset = view.store.table("view_rows").dataset_of(view.shards())
    return dataset.to_table(columns=list(_LABELS)).sort_by("sample_id").combine_chunks()


def _targets(
    rows: pa.Table, places: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.float32]:
    taken = rows.take(pa.array(places)).combine_chunks()
    targets = np.zeros((len(places), num_classes), np.float32)
    pseudo = pc.equal(taken["kind"], "pseudo").to_numpy()
    if pseudo.any():
        soft = taken["label"].filter(pa.array(pseudo)).combine_chunks()
        targets[pseudo] = decode(soft, num_classes)
    hard = np.flatnonzero(~pseudo)
    targets[hard, taken["class_id"].fill_null(-1).to_numpy()[hard]] = 1
    return targets


def _cells(loader: Verifiable, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the means of the cells of images, float32 [ids, cells], by another way.

    NaN for those that the store does not have or cannot decode.
    """
    spec = loader.spec(_never, noisy=False, first_step=0)
    cells = np.full((len(ids), spec.format.channels * _CELLS**2), np.nan, np.float32)
    table = loader.view.store.table("images")
    scanner = table.dataset(loader.view.record.pins["images"]).scanner(
        columns=[*IMAGE_COLUMNS, "width", "height"],
        filter=(pc.field("verdict") == ACCEPTED) & pc.field("sample_id").isin(pa.array(ids)),
        batch_size=_BATCH_ROWS,
    )
    for batch in scanner.to_batches():
        if batch.num_rows:
            places = np.searchsorted(ids, batch["sample_id"].to_numpy())
            cells[places] = _rendered(batch, spec, Shrink.of(loader.view.record))
    return cells


def _rendered(
    batch: pa.RecordBatch, spec: BackendSpec, shrink: Shrink | None
) -> npt.NDArray[np.float32]:
    widths, heights = batch["width"].to_numpy().copy(), batch["height"].to_numpy().copy()
    encoded = image_bytes(batch, tolerant=True).to_pylist()
    for row, data in enumerate(encoded):
        if shrink is not None and data is not None:
            encoded[row], widths[row], heights[row] = _shrunk(
                data, int(widths[row]), int(heights[row]), shrink
            )
    samples = Samples(
        rows=np.arange(len(encoded)),
        encoded=[np.frombuffer(data or b"", np.uint8) for data in encoded],
        intact=np.ones(len(encoded), np.bool_),
        targets=np.zeros((len(encoded), 1), np.float32),
        weights=np.ones(len(encoded), np.float32),
        sample_ids=batch["sample_id"].to_numpy(),
        widths=widths,
        heights=heights,
    )
    windows = center_windows(widths, heights, spec.format.crop_pct)
    work = work_of(samples, windows, spec.format)
    from plstore.loaders.torch import paint  # it brings timm, which few need

    size = spec.format.size
    pixels = torch.full((len(encoded), size, size, spec.format.channels), float("nan"))
    for slot, data in enumerate(encoded):
        with suppress(StoreError):  # stays NaN
            if data:
                pixels[slot] = torch.from_numpy(paint(work, slot, spec).copy())
    return _means(pixels.permute(0, 3, 1, 2)).numpy()


def _shrunk(data: bytes, width: int, height: int, shrink: Shrink) -> tuple[bytes, int, int]:
    """Return an image as a view of such images has it, nothing where it cannot be decoded."""
    if max(width, height) <= shrink.max_side:
        return data, width, height
    with suppress(OSError, SyntaxError, ValueError):
        return shrink_image(data, width, height, shrink)
    return b"", width, height


def _means(images: Tensor) -> Tensor:
    means = torch.nn.functional.adaptive_avg_pool2d(images.float(), _CELLS)
    return means.flatten(1)


def _never(step: int) -> Work:
    raise AssertionError(f"step {step} of a spec that is only read")
