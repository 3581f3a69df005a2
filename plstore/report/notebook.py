"""Images of a store within a notebook, with what the newest labels say of them."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from plstore.exchange.review_tasks import Task, rows_to_review, tasks_of
from plstore.report.pictures import Picture, draw
from plstore.schema import ACCEPTED
from plstore.store import Store

_SIDE: Final = 112
_STYLE: Final = "display:inline-block;vertical-align:top;margin:4px;font:12px sans-serif"


@dataclass(frozen=True, kw_only=True)
class _Card:
    sample_id: int
    title: str
    note: str
    picture: Picture

    def as_html(self) -> str:
        shown = html.escape(self.picture.why)
        if self.picture.data:
            pixels = "image-rendering:pixelated" if self.picture.is_small else ""
            shown = (
                f'<img src="{self.picture.uri}" alt="{self.sample_id}" style="width:{_SIDE}px;'
                f'height:{_SIDE}px;object-fit:contain;{pixels}">'
            )
        lines = "<br>".join(map(html.escape, (self.title, self.note)))
        return f'<div style="{_STYLE};width:{_SIDE}px">{shown}<div>{lines}</div></div>'


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Images with their labels: a notebook draws them, a terminal lists them.

    Attributes:
        cards: One an image.
        num_missing: Images that were asked for and cannot be had.
    """

    cards: Sequence[_Card]
    num_missing: int = 0

    def _repr_html_(self) -> str:
        missing = f"<p>{self.num_missing} more cannot be had</p>" if self.num_missing else ""
        return f"<div>{''.join(card.as_html() for card in self.cards)}</div>{missing}"

    def __repr__(self) -> str:
        """List the images, one a line."""
        lines = [f"{card.sample_id}  {card.title}  {card.note}" for card in self.cards]
        if self.num_missing:
            lines.append(f"{self.num_missing} more cannot be had")
        return "\n".join(lines)


def show(
    store: Store,
    what: str | Sequence[int] = "review/worth_a_look",
    *,
    num_images: int = 24,
    **parameters: object,
) -> Gallery:
    """Return images of a store to look at in a notebook, with their newest labels.

    Args:
        store: The store.
        what: A saved query with ``sample_id``, or sample ids.
        num_images: At most.
        **parameters: The query's own.

    Raises:
        InputError: If there is no such query, or it names no images.
    """
    if isinstance(what, str):
        rows = rows_to_review(store, what, num_images, parameters)
    else:
        rows = [{"sample_id": int(number)} for number in what][:num_images]
    names = store.class_names
    cards = [_card(task, names) for task in tasks_of(store, rows)]
    return Gallery(cards=cards, num_missing=len(rows) - len(cards))


def _card(task: Task, class_names: Sequence[str]) -> _Card:
    label: Mapping[str, Any] = task.label or {}
    title = (
        f"{class_names[label['class_id']]} {label['confidence']:.2f}" if label else "no label"
    )
    row = {
        "verdict": ACCEPTED,
        "why": "",
        "width": task.width,
        "height": task.height,
        "bytes": task.data,
    }
    why = task.said.get("why")
    return _Card(
        sample_id=task.sample_id,
        title=title,
        note=task.key if why is None else str(why),
        picture=draw(row, _SIDE),
    )
