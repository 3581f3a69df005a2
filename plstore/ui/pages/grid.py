"""The grid: images by what labels say of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from markupsafe import Markup
from nicegui import ui

from plstore.report.comparison import KNOWN
from plstore.report.markup import count, html, joined, link, note
from plstore.report.pictures import Picture
from plstore.report.shown import pictures
from plstore.report.snapshot import Snapshot, labels_name
from plstore.report.tiles import Tile, tile
from plstore.schema import SPLITS
from plstore.ui import grid
from plstore.ui.address import Address, image_url, url
from plstore.ui.asking import ask_saved, find_query, questions, read_values
from plstore.ui.desk import Desk
from plstore.ui.grid import SORTS, Filters, Found
from plstore.ui.pages.frame import apart, heading, show
from plstore.ui.pages.live import Live

_PARAMETER: Final = "q."  # before the name of a saved query's parameter


async def draw(desk: Desk, address: Address) -> None:
    """Draw the page."""
    snapshot = desk.snapshot()
    heading("Grid", "Images by what labels say of them. Enter opens one, j and k move.")
    filters = grid.read_filters(snapshot, address)
    controls = ui.element("section").classes("card")
    body = show(note("…"))

    async def redraw(now: Address) -> None:
        markup = await apart(page_of, snapshot, now)
        body.content = str(markup)

    live = Live(address, redraw)
    with controls:
        _controls(live, snapshot, filters)
    body.content = str(await apart(page_of, snapshot, address))


def _controls(live: Live, snapshot: Snapshot, filters: Filters) -> None:
    labels = "none" if filters.labels is None else labels_name(filters.labels)
    choices = grid.label_choices(snapshot)
    with ui.element("div").classes("controls"):
        live.select(
            "labels", "Labels of", {**choices, "none": "nobody: all images"}, value=labels
        )
        split = filters.split
        live.select("split", "Split", {"": "any", **{s: s for s in SPLITS}}, value=split)
        live.classes("class", "Class", snapshot.class_names)
        live.select("sort", "Order", SORTS, value=filters.sort)
        live.bounds("low", "high", "Confidence")
    with ui.expansion("More filters", value=_has_more(live.address)).classes("more"):
        with ui.element("div").classes("controls"):
            _compared(live, snapshot, choices)
        with ui.element("div").classes("controls").style("margin-top: 16px"):
            _of_images(live, snapshot)


def _has_more(address: Address) -> bool:
    return bool(
        address.given.keys() - {"labels", "split", "class", "sort", "low", "high", "page"}
    )


def _compared(live: Live, snapshot: Snapshot, choices: Mapping[str, str]) -> None:
    live.select(
        "against", "Compared with", {"": "nothing", KNOWN: "what people say", **choices}
    )
    live.select(
        "change", "Class there", {"": "any", "flipped": "another one", "same": "the same"}
    )
    live.classes("other", "Which there", snapshot.class_names)
    live.limit("divergence", "Divergence at least", high=0.69, rest=0, step=0.01)
    live.limit("margin", "Lead at most", rest=1, step=0.01)
    live.limit("entropy", "Entropy at least", high=7, rest=0, step=0.05)


def _of_images(live: Live, snapshot: Snapshot) -> None:
    some = {"": "any", "no": "no", "only": "only these"}
    live.select("excluded", "Excluded", some)
    live.select("corrected", "Corrected", some)
    live.select("verdict", "Verdict", {"": "accepted", "refused": "refused"})
    keys = snapshot.rows("select view, version from views order by created_at desc, view")
    views = [f"{row['view']}@{row['version']}" for row in keys]
    live.select("view", "In the view", {"": "any", **{v: v for v in views}})
    asked = {q.name: q.name for q in questions(of_images=True)}
    live.select("query", "Answer of a saved query", {"": "none", **asked}, css="wide-field")


def page_of(snapshot: Snapshot, address: Address) -> Markup:
    """Return one page of a grid."""
    filters = with_query(snapshot, grid.read_filters(snapshot, address), address)
    found = grid.find_images(snapshot, filters)
    said = grid.tiles(snapshot, filters, found.sample_ids)
    shots = pictures(snapshot).of(found.sample_ids)
    within = address.url.partition("?")[2]
    pager = _pager(address, found)
    tiles = html(
        '<div class="tiles">{}</div>',
        joined(
            tile(one, shots[one.sample_id], image_url(one.sample_id, within)) for one in said
        ),
    )
    nothing = note("No image is like that. Take a filter away.")
    return html('<div class="stack">{}{}{}</div>', pager, tiles if said else nothing, pager)


def with_query(snapshot: Snapshot, filters: Filters, address: Address) -> Filters:
    """Return filters with the images that a saved query names, if the URL names one."""
    query = find_query(address.text("query"))
    if query is None:
        return filters
    texts = {
        name.removeprefix(_PARAMETER): value
        for name, value in address.given.items()
        if name.startswith(_PARAMETER)
    }
    values = read_values(query, texts)
    if any(p.name == "num_images" for p in query.parameters):
        values.setdefault("num_images", 0)
    key = ("ids", query.name, tuple(sorted(values.items())))
    ids = snapshot.once(key, lambda: grid.ids_of(ask_saved(snapshot, query.name, values).rows))
    return replace(filters, ids=ids)


def _pager(address: Address, found: Found) -> Markup:
    number = found.first // grid.PAGE
    parts = []
    if number:
        parts.append(link(address.with_(page=number - 1 or None).url, "Previous", "page-back"))
    if found.first + len(found.sample_ids) < found.total:
        parts.append(link(address.with_(page=number + 1).url, "Next", "page-next"))
    last = found.first + len(found.sample_ids)
    shown = f"{count(found.first + 1)} to {count(last)} of " if found.total else ""
    return html(
        '<nav class="pager"><span>{}<b>{}</b> images</span>{}</nav>',
        shown,
        count(found.total),
        joined(parts),
    )


def grid_link(label: object, **parameters: object) -> Markup:
    """Return a link to the grid of some images."""
    return link(url("/grid", parameters), label)


def strip(shots: Sequence[tuple[Tile, Picture]], within: str = "") -> Markup:
    """Return some images in a row."""
    return html(
        '<div class="tiles">{}</div>',
        joined(tile(said, shot, image_url(said.sample_id, within)) for said, shot in shots),
    )
