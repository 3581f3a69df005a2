"""Images on their way into a packed view: parts by sample id, left in the order of the view."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore import storage
from plstore.errors import StoreError
from plstore.store import open as open_store
from plstore.views.attaching import attach_images
from plstore.views.shrinking import Shrink, Shrinking
from plstore.views.shuffle import order_of

HEADER: Final = Struct("<qii32s")
"""Before the bytes of an image in a part's file: sample id, width, height, hash."""

_PART_BYTES = 64 << 20
_LEAST_BYTES: Final = 512  # that an image counts for
_READS_AT_ONCE: Final = 16
_PLACES: Final = ("part", "offset", "size")
_SEEN: Final = ("sample_id", "width", "height", "image_hash", "image")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Images that are fetched together.

    Attributes:
        number: Of the part.
        ids: int64 [images], ascending.
    """

    number: int
    ids: npt.NDArray[np.int64] = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A part whose file is there.

    Attributes:
        number: Of the part.
        sizes: int64 [images]: bytes of each in the file, with its header, in their order there.
        num_shrunk: How many were shrunk.
    """

    number: int
    sizes: npt.NDArray[np.int64]
    num_shrunk: int


class Parts:
    """Deals images to parts, and says afterwards where in them they are."""

    def __init__(self) -> None:
        """Begin with the first part."""
        self._ids: list[list[npt.NDArray[np.int64]]] = []
        self._sizes: list[npt.NDArray[np.int64]] = []
        self._ends: list[npt.NDArray[np.int64]] = []
        self._next: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def cut(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield rows with the number of their part in place of `num_bytes`.

        Each is a group of its own.

        Args:
            batches: With `sample_id`, ascending, `group` and `num_bytes`.
        """
        first, before = len(self._ids), 0
        for rows in batches:
            ids = rows["sample_id"].to_numpy()
            sizes = rows["num_bytes"].fill_null(0).to_numpy() + _LEAST_BYTES
            starts = before + np.cumsum(sizes) - sizes
            numbers = first + starts // _PART_BYTES
            before += int(sizes.sum())
            for number in np.unique(numbers).tolist():
                self._ids += [[] for _ in range(len(self._ids), number + 1)]
                self._ids[number].append(ids[numbers == number])
            without = rows.drop_columns(["num_bytes", "group"])
            columns = {name: without[name] for name in without.schema.names}
            yield pa.record_batch({**columns, "part": numbers, "group": rows["sample_id"]})

    def all(self) -> list[Part]:
        """Return the parts that there are."""
        return [
            Part(number=number, ids=np.concatenate(ids))
            for number, ids in enumerate(self._ids)
            if ids
        ]

    def found(self, fetched: Iterable[Fetched]) -> None:
        """Take in where images of all parts are."""
        none = np.zeros(0, np.int64)
        self._sizes = [none] * len(self._ids)
        for each in fetched:
            self._sizes[each.number] = each.sizes
        self._ends = [np.cumsum(sizes) for sizes in self._sizes]
        self._next = np.zeros(len(self._ids), np.int64)

    def placed(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the next rows of the view with `offset` and `size` in the files of parts."""
        numbers = rows["part"].to_numpy()
        offsets, sizes = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int64)
        for number in np.unique(numbers).tolist():
            (here,) = np.nonzero(numbers == number)
            start = int(self._next[number])
            taken = slice(start, start + len(here))
            sizes[here] = self._sizes[number][taken]
            offsets[here] = self._ends[number][taken] - sizes[here]
            self._next[number] += len(here)
        return rows.append_column("offset", pa.array(offsets)).append_column(
            "size", pa.array(sizes)
        )


