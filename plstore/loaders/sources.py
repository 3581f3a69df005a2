"""Where a loader reads a view: from its Arrow twin, or row groups of the store in sequence."""

from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Final, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.loaders.blocks import BlockTable, ViewFiles, find_blocks
from plstore.loaders.imageset import ROW_SCHEMA, ImageSet, open_view_images, rows_of_view
from plstore.loaders.order import GlobalStream, Stream, WindowedStream
from plstore.loaders.settings import check_choice, check_whole
from plstore.seeds import Purpose
from plstore.views import ReferencedImages, View

Shuffle = Literal["global", "windowed"]
Rows = npt.NDArray[np.int64]
_PURPOSES: Final = {False: Purpose.LABELED_ORDER, True: Purpose.PSEUDO_ORDER}
_READERS: Final = 2
_CACHED_GROUPS: Final = 3
_ARRAYS: Final = ("rows", "intact", "targets", "weights", "sample_ids", "widths", "heights")
_PLACES: Final = ["image_file", "image_row_group", "image_row"]


@dataclass(kw_only=True)
class Samples:
    """Rows of a view, as they were read; image and label of a sample stand at one place.

    Attributes:
        rows: int64 [samples], their numbers in the view.
        encoded: Encoded images.
        intact: bool [samples]: the image is there and has the hash that the store says.
        targets: float32 [samples, classes].
        weights: float32 [samples].
        sample_ids: int64 [samples].
        widths: int32 [samples], pixels.
        heights: int32 [samples], pixels.
    """

    rows: Rows
    encoded: list[npt.NDArray[np.uint8]]
    intact: npt.NDArray[np.bool_]
    targets: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    sample_ids: Rows
    widths: npt.NDArray[np.int32]
    heights: npt.NDArray[np.int32]

    def put(self, slots: npt.NDArray[np.intp], other: "Samples") -> None:
        """Replace the samples at some places."""
        for slot, encoded in zip(slots.tolist(), other.encoded, strict=True):
            self.encoded[slot] = encoded
        for name in _ARRAYS:
            getattr(self, name)[slots] = getattr(other, name)


class Source(Protocol):
    """Rows of a view by number."""

    num_labeled: int
    num_pseudo: int

    def stream(self, *, pseudo: bool, batch: int, seed: int) -> Stream:
        """Return the labeled or pseudo-labeled images as an endless stream."""

    def fetch(self, rows: Rows) -> Samples:
        """Read rows."""

    def keep(self, blocks: set[int]) -> None:
        """Begin to read these blocks, and forget all others."""

    def num_pixels(self) -> int | None:
        """Return the pixels of all images, None where they are not known."""


def open_source(view: View, shuffle: Shuffle, window: int) -> Source:
    """Return how a view is read.

    Args:
        view: The view.
        shuffle: "global" permutes all draws of a pass; rows come from the view's Arrow twin, a
            copy in the store's cache. "windowed" reads the store's row groups in sequence, in a
            random order, and permutes within windows: nothing is copied, and memory holds the
            encoded images of two windows of each stream.
        window: Draws of a window.

    Raises:
        InputError: If there is no such shuffle, or the window is too small.
    """
    check_choice("shuffle", shuffle, get_args(Shuffle))
    check_whole("window", window, low=1)
    if shuffle == "global":
        return TwinSource(open_view_images(view))
    return WindowSource(view, window)


class TwinSource:
    """Rows in any order, from memory-mapped Arrow."""

    def __init__(self, images: ImageSet) -> None:
        """Read from these images."""
        self.images = images
        self.num_pseudo = int(images.is_pseudo.sum())
        self.num_labeled = len(images) - self.num_pseudo

    def stream(self, *, pseudo: bool, batch: int, seed: int) -> Stream:
        """Return a stream in a global permutation."""
        rows = np.flatnonzero(self.images.is_pseudo == pseudo)
        return GlobalStream(
            rows, self.images.copies[rows], batch=batch, seed=seed, purpose=_PURPOSES[pseudo]
        )

    def fetch(self, rows: Rows) -> Samples:
        """Read rows."""
        return _samples(self.images, rows, rows)

    def keep(self, blocks: set[int]) -> None:
        """Nothing to do: the system keeps what is used."""

    def num_pixels(self) -> int | None:
        """Return the pixels of all images."""
        return int(self.images.widths.astype(np.int64) @ self.images.heights)


