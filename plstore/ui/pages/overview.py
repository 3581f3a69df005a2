"""The first page: where a store stands, and what led to what."""

from collections.abc import Sequence

from markupsafe import Markup

from plstore.report import lineage as led
from plstore.report.drawing import lineage
from plstore.report.layout import Node
from plstore.report.lineage import Model, compared_with, models
from plstore.report.markup import (
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
from plstore.report.snapshot import Snapshot
from plstore.ui import overview
from plstore.ui.address import Address, url
from plstore.ui.desk import Desk
from plstore.ui.overview import Totals
from plstore.ui.pages.frame import apart, heading, show


async def draw(desk: Desk, _: Address) -> None:
    """Draw the page."""
    snapshot = desk.snapshot()
    heading("Overview", desk.path)
    counts = await apart(overview.totals, snapshot)
    known = await apart(models, snapshot)
    if not counts.images and not counts.refused:
        show(_empty(desk.path))
        return
    show(_figures(counts, known))
    layout = await apart(led.lineage, snapshot, known)
    drawn = lineage(layout, _address)
    show(html('<section class="card"><h2>What led to what</h2>{}</section>', drawn))
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


def _address(node: Node) -> str:
    name = node.key.partition(":")[2]
    return {
        "teacher": url("/runs", {"models": name}),
        "labels": url("/thresholds", {"labels": name}),
        "view": url("/view", {"view": name}),
    }[node.kind]
