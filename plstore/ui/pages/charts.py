"""Charts of ECharts, which comes with NiceGUI: drawn as SVG, in the colours of the page."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nicegui import ui

COLOURS: Final = (
    *("var(--accent)", "var(--second)", "var(--good)", "var(--bad)"),
    *("#8a6fc9", "#3d9bb3", "#b3628f", "#7d8a3c"),
)
_FONT: Final = "system-ui, sans-serif"  # a name, so that widths are measured right
_AXIS: Final[dict[str, Any]] = {
    "axisLine": {"lineStyle": {"color": "var(--line)"}},
    "axisTick": {"show": False},
    "axisLabel": {"color": "var(--soft)", "fontFamily": _FONT},
    "splitLine": {"lineStyle": {"color": "var(--line)"}},
    "nameTextStyle": {"color": "var(--faint)", "fontFamily": _FONT},
}


def _axis(kind: str, **more: object) -> dict[str, Any]:
    return {"type": kind, **_AXIS, **more}


def _base(**more: object) -> dict[str, Any]:
    return {
        "animation": False,
        "grid": {"left": 22, "right": 22, "top": 34, "bottom": 30, "containLabel": True},
        "tooltip": {
            "trigger": "axis",
            "backgroundColor": "var(--card)",
            "borderColor": "var(--line)",
            "textStyle": {"color": "var(--ink)", "fontFamily": _FONT, "fontSize": 13},
        },
        "legend": {
            "top": 0,
            "left": 0,
            "type": "scroll",
            "icon": "roundRect",
            "textStyle": {"color": "var(--soft)", "fontFamily": _FONT},
            "itemWidth": 12,
            "itemHeight": 8,
        },
        **more,
    }


def histogram(
    series: Mapping[str, Sequence[float]],
    edges: Sequence[str],
    *,
    x: str = "",
    at: int | None = None,
    logarithmic: bool = False,
) -> dict[str, Any]:
    """Return a chart of counts in bins.

    Args:
        series: Counts by name.
        edges: Names of the bins.
        x: What is along it.
        at: A bin that a line stands before.
        logarithmic: Whether the height is.
    """
    bars = [
        {
            "name": name,
            "type": "bar",
            "data": [n if n or not logarithmic else None for n in numbers],
            "barGap": "-100%",
            "barCategoryGap": "12%",
            "itemStyle": {"color": COLOURS[place % len(COLOURS)], "borderRadius": [2, 2, 0, 0]},
            "opacity": 1,
            "emphasis": {"disabled": True},
        }
        for place, (name, numbers) in enumerate(series.items())
    ]
    if at is not None and bars:
        bars[0]["markLine"] = {
            "symbol": "none",
            "silent": True,
            "label": {"show": False},
            "lineStyle": {"color": "var(--ink)", "type": "dashed", "width": 1.2},
            "data": [{"xAxis": at}],
        }
    return _base(
        xAxis=_axis("category", data=list(edges), name=x, nameLocation="middle", nameGap=28),
        yAxis=_axis("log" if logarithmic else "value", minInterval=1),
        series=bars,
    )


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]], *, x: str = "step"
) -> dict[str, Any]:
    """Return a chart of curves, points [x, y] by name."""
    curves = [
        {
            "name": name,
            "type": "line",
            "showSymbol": len(points) < 15,  # noqa: PLR2004  few points are seen
            "symbolSize": 5,
            "data": [list(point) for point in points],
            "lineStyle": {"width": 2, "color": COLOURS[place % len(COLOURS)]},
            "itemStyle": {"color": COLOURS[place % len(COLOURS)]},
            "emphasis": {"disabled": True},
        }
        for place, (name, points) in enumerate(series.items())
    ]
    return _base(
        xAxis=_axis("value", name=x, nameLocation="middle", nameGap=28, splitNumber=5),
        yAxis=_axis("value", scale=True, splitNumber=4),
        series=curves,
    )


def columns(
    names: Sequence[str], series: Mapping[str, Sequence[float | None]], *, is_line: bool = False
) -> dict[str, Any]:
    """Return a chart of values by name."""
    shapes = [
        {
            "name": name,
            "type": "line" if is_line else "bar",
            "data": list(values),
            "itemStyle": {"color": COLOURS[place % len(COLOURS)], "borderRadius": [3, 3, 0, 0]},
            "lineStyle": {"color": COLOURS[place % len(COLOURS)]},
            "emphasis": {"disabled": True},
            "barMaxWidth": 34,
        }
        for place, (name, values) in enumerate(series.items())
    ]
    return _base(xAxis=_axis("category", data=list(names)), yAxis=_axis("value"), series=shapes)


def chart(options: dict[str, Any]) -> ui.echart:
    """Draw a chart."""
    return ui.echart(options, renderer="svg").classes("chart")


def change(drawn: ui.echart, options: dict[str, Any]) -> None:
    """Draw other options in the same place."""
    drawn.options.clear()
    drawn.options.update(options)
    drawn.update()