@dataclass(frozen=True, kw_only=True)
class FetchImages:
    """Fetches images of a store part by part, for whoever opens it.

    Attributes:
        store: Its place.
        version: Of `images`.
        seed: Of the view's order.
        shrink: To what images are shrunk, if they are.
        folder: Where files of parts are put.
    """

    store: str
    version: int
    seed: int
    shrink: Shrink | None
    folder: str

    device: ClassVar[str] = "cpu"

    def open(self, on_images: Callable[[int], None]) -> Callable[[Part], Fetched]:
        """Open the store; what is returned fetches a part."""
        store, folder = open_store(self.store), storage.location(self.folder)
        shards = store.table("images").shards(self.version)

        def fetch(part: Part) -> Fetched:
            first, last = part.ids[0], part.ids[-1]
            near = [s for s in shards if s.first_id <= last and s.last_id >= first]
            asked = [pa.record_batch({"sample_id": part.ids})]
            rows = attach_images(store, asked, version=self.version, mode="packed", among=near)
            shrinking = None if self.shrink is None else Shrinking(self.shrink)
            seen = rows if shrinking is None else shrinking.of(rows)
            images = list(_with_headers(seen, on_images))
            order = order_of(part.ids, part.ids, self.seed)
            data = b"".join(images[row] for row in order)
            storage.write_atomically(_file(folder, part.number), data, lasting=False)
            return Fetched(
                number=part.number,
                sizes=np.array([len(image) for image in images], np.int64)[order],
                num_shrunk=0 if shrinking is None else shrinking.num_shrunk,
            )

        return fetch


def _with_headers(
    batches: Iterable[pa.RecordBatch], on_images: Callable[[int], None]
) -> Iterator[bytes]:
    for rows in batches:
        for *numbers, name, image in zip(*(rows[n].to_pylist() for n in _SEEN), strict=True):
            yield HEADER.pack(*numbers, name.encode()) + image
        on_images(rows.num_rows)


def with_images(folder: Path, rows: pa.Table) -> pa.Table:
    """Return rows with the images, sides and hashes that lie where `Parts.placed` says.

    Raises:
        StoreError: If a part is not there, or holds another image.
    """
    pieces = _pieces(folder, *(rows[name].to_numpy() for name in _PLACES))
    return pa.Table.from_batches([_filled(batch, pieces) for batch in rows.to_batches()])


_Pieces = dict[int, tuple[int, memoryview]]
"""By part, where a piece of it begins, and the bytes."""


def _pieces(
    folder: Path,
    parts: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
) -> _Pieces:
    """Read what some rows need: in each part they stand one behind the other."""
    numbers, first = np.unique(parts, return_index=True)
    _, last = np.unique(parts[::-1], return_index=True)
    starts = offsets[first]
    ends = (offsets + sizes)[::-1][last]
    paths = [_file(folder, number) for number in numbers.tolist()]
    try:
        with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
            found = pool.map(storage.read_range, paths, starts.tolist(), ends.tolist())
            data = [memoryview(piece) for piece in found]
    except FileNotFoundError as error:
        raise StoreError(
            f"a file in {folder} was deleted while it was needed, by 'plstore gc' with too "
            "short a grace? Nothing was committed; run the same command again"
        ) from error
    return dict(zip(numbers.tolist(), zip(starts.tolist(), data, strict=True), strict=True))


def _filled(rows: pa.RecordBatch, pieces: _Pieces) -> pa.RecordBatch:
    found: list[tuple[int, int, str, memoryview]] = []
    names = ("sample_id", *_PLACES)
    for sample_id, part, offset, size in zip(
        *(rows[name].to_pylist() for name in names), strict=True
    ):
        start, piece = pieces[part]
        record = piece[offset - start : offset - start + size]
        there, width, height, name = HEADER.unpack_from(record)
        if there != sample_id:
            raise StoreError(
                f"part {part} of a selection holds image {there} in place of {sample_id}; "
                "nothing was committed. Run the same command again"
            )
        found.append((width, height, name.decode(), record[HEADER.size :]))
    columns = {name: rows[name] for name in rows.schema.names if name not in _PLACES}
    for name, values in zip(_SEEN[1:], zip(*found, strict=True), strict=True):
        columns[name] = pa.array(values, rows.schema.field(name).type)
    return pa.record_batch(columns)


def _file(folder: Path, number: int) -> Path:
    return folder / f"images-{number:06d}"
