"""A lineage as SVG: three columns side by side, the next ones below, lines around the boxes."""

from collections.abc import Callable, Sequence
from typing import Final

from markupsafe import Markup

from plstore.report.layout import Layout, Node, Slot
from plstore.report.markup import html, joined, note

_WIDTH, _HEIGHT = 250, 54
_GAP_X, _GAP_Y = 56, 18
_BAND: Final = 3  # columns side by side: a view, a model, its labels; then the next iteration
_LANE: Final = 9  # between two lines that go down to the next columns
_BEND: Final = 7
_LONGEST_TITLE: Final = 29

Point = tuple[int, int]


def lineage(layout: Layout, address: Callable[[Node], str] | None = None) -> Markup:
    """Return the way from teachers over labels and views to students as a drawing.

    Args:
        layout: Of `plstore.report.layout.laid_out`.
        address: Where a box leads; nowhere unless given.
    """
    if not layout.nodes:
        return note("Nothing has labels yet.")
    drawing = _Drawing(layout)
    boxes = [
        _box(node, drawing.corner((key, layout.columns[key])), address)
        for key, node in layout.nodes.items()
    ]
    return html(
        '<div class="scroll"><svg class="lineage" viewBox="-2 -2 {w} {h}" width="{w}" '
        'height="{h}" role="img" aria-label="Lineage">{lines}{boxes}</svg></div>',
        w=drawing.width + 4,
        h=drawing.height + 4,
        lines=joined(html('<path d="{}"/>', path) for path in drawing.paths()),
        boxes=joined(boxes),
    )


class _Drawing:
    """Where all of it is, in pixels."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._down = [
            line for line in layout.lines if line[0][1] // _BAND < line[1][1] // _BAND
        ]
        lanes = [sum(s[1] // _BAND == band for s, _ in self._down) for band in self._bands()]
        self._margin = _LANE * (max(lanes, default=0) + 1) if self._down else 0
        self._tops, self._firsts, top = [], [], 0
        for band, num_lanes in enumerate(lanes):
            rows = [row for slot, row in layout.rows.items() if slot[1] // _BAND == band]
            self._tops.append(top)
            self._firsts.append(min(rows))
            size = (max(rows) - min(rows) + 1) * (_HEIGHT + _GAP_Y)
            top += size + (_LANE * num_lanes if num_lanes else 0)
        self.height = max(y for _, y in map(self.corner, layout.rows)) + _HEIGHT
        widest = min(max(layout.columns.values()), _BAND - 1)
        self.width = 2 * self._margin + widest * (_WIDTH + _GAP_X) + _WIDTH

    def _bands(self) -> range:
        return range(max(self._layout.columns.values()) // _BAND + 1)

    def corner(self, slot: Slot) -> Point:
        """Return where a box begins; also where one would, that a line passes."""
        band = slot[1] // _BAND
        row = self._layout.rows[slot] - self._firsts[band]
        x = self._margin + (slot[1] % _BAND) * (_WIDTH + _GAP_X)
        return x, self._tops[band] + row * (_HEIGHT + _GAP_Y)

    def paths(self) -> Sequence[str]:
        """Return the lines, each an SVG path."""
        across = [line for line in self._layout.lines if line not in self._down]
        found = [self._across(start, end) for start, end in across]
        for slot in self._layout.rows:
            if slot[1] != self._layout.columns[slot[0]]:  # a line passes this column
                x, y = self._left(slot)
                found.append(f"M{x} {y} H{x + _WIDTH}")
        for band in self._bands():
            here = [line for line in self._down if line[0][1] // _BAND == band]
            here.sort(key=lambda line: [self._layout.rows[slot] for slot in line])
            found += [self._around(line, n, len(here)) for n, line in enumerate(here)]
        return found

    def _left(self, slot: Slot) -> Point:
        x, y = self.corner(slot)
        return x, y + _HEIGHT // 2

    def _across(self, start: Slot, end: Slot) -> str:
        (x1, y1), (x2, y2) = self._left(start), self._left(end)
        x1 += _WIDTH
        middle = (x1 + x2) // 2
        return f"M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}"

    def _around(self, line: tuple[Slot, Slot], number: int, count: int) -> str:
        """Return a line to the next band: each within the one before, so that none cross."""
        (x1, y1), (x2, y2) = map(self._left, line)
        x1 += _WIDTH
        inner, outer = number + 1, count - number
        right, left = x1 + outer * _LANE, x2 - inner * _LANE
        between = self._tops[line[1][1] // _BAND] - _GAP_Y - (inner - 1) * _LANE
        between += _GAP_Y // 2
        points = ((x1, y1), (right, y1), (right, between), (left, between), (left, y2))
        return _bent([*points, (x2, y2)])


def _bent(points: Sequence[Point]) -> str:
    """Return a path along corners, each of them rounded."""
    parts = [f"M{points[0][0]} {points[0][1]}"]
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        start, end = (_towards(here, other) for other in (before, after))
        parts.append(f"L{start[0]} {start[1]} Q{here[0]} {here[1]} {end[0]} {end[1]}")
    parts.append(f"L{points[-1][0]} {points[-1][1]}")
    return " ".join(parts)


def _towards(start: Point, end: Point) -> Point:
    """Return the point a bend's length, or half the way, from one to another."""
    (x1, y1), (x2, y2) = start, end
    length = max(abs(x2 - x1), abs(y2 - y1), 1)
    step = min(_BEND, length // 2)
    return x1 + (x2 - x1) * step // length, y1 + (y2 - y1) * step // length


def _box(node: Node, corner: Point, address: Callable[[Node], str] | None) -> Markup:
    title = node.title
    if len(title) > _LONGEST_TITLE:
        title = f"{title[: _LONGEST_TITLE - 1]}…"
    inner = html(
        '<title>{}</title><rect width="{}" height="{}" rx="9"/><text x="14" y="23">{}</text>'
        '<text class="detail" x="14" y="41">{}</text>',
        node.title,
        _WIDTH,
        _HEIGHT,
        title,
        node.detail,
    )
    place = html('class="node {}" transform="translate({} {})"', node.kind, *corner)
    if address is None:
        return html("<g {}>{}</g>", place, inner)
    return html('<a href="{}" {}>{}</a>', address(node), place, inner)
