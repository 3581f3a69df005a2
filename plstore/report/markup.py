"""HTML of texts that a store holds: every one of them goes through `text`.

Pieces are `markupsafe.Markup`, and what is put into one with `format` or `join` is escaped
unless it is such a piece itself.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final, Literal

from markupsafe import Markup, escape

# Controls, and marks that turn the direction of what follows: neither is seen.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_LONGEST: Final = 300


@cache
def style(name: str = "style.css") -> str:
    """Return a style sheet: that of the app and of reports, light and dark, unless named."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


DASH: Final = "\N{EN DASH}"
"""What stands for nothing known."""

Cell = str | int | float | bool | None | datetime | Markup


def text(value: object, longest: int = _LONGEST) -> Markup:
    """Return a text of the store as HTML: markup shown as it is, what is unseen as a mark."""
    if isinstance(value, Markup):
        return value
    seen = _UNSEEN.sub("\ufffd", str(value))
    return escape(seen if len(seen) <= longest else f"{seen[: longest - 1]}…")


def html(template: str, *values: object, **named: object) -> Markup:
    """Return HTML with values put in: those that are texts go through `text`."""
    return Markup(template).format(  # noqa: S704  the template is this program's own
        *map(text, values), **{name: text(value) for name, value in named.items()}
    )


def joined(parts: Iterable[Markup], between: str = "") -> Markup:
    """Return pieces of HTML, one after the other."""
    return Markup(between).join(parts)  # noqa: S704  the same


def count(number: float) -> str:
    """Return a whole number as people read it."""
    return f"{number:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share of 1 in percent; a dash where it is not known."""
    return DASH if share is None else f"{100 * share:.{digits}f} %"


def moment(time: datetime) -> str:
    """Return a time as `plstore log` prints it."""
    return time.strftime("%Y-%m-%d %H:%M")


def cell_text(value: Cell) -> Markup:
    """Return what a cell of a table shows."""
    if value is None:
        return html('<span class="faint">{}</span>', DASH)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(moment(value) if isinstance(value, datetime) else value)
    return text(count(value) if isinstance(value, int) else f"{value:.6g}")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        kind: Numbers stand to the right.
    """

    name: str
    kind: Literal["text", "number"] = "text"


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, css: str = ""
) -> Markup:
    """Return a table."""
    head = joined(html('<th class="{}">{}</th>', c.kind, c.name) for c in columns)
    body = joined(
        html(
            "<tr>{}</tr>",
            joined(
                html('<td class="{}">{}</td>', column.kind, cell_text(cell))
                for column, cell in zip(columns, row, strict=True)
            ),
        )
        for row in rows
    )
    return html(
        '<div class="scroll {}"><table class="table"><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>",
        css,
        head,
        body,
    )


def link(url: str, label: object, css: str = "link") -> Markup:
    """Return a link within the app."""
    return html('<a class="{}" href="{}">{}</a>', css, Markup(escape(url)), label)  # noqa: S704  escaped


def bar(share: float, css: str = "") -> Markup:
    """Return a bar that is filled by a share, 0 to 1."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}"
    return html('<span class="bar {}"><i style="width:{}%"></i></span>', css, width)


def tag(label: object, css: str = "") -> Markup:
    """Return a word in a small frame."""
    return html('<span class="tag {}">{}</span>', css, label)


def facts(pairs: Mapping[str, Cell]) -> Markup:
    """Return names with their values, a line each."""
    lines = (html("<dt>{}</dt><dd>{}</dd>", name, cell_text(v)) for name, v in pairs.items())
    return html('<dl class="facts">{}</dl>', joined(lines))


def figure(value: object, name: object, note: object = "") -> Markup:
    """Return one large number with what it is."""
    return html(
        '<div class="figure"><b>{}</b><span>{}</span><small>{}</small></div>', value, name, note
    )


def note(message: object, css: str = "") -> Markup:
    """Return a line on what there is not, or what went wrong."""
    return html('<p class="note {}">{}</p>', css, text(message, 4000))