class WindowSource:
    """Row groups of the store, read ahead by threads and kept while their window lasts."""

    def __init__(self, view: View, window: int) -> None:
        """Read which blocks there are."""
        self._view, self._window = view, window
        self._files = ViewFiles(view)
        self._blocks: BlockTable = find_blocks(self._files)
        self._ends = np.append(self._blocks.starts[1:], self._files.starts[-1])
        self._num_classes = len(view.store.class_names)
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="plstore-read")
        self._held: dict[int, Future[ImageSet]] = {}
        self._lock, self._lock_groups = Lock(), Lock()
        self._groups = lru_cache(_CACHED_GROUPS)(self._read_group)
        sizes = self._ends - self._blocks.starts
        self.num_pseudo = int(sizes[self._blocks.is_pseudo].sum())
        self.num_labeled = int(sizes.sum()) - self.num_pseudo

    def stream(self, *, pseudo: bool, batch: int, seed: int) -> Stream:
        """Return a stream in a permutation of blocks and of windows of them."""
        blocks = self._blocks.of_kind(
            pseudo=pseudo, copies_a_window=max(self._window // max(batch, 1) - 1, 1)
        )
        return WindowedStream(
            blocks,
            batch=max(batch, 1),
            window=self._window,
            seed=seed,
            purpose=_PURPOSES[pseudo],
        )

    def fetch(self, rows: Rows) -> Samples:
        """Read rows; those of blocks that are kept are in memory."""
        numbers = np.searchsorted(self._blocks.starts, rows, side="right") - 1
        samples = Samples(
            rows=rows,
            encoded=[_NOTHING] * len(rows),
            intact=np.zeros(len(rows), np.bool_),
            targets=np.zeros((len(rows), self._num_classes), np.float32),
            weights=np.ones(len(rows), np.float32),
            sample_ids=np.zeros(len(rows), np.int64),
            widths=np.zeros(len(rows), np.int32),
            heights=np.zeros(len(rows), np.int32),
        )
        for number in np.unique(numbers).tolist():
            slots = np.flatnonzero(numbers == number)
            images = self._finished(number)
            local = rows[slots] - self._blocks.starts[number]
            samples.put(slots, _samples(images, local, rows[slots]))
        return samples

    def keep(self, blocks: set[int]) -> None:
        """Begin to read these blocks, and forget all others."""
        with self._lock:
            for number in set(self._held) - blocks:
                self._held.pop(number).cancel()
        for number in sorted(blocks):
            self._begin(number)

    def num_pixels(self) -> int | None:
        """Return None: nothing is read ahead of its window."""
        return None

    def _finished(self, number: int) -> ImageSet:
        """Return a block, read again once if its reading was called off or failed."""
        reading = self._begin(number)
        try:
            return reading.result()
        except (CancelledError, OSError):
            with self._lock:
                if self._held.get(number) is reading:
                    del self._held[number]
            return self._begin(number).result()

    def _begin(self, number: int) -> "Future[ImageSet]":
        with self._lock:
            if number not in self._held:
                self._held[number] = self._pool.submit(self._read, number)
            return self._held[number]

    def _read(self, number: int) -> ImageSet:
        group, start = int(self._blocks.groups[number]), int(self._blocks.starts[number])
        if self._files.by_reference:  # its row groups hold the rows of many blocks
            with self._lock_groups:
                rows = self._groups(group)
        else:
            rows = self._files.read(group, ROW_SCHEMA.names)
        rows = rows.slice(
            start - int(self._files.starts[group]), int(self._ends[number]) - start
        )
        (batch,) = rows.combine_chunks().to_batches()
        if self._files.by_reference:
            batch = batch.append_column("image", pa.nulls(batch.num_rows, pa.binary()))
            pins = self._view.record.pins["images"]
            batch = ReferencedImages(self._view.store, pins, tolerant=True).fill(batch)
        return ImageSet(pa.Table.from_batches([rows_of_view(batch)]), self._num_classes)

    def _read_group(self, group: int) -> pa.Table:
        columns = [name for name in ROW_SCHEMA.names if name != "image"]
        return self._files.read(group, columns + _PLACES)


def _samples(images: ImageSet, local: Rows, rows: Rows) -> Samples:
    encoded, intact = images.read(local)
    return Samples(
        rows=rows.copy(),
        encoded=encoded,
        intact=intact,
        targets=images.targets(local),
        weights=images.weights[local],
        sample_ids=images.sample_ids[local],
        widths=images.widths[local],
        heights=images.heights[local],
    )


_NOTHING: Final = np.empty(0, np.uint8)
