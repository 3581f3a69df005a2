"""Blocks: rows of a view whose images stand together in one Parquet row group, read at once."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from plstore import storage
from plstore.store import Shard
from plstore.views import View, split_by_size

_PLACES: Final = ("image_file", "image_row_group")
_CACHED_GROUPS: Final = 8


class ViewFiles:
    """The Parquet files of a view's rows, read by row group."""

    def __init__(self, view: View) -> None:
        """Read the footers: rows by row group."""
        self._root = view.store.table("view_rows").root
        self._filesystem = storage.arrow_filesystem(self._root)
        self.by_reference = view.record.mode == "reference"
        self.shards = view.shards()
        self.groups: list[tuple[Shard, int]] = []
        counts: list[int] = []
        for shard in self.shards:
            with self._open(shard) as file:
                for index in range(file.num_row_groups):
                    self.groups.append((shard, index))
                    counts.append(file.metadata.row_group(index).num_rows)
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.copies = lru_cache(_CACHED_GROUPS)(self._read_copies)

    def read(self, group: int, columns: list[str]) -> pa.Table:
        """Return some columns of a row group; columns that older files lack are left out."""
        shard, index = self.groups[group]
        with self._open(shard) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            return file.read_row_group(index, columns=there)

    def _open(self, shard: Shard) -> pq.ParquetFile:
        path = storage.arrow_path(str(self._root / shard.path))
        return pq.ParquetFile(path, filesystem=self._filesystem)

    def _read_copies(self, group: int) -> npt.NDArray[np.int32]:
        return np.asarray(self.read(group, ["copies"])["copies"].to_numpy(), np.int32)


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The blocks of one kind of a view's rows, an entry for each time one is read in a pass.

    Attributes:
        files: Where they are.
        group: int64 [entries], the row group of the view's files, counted through them.
        block: int64 [entries], number of the block, counted through the view.
        start: int64 [entries], number of its first row in the view.
        num_rows: int64 [entries].
        part: int64 [entries], which reading of the block in a pass, from 0.
        parts: int64 [entries], how often it is read in a pass.
        draws: int64 [entries], draws of this reading.
        num_groups: Row groups of the view.
    """

    files: ViewFiles
    group: npt.NDArray[np.int64]
    block: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    num_rows: npt.NDArray[np.int64]
    part: npt.NDArray[np.int64]
    parts: npt.NDArray[np.int64]
    draws: npt.NDArray[np.int64]
    num_groups: int

    def rows_of(
        self, entries: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Return the numbers of the rows of entries, and how often each is drawn in them."""
        rows, copies = [], []
        for entry in entries.tolist():
            first, count = int(self.start[entry]), int(self.num_rows[entry])
            group = int(self.group[entry])
            offset = first - int(self.files.starts[group])
            here = self.files.copies(group)[offset : offset + count]
            rows.append(np.arange(first, first + count))
            copies.append(copies_in_part(here, int(self.part[entry]), int(self.parts[entry])))
        return np.concatenate(rows), np.concatenate(copies)


def copies_in_part(
    copies: npt.NDArray[np.int32], part: int, parts: int
) -> npt.NDArray[np.int32]:
    """Return how many of the copies fall to one of several readings."""
    return (copies - part + parts - 1) // parts


@dataclass(frozen=True)
class BlockTable:
    """All blocks of a view: where each begins, in which row group, of which kind."""

    files: ViewFiles
    starts: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    is_pseudo: npt.NDArray[np.bool_]

    def of_kind(self, *, pseudo: bool, copies_a_window: int) -> Blocks:
        """Return the blocks of labeled or pseudo-labeled rows.

        Args:
            pseudo: Which.
            copies_a_window: Most copies of one image that a window can hold apart; a block with
                an image of more is read several times in a pass.
        """
        columns: dict[str, list[int]] = {name: [] for name in _ENTRY}
        ends = np.append(self.starts[1:], self.files.starts[-1])
        for number in np.flatnonzero(self.is_pseudo == pseudo).tolist():
            group = int(self.groups[number])
            offset = int(self.files.starts[group])
            copies = self.files.copies(group)
            parts = max(-(-int(copies.max(initial=1)) // copies_a_window), 1)
            here = copies[int(self.starts[number]) - offset : int(ends[number]) - offset]
            for part in range(parts):
                draws = int(copies_in_part(here, part, parts).sum())
                if draws:
                    values = (group, number, int(self.starts[number]), len(here))
                    for name, value in zip(_ENTRY, (*values, part, parts, draws), strict=True):
                        columns[name].append(value)
        arrays = {name: np.array(values, np.int64) for name, values in columns.items()}
        return Blocks(files=self.files, num_groups=len(self.files.groups), **arrays)


_ENTRY: Final = ("group", "block", "start", "num_rows", "part", "parts", "draws")


def find_blocks(files: ViewFiles) -> BlockTable:
    """Return the blocks of a view: its row groups or, by reference, those of its images."""
    starts, groups, kinds = [], [], []
    columns = ["kind", *(_PLACES if files.by_reference else ())]
    sizes = ["width", "height"] if files.by_reference else []
    for group, first in enumerate(files.starts[:-1].tolist()):
        rows = files.read(group, columns + sizes)
        changes = np.zeros(rows.num_rows, np.bool_)
        changes[0] = True
        for name in columns:
            values = rows[name].combine_chunks()
            codes = values.dictionary_encode().indices if name != _PLACES[1] else values
            changes[1:] |= np.diff(codes.to_numpy()) != 0
        begins = np.flatnonzero(changes)
        if files.by_reference:
            begins = _split(begins, rows)
        kind = rows["kind"].take(pa.array(begins)).to_pylist()
        starts += (first + begins).tolist()
        groups += [group] * len(begins)
        kinds += [name == "pseudo" for name in kind]
    return BlockTable(
        files, np.array(starts, np.int64), np.array(groups, np.int64), np.array(kinds, np.bool_)
    )


def _split(begins: npt.NDArray[np.intp], rows: pa.Table) -> npt.NDArray[np.intp]:
    """Cut runs of rows whose images are too large to be read at once.

    A row group of images that stay in place holds thousands of paths, however large the files.
    """
    widths, heights = rows["width"].to_numpy(), rows["height"].to_numpy()
    ends = [*begins[1:].tolist(), rows.num_rows]
    cut: list[int] = []
    for begin, end in zip(begins.tolist(), ends, strict=True):
        cut += [begin + start for start in split_by_size(widths[begin:end], heights[begin:end])]
    return np.array(cut, np.intp)
