"""In which order the images of a view are drawn: endless streams, pass after pass.

A pass draws every image as often as its `copies` say. The copies of an image are spread evenly
over the pass (or over a window of it), and what still meets in one batch is moved apart, so
that two copies of a pass share a batch only where there are more copies than batches. A global
permutation of three batches or more also keeps images apart where one pass follows another. The
order is a function of (seed, position): nothing is remembered.
"""

from functools import lru_cache
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from plstore.loaders.blocks import Blocks
from plstore.seeds import Purpose, generator

Rows = npt.NDArray[np.int64]
_CACHED_PASSES: Final = 2
_CACHED_WINDOWS: Final = 4
_ATTEMPTS: Final = 64
_SAFE_DISTANCE: Final = 64  # batches between two copies, beyond which chance cannot join them


class Stream(Protocol):
    """An endless stream of rows of a view."""

    draws_per_pass: int

    def take(self, start: int, count: int) -> Rows:
        """Return the rows at positions `start` to `start + count`, as their numbers."""

    def blocks_near(self, start: int, count: int) -> set[int]:
        """Return the blocks that these positions need, and those that come next."""


class GlobalStream:
    """A permutation of all draws for each pass. Needs rows that can be read in any order.

    Memory: up to four permutations of 4 bytes a draw (8 above 2 billion images), 16 times that
    while one is made.
    """

    def __init__(
        self,
        rows: Rows,
        copies: npt.NDArray[np.int32],
        *,
        batch: int,
        seed: int,
        purpose: Purpose,
    ) -> None:
        """Name the rows, how often a pass draws each, and how many draws a batch has."""
        self._rows, self._copies, self._batch = rows, copies, batch
        self._seed, self._purpose = seed, purpose
        self.draws_per_pass = int(copies.sum())
        self._pass = lru_cache(_CACHED_PASSES)(self._make_pass)
        self._inner = lru_cache(_CACHED_PASSES)(self._make_inner)

    def take(self, start: int, count: int) -> Rows:
        """Return rows by position."""
        positions = np.arange(start, start + count)
        passes, places = np.divmod(positions, self.draws_per_pass)
        taken = np.empty(count, np.int64)
        for number in np.unique(passes).tolist():
            here = passes == number
            taken[here] = self._rows[self._pass(number)[places[here]]]
        return taken

    def blocks_near(self, start: int, count: int) -> set[int]:  # noqa: ARG002  a protocol's
        """Return nothing: rows are read one by one."""
        return set()

    def _make_inner(self, number: int) -> Rows:
        random = generator(self._seed, self._purpose, number)
        order = spread(self._copies, random)
        return part_copies(
            order, self._copies, batch=self._batch, at=number * len(order), random=random
        )

    def _make_pass(self, number: int) -> Rows:
        """Return a pass, whose first draws avoid the images that end the pass before it."""
        order = self._inner(number)
        total, batch = len(order), self._batch
        shared = number * total % batch
        if not number or not shared or total < 3 * batch:
            return order
        order = order.copy()
        tail = set(self._inner(number - 1)[-shared:].tolist())
        head = batch - shared
        last_full = total - (number + 1) * total % batch
        batches = (last_full - head) // batch
        random = generator(self._seed, self._purpose, number, 1)
        for place in range(head):
            if order[place] not in tail:
                continue
            for _ in range(_ATTEMPTS):
                first = head + int(random.integers(batches)) * batch
                other = first + int(random.integers(batch))
                mine, theirs = order[place], order[other]
                taken = theirs in tail or theirs in order[:head]
                if not taken and mine not in order[first : first + batch]:
                    order[place], order[other] = theirs, mine
                    break
        return order


