"""A packed view is written by one process or by many, as the same files.

Images are fetched part by part of ascending sample ids, shrunk if that is asked, and each part
is a file of its own, one image behind the other in the order of the view. Sizes are known then,
so the process that selects says which rows make a file of the view; that takes a piece of each
part. Images are read once, and their bytes need not go through one process.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import numpy as np
import pyarrow as pa

from plstore import storage
from plstore.store import open as open_store
from plstore.views.fetching import HEADER, FetchImages, Part, Parts, with_images
from plstore.views.shrinking import Shrink
from plstore.views.writing import PIECE_ROWS, Written, in_files, write_file

if TYPE_CHECKING:
    from plstore.store import Store
    from plstore.views.view import ViewRecord

_PIECE_BYTES = 1 << 30  # a column of images holds less than 2 GiB


class Engine(Protocol):
    """Who does work, as the engines of `trainers.engines` are."""

    @property
    def is_here(self) -> bool:
        """Whether work is done in this process."""

    def connected(self) -> AbstractContextManager[None]:
        """Hold on to what the engine runs on, for several calls of `run`."""

    def run(
        self,
        work: Any,  # noqa: ANN401  `FetchImages` or `PackFiles`
        tasks: Sequence[Any],
        on_images: Callable[[int], None],
    ) -> Iterable[Any]:
        """Yield what comes of each task, once, in any order."""


class _Here:
    """Does work in this process."""

    is_here: ClassVar[bool] = True

    def connected(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(
        self,
        work: Any,  # noqa: ANN401  as of `Engine`
        tasks: Sequence[Any],
        on_images: Callable[[int], None],
    ) -> Iterable[Any]:
        return map(work.open(on_images), tasks)


HERE: Final = _Here()


@dataclass(frozen=True, kw_only=True)
class PackFiles:
    """Writes files of a view from rows and parts that are there, for whoever opens it.

    Attributes:
        store: Its place.
        folder: Where rows and parts are.
        view: Its name.
        version: Of the view.
        identity: Of the view.
    """

    store: str
    folder: str
    view: str
    version: int
    identity: str

    device: ClassVar[str] = "cpu"

    def open(self, on_images: Callable[[int], None]) -> Callable[[int], Written]:
        """Open the store; what is returned writes the file of a number."""
        del on_images  # counted as they are fetched
        store, folder = open_store(self.store), storage.location(self.folder)

        def pack(number: int) -> Written:
            rows = pa.ipc.open_stream(_rows_of(folder, number).read_bytes()).read_all()
            name = f"{self.identity}-{number:06d}"
            return write_file(store, self.view, self.version, name, with_images(folder, rows))

        return pack


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How images come into a view.

    Attributes:
        store: The store.
        images_version: Of `images`.
        seed: Of the view's order.
        shrink: To what images are shrunk, if they are.
        folder: For what lives as long as the selection; all who do work see it.
        engine: Who does work.
        on_images: Called with the number of images just fetched.
    """

    store: "Store"
    images_version: int
    seed: int
    shrink: Shrink | None
    folder: Path
    engine: Engine
    on_images: Callable[[int], None]

    parts: Parts = field(default_factory=Parts)

    def write(self, record: "ViewRecord", tables: Iterable[Iterable[pa.Table]]) -> "Packed":
        """Write the files of a view; nothing names them yet.

        Args:
            record: Of the view.
            tables: By kind: rows that came through `parts.cut`, in the order of the view.
        """
        begun = [_begun(iter(each)) for each in tables]  # all rows are cut then
        with self.engine.connected():
            num_shrunk = self._fetch()
            written = list(self._pack(record, begun))
        return Packed(written=written, num_shrunk=num_shrunk)

    def _pack(
        self, record: "ViewRecord", tables: Iterable[Iterator[pa.Table]]
    ) -> Iterable[Written]:
        """Say which rows make a file, and let the files be written."""
        pieces = (
            piece for table in chain.from_iterable(tables) for piece in self._pieces(table)
        )
        count = 0
        for count, rows in enumerate(in_files(pieces), 1):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, rows.schema) as stream:
                for batch in rows.to_batches():
                    stream.write_batch(batch)
            data = memoryview(sink.getvalue())
            storage.write_atomically(_rows_of(self.folder, count - 1), data, lasting=False)
        work = PackFiles(
            store=str(self.store.root),
            folder=str(self.folder),
            view=record.view,
            version=record.version,
            identity=record.identity,
        )
        return self._done(work, range(count))

    def _fetch(self) -> int:
        """Fetch all parts; return how many images were shrunk."""
        work = FetchImages(
            store=str(self.store.root),
            version=self.images_version,
            seed=self.seed,
            shrink=self.shrink,
            folder=str(self.folder),
        )
        fetched = []
        for each in self._done(work, self.parts.all()):
            fetched.append(each)
            if not self.engine.is_here:
                self.on_images(len(each.sizes))
        self.parts.found(fetched)
        return sum(each.num_shrunk for each in fetched)

    def _done(
        self, work: FetchImages | PackFiles, tasks: Sequence[Part] | Sequence[int]
    ) -> Iterable[Any]:
        if not tasks:
            return ()
        return self.engine.run(work, tasks, self.on_images)

    def _pieces(self, table: pa.Table) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield pieces with the bytes that they have once they have their images."""
        for batch in table.to_batches(max_chunksize=PIECE_ROWS):
            own = batch.drop_columns(["part"]).nbytes
            placed = self.parts.placed(batch)
            sizes = placed["size"].to_numpy() - HEADER.size
            steps = np.cumsum(sizes) // _PIECE_BYTES
            for step in np.unique(steps):
                (here,) = np.nonzero(steps == step)
                piece = placed.slice(here[0], len(here))
                yield piece, own * len(here) // len(sizes) + int(sizes[here].sum())


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What was written.

    Attributes:
        written: The files, in any order.
        num_shrunk: Images that were shrunk.
    """

    written: Sequence[Written]
    num_shrunk: int


def _begun(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    first = next(tables, None)
    return iter(()) if first is None else chain([first], tables)


def _rows_of(folder: Path, number: int) -> Path:
    return folder / f"rows-{number:06d}"
