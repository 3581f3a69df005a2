"""One image: large, with what every teacher says of it, and where it went."""

from urllib.parse import parse_qsl

from markupsafe import Markup
from nicegui import ui

from plstore.errors import InputError
from plstore.report.markup import (
    Cell,
    Column,
    bar,
    facts,
    html,
    joined,
    link,
    moment,
    note,
    table,
    tag,
)
from plstore.report.shown import LARGE, pictures
from plstore.report.snapshot import Snapshot
from plstore.report.tiles import drawn
from plstore.ui import grid, one_image
from plstore.ui.address import Address, image_url, url
from plstore.ui.desk import Desk
from plstore.ui.grid import Filters
from plstore.ui.one_image import Beside, ImageFacts, Said
from plstore.ui.pages.frame import apart, heading, show
from plstore.ui.pages.grid import strip, with_query


async def draw(desk: Desk, address: Address) -> None:
    """Draw the page."""
    snapshot = desk.snapshot()
    sample_id = address.whole("id")
    if sample_id is None:
        raise InputError("no image is named: /image?id=17; the grid links to each")
    within = address.text("in")
    known = await apart(one_image.image_facts, snapshot, sample_id)
    beside = await apart(_beside, snapshot, within, sample_id)
    heading(known.row["key"], f"image {sample_id} of {known.row['dataset']}")
    show(_steps(beside, within))
    shot = (await apart(pictures(snapshot).of, [sample_id], LARGE))[sample_id]
    show(
        html(
            '<div class="wide"><div class="stack"><div class="stage shot">{}</div>{}{}</div>'
            '<section class="card"><h2>What teachers say</h2>{}</section></div>',
            drawn(shot),
            _facts(known),
            _views(known),
            _labels(known),
        )
    )
    near = ui.element("section")
    ui.timer(0.05, lambda: _draw_near(near, snapshot, sample_id), once=True)


async def _draw_near(place: ui.element, snapshot: Snapshot, sample_id: int) -> None:
    found = await apart(one_image.nearest, snapshot, sample_id)
    if not found:
        return
    ids = [i for i, _ in found]
    said = await apart(grid.tiles, snapshot, Filters(), ids)
    shots = await apart(pictures(snapshot).of, ids)
    with place.classes("card"):
        show(html("<h2>Looks most like</h2>{}", strip([(t, shots[t.sample_id]) for t in said])))


def _beside(snapshot: Snapshot, within: str, sample_id: int) -> Beside:
    address = Address("/grid", dict(parse_qsl(within)))
    filters = with_query(snapshot, grid.read_filters(snapshot, address), address)
    return one_image.beside(snapshot, filters, sample_id)


def _steps(beside: Beside, within: str) -> Markup:
    parts = [link(f"/grid?{within}" if within else "/grid", "Grid", "to-grid")]
    if beside.before is not None:
        parts.append(link(image_url(beside.before, within), "Previous", "step-back"))
    if beside.after is not None:
        parts.append(link(image_url(beside.after, within), "Next", "step-next"))
    place = "" if beside.place is None else f"{beside.place:,} of {beside.total:,}"
    return html('<nav class="pager">{}<span>{}</span></nav>', joined(parts), place)


def _facts(known: ImageFacts) -> Markup:
    row = known.row
    marks = [
        *([tag("excluded", "bad")] if known.is_excluded else []),
        *([tag(f"corrected: {known.corrected_name}", "good")] if known.corrected_name else []),
        *([tag(row["verdict"], "bad")] if row["verdict"] != "accepted" else []),
    ]
    pairs: dict[str, Cell] = {
        "Split": row["split"],
        "Class as filed": known.label_name,
        "Size": f"{row['width']} × {row['height']} pixels, {row['num_bytes']:,} bytes",  # noqa: RUF001
        "Verdict": row["verdict"],
        "Converted": row["conversion"],
        "File": row["path"],
    }
    shown = {name: value for name, value in pairs.items() if value is not None}
    return html(
        '<section class="card"><h2>The image {}</h2>{}{}</section>',
        joined(marks, " "),
        facts(shown),
        _decisions(known),
    )


def _decisions(known: ImageFacts) -> Markup:
    if not known.decisions:
        return Markup("")
    columns = [Column(name=name) for name in ("Decided", "By", "What", "")]
    rows = [(moment(d.time), d.who, d.what, d.detail) for d in known.decisions]
    return html('<div style="margin-top:18px">{}</div>', table(columns, rows))


def _labels(known: ImageFacts) -> Markup:
    if not known.said:
        return note("No teacher has labeled this image.")
    return joined(map(said_of, known.said))


def said_of(said: Said) -> Markup:
    """Return a soft label as bars."""
    lines = [
        html("<b>{}</b>{}<em>{}</em>", name, bar(p, "" if not n else "second"), f"{p:.3f}")
        for n, (name, p) in enumerate(said.top)
    ]
    if said.rest > 0.0005:  # noqa: PLR2004  less is shown as nothing
        lines.append(
            html(
                '<b class="faint">others</b>{}<em>{}</em>',
                bar(said.rest, "rest"),
                f"{said.rest:.3f}",
            )
        )
    name = f"{said.teacher_id}@{said.iteration}"
    return html(
        '<div class="label-set"><header><span><b>iteration {}</b> {}</span><span>entropy {}'
        '</span></header><div class="bars">{}</div></div>',
        said.iteration,
        link(url("/grid", {"labels": name}), said.teacher_id),
        f"{said.entropy:.2f}",
        joined(lines),
    )


def _views(known: ImageFacts) -> Markup:
    if not known.views:
        return Markup("")
    columns = [Column(name="View"), Column(name=""), Column(name="As"), Column(name="Why not")]
    rows = [
        (
            link(url("/view", {"view": held.key}), held.key),
            tag("in it", "on") if held.is_in else tag("not"),
            f"{held.class_name}, {held.copies} ×" if held.is_in else None,  # noqa: RUF001
            held.why or None,
        )
        for held in known.views
    ]
    return html('<section class="card"><h2>Views</h2>{}</section>', table(columns, rows))