class WindowedStream:
    """Blocks of rows in a random order, and a permutation within windows of them.

    For rows that are read from Parquet in sequence. The copies of an image are drawn in one
    window; where it has more copies than a window has batches, its block is read in several
    windows of a pass.
    """

    def __init__(
        self, blocks: Blocks, *, batch: int, window: int, seed: int, purpose: Purpose
    ) -> None:
        """Name the blocks, draws a batch, and draws a window."""
        self._blocks, self._batch, self._window_draws = blocks, batch, window
        self._seed, self._purpose = seed, purpose
        self.draws_per_pass = int(blocks.draws.sum())
        self._plan = lru_cache(_CACHED_PASSES)(self._make_plan)
        self._window = lru_cache(_CACHED_WINDOWS)(self._make_window)

    def take(self, start: int, count: int) -> Rows:
        """Return rows by position."""
        parts: list[Rows] = []
        while count:
            number, place = divmod(start, self.draws_per_pass)
            starts = self._plan(number)[2]
            index = int(np.searchsorted(starts, place, side="right")) - 1
            rows = self._window(number, index)
            offset = place - int(starts[index])
            part = rows[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def blocks_near(self, start: int, count: int) -> set[int]:
        """Return the blocks of the windows that these positions touch, and of the next one."""
        near: set[int] = set()
        if not count:
            return near
        end = start + count - 1
        number, place = divmod(start, self.draws_per_pass)
        index = int(np.searchsorted(self._plan(number)[2], place, side="right")) - 1
        while True:
            order, _, starts = self._plan(number)
            near.update(self._blocks.block[order[self._entries(number, index)]].tolist())
            if number * self.draws_per_pass + int(starts[index]) > end:
                return near
            index += 1
            if index == len(starts) - 1:
                number, index = number + 1, 0

    def _make_plan(self, number: int) -> tuple[Rows, Rows, Rows]:
        """Return the order of the entries, their ends, and where windows start and end."""
        blocks = self._blocks
        random = generator(self._seed, self._purpose, number)
        offsets = random.random(blocks.num_groups)[blocks.group]
        keys = (offsets + blocks.part / blocks.parts) % 1
        order = np.lexsort((random.random(len(keys)), blocks.group, keys))
        ends = np.cumsum(blocks.draws[order])
        windows = (ends - blocks.draws[order]) // self._window_draws
        firsts = np.flatnonzero(np.diff(windows, prepend=-1))
        starts = np.concatenate([(ends - blocks.draws[order])[firsts], ends[-1:]])
        return order, ends, starts

    def _entries(self, number: int, index: int) -> slice:
        _, ends, starts = self._plan(number)
        first = int(np.searchsorted(ends, starts[index], side="right"))
        return slice(first, int(np.searchsorted(ends, starts[index + 1], side="left")) + 1)

    def _make_window(self, number: int, index: int) -> Rows:
        order, _, starts = self._plan(number)
        rows, copies = self._blocks.rows_of(order[self._entries(number, index)])
        if len(np.unique(rows)) < len(rows):  # two readings of a block in one window
            rows, inverse = np.unique(rows, return_inverse=True)
            copies = np.bincount(inverse, weights=copies).astype(np.int32)
        random = generator(self._seed, self._purpose, number, index, 1)
        at = number * self.draws_per_pass + int(starts[index])
        places = spread(copies, random)
        return rows[part_copies(places, copies, batch=self._batch, at=at, random=random)]


def spread(copies: npt.NDArray[np.int32], random: np.random.Generator) -> Rows:
    """Return a random order of images in which each comes `copies` times, evenly spread.

    Args:
        copies: int32 [images], 0 or more.
        random: Where the order comes from.

    Returns:
        int64 [sum of copies], of numbers of images.
    """
    if len(copies) == 0 or copies.max() <= 1:
        return random.permutation(np.flatnonzero(copies))
    kind = np.int32 if len(copies) <= np.iinfo(np.int32).max else np.int64
    images = np.repeat(np.arange(len(copies), dtype=kind), copies)
    nth = np.arange(len(images)) - np.repeat(np.cumsum(copies) - copies, copies)
    keys = (random.random(len(copies))[images] + nth / copies[images]) % 1
    return cast("Rows", images[np.argsort(keys, kind="stable")])


def part_copies(
    order: Rows,
    copies: npt.NDArray[np.int32],
    *,
    batch: int,
    at: int,
    random: np.random.Generator,
) -> Rows:
    """Return the order with copies of one image moved out of one batch, where they can be.

    Args:
        order: Numbers of images, by place.
        copies: int32 [images].
        batch: Draws a batch, 1 or more.
        at: Position of the first place in its stream; batches begin at multiples of `batch`.
        random: Where the places that are exchanged come from.
    """
    most = int(copies.max(initial=1))
    if most <= 1 or len(order) > most * batch * _SAFE_DISTANCE:
        return order
    batches = (at + np.arange(len(order))) // batch
    bounds = np.flatnonzero(np.diff(batches, prepend=-1, append=-1))
    ranked = np.lexsort((batches, order))
    same = (np.diff(order[ranked]) == 0) & (np.diff(batches[ranked]) == 0)
    avoidable = copies[order] < len(bounds) - 1
    order = order.copy()
    for place in ranked[1:][same].tolist():
        if avoidable[place]:
            _exchange(order, place, bounds, random)
    return order


def _exchange(order: Rows, place: int, bounds: Rows, random: np.random.Generator) -> None:
    """Exchange a place with one of another batch, if neither batch then has an image twice."""

    def batch_of(place: int) -> Rows:
        index = int(np.searchsorted(bounds, place, side="right"))
        return order[bounds[index - 1] : bounds[index]]

    here, mine = batch_of(place), order[place]
    for other in random.integers(len(order), size=_ATTEMPTS).tolist():
        if order[other] not in here and mine not in batch_of(other):
            order[place], order[other] = order[other], mine
            return
