"""A forest plot: differences that a paper reports, and those found here, with intervals."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from plstore.report.figures import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW_INCHES: Final = 0.32
_DPI: Final = 150
_TICKS: Final = (-50, -20, -10, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20, 50)
_LINEAR: Final = 1.0
"""Points to both sides of zero within which the axis is linear."""

_HERE: Final = {"agrees": COLOURS[2], "contradicts": COLOURS[3], "not shown": COLOURS[0]}


def forest(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw a line a finding: what a paper reports, and what was found, with its interval.

    Args:
        rows: With `finding`, `paper` (or None), `ours`, `low`, `high` (or None) and `verdict`;
            the first is the uppermost.
    """
    figure, axes = new_figure(8.0, 1.6 + _ROW_INCHES * len(rows))
    axes.axvline(0, color="black", linewidth=0.8)
    for place, row in enumerate(rows):
        colour = _HERE.get(row["verdict"], COLOURS[0])
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
        axes.plot(row["ours"], place, "o", color=colour)
        if row["paper"] is not None:
            axes.plot(row["paper"], place, "D", color="black", fillstyle="none", markersize=6)
    for verdict, colour in _HERE.items():
        if any(row["verdict"] == verdict for row in rows):
            axes.plot([], [], "o-", color=colour, label=f"here, 95 %: {verdict}")
    if any(row["paper"] is not None for row in rows):
        axes.plot([], [], "D", color="black", fillstyle="none", label="paper")
    axes.set_yticks(range(len(rows)), [row["finding"] for row in rows], parse_math=False)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=_LINEAR)
    low, high = axes.get_xlim()
    inside = [tick for tick in _TICKS if low <= tick <= high]
    axes.set_xticks(inside, [f"{tick:g}" for tick in inside])
    axes.set_xticks([], minor=True)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("difference in points (beyond 1 the axis is logarithmic)")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize="small")
    return figure


def png_bytes(figure: "Figure") -> bytes:
    """Return a figure as a PNG file's bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()
