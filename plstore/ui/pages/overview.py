"""The first page: where a store stands, and what led to what."""

from collections.abc import Sequence

from markupsafe import Markup

from plstore.ui import overview
from plstore.ui.address import Address, url
from plstore.ui.markup import (
    Column,
    cell_text,
    count,
    figure,
    html,
    joined,
    link,
    moment,
    note,
    percent,
    table,
    tag,
)
from plstore.ui.overview import Model, Node, Totals, compared_with
from plstore.ui.pages.frame import apart, heading, show
from plstore.ui.snapshot import Desk, Snapshot

_WIDTH, _HEIGHT = 250, 54
_GAP_X, _GAP_Y = 56, 18
_BAND = 3  # columns side by side: a view, a model, its labels; then the next iteration
_LONGEST_TITLE = 29


async def draw(desk: Desk, _: Address) -> None:
    """Draw the page."""
    snapshot = desk.snapshot()
    counts = await apart(overview.totals, snapshot)
    known = await apart(overview.models, snapshot)
    heading("Overview", desk.path)
    if not counts.images and not counts.refused:
        show(_empty(desk.path))
        return
    show(_figures(counts, known))
    nodes = await apart(overview.lineage, snapshot, known)
    show(html('<section class="card"><h2>What led to what</h2>{}</section>', lineage(nodes)))
    show(_models(known))
    show(await apart(_below, snapshot, counts))


def _empty(path: str) -> Markup:
    return html(
        '<section class="card empty"><h2>Nothing is in this store yet</h2><p>Images come in '
        "with</p><pre>plstore import images --labeled pets/labeled --unlabeled pets/unlabeled "
        "--store {}</pre><p>or all of it, from images to students, with <code>plstore run"
        "</code>.</p></section>",
        path,
    )


def _figures(counts: Totals, known: Sequence[Model]) -> Markup:
    best = max(
        (m for m in known if m.test is not None), key=lambda m: m.test or 0, default=None
    )
    control = next((m for m in known if m.role == "control"), None)
    parts = [
        figure(count(sum(counts.images.values())), "images", _splits(counts)),
        figure(count(counts.labels), "soft labels", f"{len(known)} teachers"),
        figure(
            percent(None if best is None else best.test),
            "best on test images",
            "not measured yet" if best is None else best.teacher_id,
        ),
        figure(
            percent(None if control is None else control.test),
            "control, labels alone",
            "no control yet" if control is None else control.teacher_id,
        ),
        figure(
            count(counts.corrected + counts.excluded),
            "decisions of people",
            f"{counts.corrected:,} corrected, {counts.excluded:,} excluded",
        ),
    ]
    return html('<section class="figures">{}</section>', joined(parts))


def _splits(counts: Totals) -> str:
    said = [f"{n:,} {split}" for split, n in counts.images.items() if n]
    return ", ".join([*said, *([f"{counts.refused:,} refused"] if counts.refused else [])])


def _models(known: Sequence[Model]) -> Markup:
    if not known:
        return note("No teacher yet: plstore run trains one, plstore import brings one.")
    columns = [
        Column(name="Iteration", kind="number"),
        Column(name="Model"),
        Column(name="Role"),
        Column(name="Architecture"),
        Column(name="Trained on"),
        Column(name="Test", kind="number"),
        Column(name="Validation", kind="number"),
        Column(name="Labels"),
        Column(name="Made"),
    ]
    compared = compared_with(known)
    rows = [
        (
            model.iteration,
            html("<b>{}</b>", model.teacher_id),
            tag(model.role, f"role-{model.role}"),
            model.architecture or None,
            None
            if model.view is None
            else link(url("/view", {"view": model.view}), model.view),
            _accuracy(model.test, compared.get(model.teacher_id)),
            percent(model.validation),
            _labels(model),
            moment(model.created_at),
        )
        for model in known
    ]
    return html(
        '<section class="card"><h2>Models by iteration</h2>{}</section>', table(columns, rows)
    )


def _accuracy(share: float | None, before: float | None) -> Markup:
    if share is None or before is None:
        return cell_text(None if share is None else percent(share))
    gain = 100 * (share - before)
    css = "gain" if gain >= 0 else "loss"
    return html('{} <small class="{}">{}</small>', percent(share), css, f"{gain:+.1f}")


