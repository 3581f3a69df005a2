"""Where the boxes of a lineage stand, so that its lines cross only where they must.

After Sugiyama, Tagawa and Toda 1981: a box stands in the column after all that it came of, a
line over several columns takes a place in each, and the places of a column are ordered by the
mean of their neighbours', forwards and backwards; those side by side change where that helps.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from plstore.seeds import Purpose, generator

_SWEEPS: Final = 8
_STARTS: Final = 12
_MOST_SWAPPED: Final = 200
"""Lines up to which neighbours change places: each try counts all crossings."""

Slot = tuple[str, int]
"""A box, or the line that leaves it, in a column: the box's key, and the column's number."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One thing that came of others.

    Attributes:
        key: Unique, its kind first: ``teacher:``, ``labels:`` or ``view:``.
        title: Its name.
        detail: More in a few words.
        made_of: Keys of what it came of.
    """

    key: str
    title: str
    detail: str
    made_of: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What it is."""
        return self.key.partition(":")[0]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Boxes with their places, and the lines between them.

    Attributes:
        nodes: By key.
        columns: Of each box, from 0.
        rows: Of each box, and of each line where it passes a column.
        lines: Pairs of places in columns that are side by side; a line over several columns is
            several of them.
    """

    nodes: Mapping[str, Node]
    columns: Mapping[str, int]
    rows: Mapping[Slot, int]
    lines: Sequence[tuple[Slot, Slot]]

    def num_crossings(self) -> int:
        """Return how many pairs of lines cross."""
        return _crossings(_ordered(self.rows), self.lines)


def laid_out(nodes: Iterable[Node]) -> Layout:
    """Return boxes with their places."""
    by_key = {node.key: node for node in nodes}
    columns = _columns(by_key)
    lines = _lines(by_key, columns)
    slots = {slot for line in lines for slot in line}
    slots |= {(key, column) for key, column in columns.items()}
    places = {key: place for place, key in enumerate(by_key)}
    order: dict[int, list[Slot]] = defaultdict(list)
    for slot in sorted(slots, key=lambda slot: places[slot[0]]):
        order[slot[1]].append(slot)
    best = _best_order(order, lines)
    return Layout(nodes=by_key, columns=columns, rows=_rows(best, lines), lines=lines)


def _columns(by_key: Mapping[str, Node]) -> dict[str, int]:
    columns: dict[str, int] = {}

    def column(key: str, on_the_way: frozenset[str]) -> int:
        if key not in columns:
            before = [k for k in by_key[key].made_of if k in by_key and k not in on_the_way]
            columns[key] = max((column(k, on_the_way | {k}) + 1 for k in before), default=0)
        return columns[key]

    for key in by_key:
        column(key, frozenset({key}))
    return columns


def _lines(by_key: Mapping[str, Node], columns: Mapping[str, int]) -> list[tuple[Slot, Slot]]:
    """Return lines from column to column; those of one box go together while they can."""
    found: dict[tuple[Slot, Slot], None] = {}
    for node in by_key.values():
        end = columns[node.key]
        for key in node.made_of:
            start = columns.get(key, end)
            for column in range(start, end):  # none where things go in a circle
                later = (node.key, end) if column + 1 == end else (key, column + 1)
                found[(key, column), later] = None
    return list(found)


def _best_order(
    order: dict[int, list[Slot]], lines: Sequence[tuple[Slot, Slot]]
) -> dict[int, list[Slot]]:
    before: dict[Slot, list[Slot]] = defaultdict(list)
    after: dict[Slot, list[Slot]] = defaultdict(list)
    for start, end in lines:
        before[end].append(start)
        after[start].append(end)
    best, fewest = order, _crossings(order, lines)
    for now in _starts(order, 1 if len(lines) > _MOST_SWAPPED else _STARTS):
        for sweep in range(_SWEEPS if fewest else 0):
            forwards = not sweep % 2
            for column in sorted(now, reverse=not forwards):
                _sort_by_mean(now, column, before if forwards else after)
            if len(lines) <= _MOST_SWAPPED:
                _swap(now, lines)
            found = _crossings(now, lines)
            if found < fewest:
                best, fewest = {c: list(slots) for c, slots in now.items()}, found
    return best


def _starts(order: dict[int, list[Slot]], count: int) -> Iterator[dict[int, list[Slot]]]:
    """Yield orders to begin with: as given, then by chance; a first one may lead nowhere."""
    yield {c: list(slots) for c, slots in order.items()}
    random = generator(0, Purpose.SAMPLE)
    for _ in range(count - 1):
        yield {
            c: [slots[n] for n in random.permutation(len(slots)).tolist()]
            for c, slots in order.items()
        }


def _sort_by_mean(
    order: dict[int, list[Slot]], column: int, beside: Mapping[Slot, Sequence[Slot]]
) -> None:
    places = {slot: place for slots in order.values() for place, slot in enumerate(slots)}

    def mean(slot: Slot) -> float:
        found = [places[other] for other in beside.get(slot, ())]
        return sum(found) / len(found) if found else places[slot]

    order[column].sort(key=mean)


def _swap(order: dict[int, list[Slot]], lines: Sequence[tuple[Slot, Slot]]) -> None:
    """Let neighbours change places where fewer lines cross then."""
    for slots in order.values():
        for place in range(len(slots) - 1):
            fewest = _crossings(order, lines)
            slots[place : place + 2] = slots[place : place + 2][::-1]
            if _crossings(order, lines) >= fewest:
                slots[place : place + 2] = slots[place : place + 2][::-1]


def _crossings(order: Mapping[int, Sequence[Slot]], lines: Sequence[tuple[Slot, Slot]]) -> int:
    places = {slot: place for slots in order.values() for place, slot in enumerate(slots)}
    by_column: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for start, end in lines:
        by_column[start[1]].append((places[start], places[end]))
    return sum(
        (a - c) * (b - d) < 0
        for pairs in by_column.values()
        for number, (a, b) in enumerate(pairs)
        for c, d in pairs[:number]
    )


def _ordered(rows: Mapping[Slot, int]) -> dict[int, list[Slot]]:
    found: dict[int, list[Slot]] = defaultdict(list)
    for slot in sorted(rows, key=lambda slot: rows[slot]):
        found[slot[1]].append(slot)
    return found


def _rows(
    order: Mapping[int, Sequence[Slot]], lines: Sequence[tuple[Slot, Slot]]
) -> dict[Slot, int]:
    """Return a row for each place: that of what it came of where it is free, else below."""
    before: dict[Slot, list[Slot]] = defaultdict(list)
    for start, end in lines:
        before[end].append(start)
    rows: dict[Slot, int] = {}
    for column in sorted(order):
        free = 0
        for slot in order[column]:
            known = [rows[other] for other in before[slot]]
            rows[slot] = max(free, sum(known) // len(known) if known else free)
            free = rows[slot] + 1
    return rows
