"""What images there are, and on what machine: looked at before anything is done."""

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image

from plstore.errors import InputError
from plstore.exchange import Source
from plstore.images import IMAGE_COLUMNS, ImageRecord, image_bytes
from plstore.machine import memory_bytes, num_cores
from plstore.schema import ACCEPTED, EVALUATION
from plstore.store import Store

_SAMPLED: Final = 64
_GRAY: Final = frozenset({"1", "L", "LA", "I;16"})


@dataclass(frozen=True, kw_only=True)
class Census:
    """The images of a source, a sample of them opened, none decoded.

    Attributes:
        splits: Images by split.
        class_names: The label space.
        least: The labeled images of the class that has fewest, validation left out.
        width: Median of the sample, in pixels.
        height: The same.
        channels: 1 if all of the sample are grayscale, else 3.
        num_unread: Of the sample, those that could not be opened.
        num_looked: The sample.
        ignored: What else is in the folders and no image, by kind.
    """

    splits: dict[str, int]
    class_names: Sequence[str]
    least: int
    width: int
    height: int
    channels: int
    num_unread: int = 0
    num_looked: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def side(self) -> int:
        """The shorter side, in pixels."""
        return min(self.width, self.height)

    @property
    def num_images(self) -> int:
        """All images that a model sees: to learn, to be labeled, to be evaluated."""
        return sum(self.splits.values())

    def __str__(self) -> str:
        """Say it in a line."""
        counts = [
            f"{self.splits[split]:,} {split}"
            for split in ("labeled", "validation", "unlabeled", "test")
            if self.splits.get(split)
        ]
        colour = "grayscale" if self.channels == 1 else "colour"
        names = f"{len(self.class_names)} classes, at least {self.least} labeled in each"
        size = f"{self.width} x {self.height} px, {colour}"
        return "; ".join([", ".join(counts), names, size, *self._others()])

    def _others(self) -> Iterator[str]:
        """Yield what is said of files that are no images, or may be none."""
        if self.num_unread:
            looked = f"{self.num_looked} that were looked at"
            yield f"{self.num_unread} of {looked} could not be opened"
        if self.ignored:
            total = sum(self.ignored.values())
            kinds = ", ".join(f"{kind} {number}" for kind, number in self.ignored.items())
            are = "1 file is no image" if total == 1 else f"{total:,} files are no images"
            yield f"{are}: {kinds}"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What work is done on.

    Attributes:
        device: "cpu" or a CUDA device.
        cores: That this process may use.
        memory: Bytes.
        gpu: Its name, if there is one.
        load: Processes that run or wait to, on average over the last minute.
    """

    device: str
    cores: int
    memory: int
    gpu: str | None = None
    load: float = 0.0

    def __str__(self) -> str:
        """Say it in a line."""
        on = self.gpu or "no GPU"
        cores = f"{self.cores} core{'' if self.cores == 1 else 's'}"
        busy = f"; busy: {self.load:.1f} wait for them, so it takes longer than is said here"
        said = busy if self.load > self.cores else ""
        return f"{cores}, {self.memory / 1e9:.0f} GB of memory, {on}{said}"


def look_at_machine(device: str) -> Machine:
    """Return what a device's machine has."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return Machine(
        device=device,
        cores=num_cores(),
        memory=memory_bytes(),
        gpu=gpu,
        load=os.getloadavg()[0],
    )


def look_at_images(source: Source) -> Census:
    """Return what images there are; headers of up to 64, spread evenly, say their sizes.

    Raises:
        InputError: If none of the sample is an image.
    """
    labeled: Counter[str | None] = Counter()
    looks = _Looks()
    step = max(-(-source.num_images // _SAMPLED), 1)
    for number, record in enumerate(source.records()):
        labeled[record.label] += record.split == "labeled"
        if number % step == 0:
            looks.take(partial(_opened, record))
    if not looks.sizes:
        raise InputError(
            f"none of {looks.unread} files of {source.dataset!r} that were looked at is an "
            "image; wanted folders of JPEG, PNG or WebP"
        )
    return looks.census(source, [labeled[name] for name in source.class_names])


def look_at_store(store: Store, source: Source) -> Census:
    """Return what images a store has; headers of up to 64, spread evenly, say their sizes.

    Args:
        store: The store.
        source: Its images, as `open_source` returns them for a recipe of a store.

    Raises:
        InputError: If none of the sample can be opened: their files are elsewhere.
    """
    table = store.table("images")
    accepted = (pc.field("verdict") == ACCEPTED) & (pc.field("split") != EVALUATION)
    is_labeled = accepted & (pc.field("split") == "labeled")
    labels = table.read(columns=["label"], where=is_labeled)["label"].to_numpy()
    spread = np.linspace(0, store.next_sample_id() - 1, _SAMPLED).round().astype(np.int64)
    is_sampled = accepted & pc.field("sample_id").isin(pa.array(np.unique(spread)))
    rows = table.read(columns=list(IMAGE_COLUMNS), where=is_sampled)
    looks = _Looks()
    for batch in rows.to_batches():
        for data in image_bytes(batch, tolerant=True).to_pylist():
            looks.take(partial(io.BytesIO, data or b""))
    if not looks.sizes:
        raise InputError(
            f"none of {looks.unread} images of {store.root} that were looked at can be opened; "
            "bring back the files that were left in place, or import them with --packed"
        )
    return looks.census(source, np.bincount(labels, minlength=len(source.class_names)).tolist())


class _Looks:
    """What is seen of a sample of images."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.unread = 0
        self._modes: set[str] = set()

    def take(self, opened: Callable[[], str | io.BytesIO]) -> None:
        """Look at one image, its header alone."""
        try:
            with Image.open(opened()) as image:
                self.sizes.append(image.size)
                self._modes.add(image.mode)
        except (OSError, Image.DecompressionBombError):
            self.unread += 1

    def census(self, source: Source, labeled: Sequence[int]) -> Census:
        """Return what there is, given the labeled images of each class."""
        width, height = np.median(np.array(self.sizes), axis=0).astype(int).tolist()
        return Census(
            splits={split: count for split, count in source.splits.items() if count},
            class_names=source.class_names,
            least=min(labeled, default=0),
            width=width,
            height=height,
            channels=1 if self._modes <= _GRAY else 3,
            num_unread=self.unread,
            num_looked=len(self.sizes) + self.unread,
            ignored=source.ignored,
        )


def _opened(record: ImageRecord) -> str | io.BytesIO:
    place = record.place
    return place if place and "://" not in place else io.BytesIO(record.data)