def _labels(model: Model) -> Markup:
    if not model.num_labels:
        return cell_text(None)
    return joined(
        (
            link(
                url("/grid", {"labels": name}),
                f"{size:,} of iteration {name.rpartition('@')[2]}",
            )
            for name, size in model.num_labels.items()
        ),
        "<br>",
    )


def _below(snapshot: Snapshot, counts: Totals) -> Markup:
    rows = [(name, n) for name, n in counts.tables.items() if n]
    size = table([Column(name="Table"), Column(name="Rows", kind="number")], rows)
    tagged = overview.tagged(snapshot)
    named = table(
        [Column(name="Tag"), Column(name="Commit", kind="number"), Column(name="Message")],
        [(t.name, t.number, t.message or None) for t in tagged],
    )
    commits = table(
        [
            Column(name="", kind="number"),
            Column(name="When"),
            Column(name="Table"),
            Column(name="Step"),
        ],
        [(c.number, moment(c.time), c.table, c.step) for c in overview.last_commits(snapshot)],
    )
    tags_card = named if tagged else note("No tag yet: plstore tag NAME names a snapshot.")
    return html(
        '<div class="columns"><section class="card"><h2>Rows</h2>{}</section><section '
        'class="card"><h2>Last commits</h2>{}</section><section class="card"><h2>Tags</h2>{}'
        "</section></div>",
        size,
        commits,
        tags_card,
    )


def lineage(nodes: Sequence[Node]) -> Markup:
    """Return the way from teachers over labels and views to students as a drawing."""
    if not nodes:
        return note("Nothing has labels yet.")
    corners = _corners(nodes)
    width = max(x for x, _ in corners.values()) + _WIDTH + 4
    height = max(y for _, y in corners.values()) + _HEIGHT + 4
    edges = [_edge(corners[key], corners[node.key]) for node in nodes for key in node.made_of]
    return html(
        '<div class="scroll"><svg class="lineage" viewBox="-2 -2 {w} {h}" width="{w}" '
        'height="{h}" role="img" aria-label="Lineage">{edges}{boxes}</svg></div>',
        w=width,
        h=height,
        edges=joined(edges),
        boxes=joined(_box(node, corners[node.key]) for node in nodes),
    )


def _corners(nodes: Sequence[Node]) -> dict[str, tuple[int, int]]:
    """Return where each node stands: three columns side by side, the next ones below."""
    rows: dict[int, int] = {}
    for node in nodes:
        band = node.column // _BAND
        rows[band] = max(rows.get(band, 0), node.row + 1)
    tops, top = {}, 0
    for band in sorted(rows):
        tops[band] = top
        top += rows[band]
    return {
        node.key: (
            (node.column % _BAND) * (_WIDTH + _GAP_X),
            (tops[node.column // _BAND] + node.row) * (_HEIGHT + _GAP_Y),
        )
        for node in nodes
    }


def _edge(start: tuple[int, int], end: tuple[int, int]) -> Markup:
    (x1, y1), (x2, y2) = start, end
    if x2 > x1:  # to the right
        x1, y1, y2 = x1 + _WIDTH, y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
        middle = (x1 + x2) // 2
        points = (x1, y1, middle, y1, middle, y2, x2, y2)
    else:  # down, to the next iteration
        x1, y1, x2 = x1 + _WIDTH // 2, y1 + _HEIGHT, x2 + _WIDTH // 2
        middle = (y1 + y2) // 2
        points = (x1, y1, x1, middle, x2, middle, x2, y2)
    return html('<path d="M{} {} C{} {} {} {} {} {}"/>', *points)


def _box(node: Node, corner: tuple[int, int]) -> Markup:
    name = node.key.partition(":")[2]
    address = {
        "teacher": url("/runs", {"models": name}),
        "labels": url("/thresholds", {"labels": name}),
        "view": url("/view", {"view": name}),
    }[node.kind]
    title = node.title
    if len(title) > _LONGEST_TITLE:
        title = f"{title[: _LONGEST_TITLE - 1]}…"
    return html(
        '<a href="{address}" class="node {kind}" transform="translate({x} {y})"><title>{whole}'
        '</title><rect width="{w}" height="{h}" rx="9"/><text x="14" y="23">{title}</text>'
        '<text class="detail" x="14" y="41">{detail}</text></a>',
        address=address,
        kind=node.kind,
        x=corner[0],
        y=corner[1],
        whole=node.title,
        w=_WIDTH,
        h=_HEIGHT,
        title=title,
        detail=node.detail,
    )
