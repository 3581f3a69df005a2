"""Views: what each holds, what it left out and why, what it read, and what is new in it."""

from typing import Any, Final

import numpy as np
from markupsafe import Markup
from nicegui import ui

from plstore.report.lineage import label_names
from plstore.report.markup import (
    Cell,
    Column,
    bar,
    count,
    facts,
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
from plstore.ui import selections
from plstore.ui.address import Address, url
from plstore.ui.desk import Desk
from plstore.ui.pages.frame import apart, heading, show
from plstore.ui.selections import Difference, Listed, ViewCounts

_MOST_CLASSES = 200


async def draw(desk: Desk, address: Address) -> None:
    """Draw the page."""
    snapshot = desk.snapshot()
    listed = await apart(selections.list_views, snapshot)
    if not listed:
        heading("Views")
        show(note("No view yet: plstore select makes one, and so does the page Thresholds."))
        return
    key = address.text("view", listed[0].key)
    view = await apart(selections.find_view, snapshot, key)
    counts = await apart(selections.counts_of, snapshot, view)
    heading(view.key, f"chosen by {view.record.query}, {moment(view.record.created_at)}")
    _controls(address, listed, view.key)
    show(_figures(counts))
    if counts.deleted:
        show(note(f"{counts.deleted:,} images of it were deleted since it was made.", "wrong"))
    left = html('<div class="stack">{}{}</div>', _out(counts), _by_class(snapshot, counts))
    show(html('<div class="wide">{}{}</div>', left, _made_of(counts)))
    other = address.text("against")
    if other:
        before = await apart(selections.find_view, snapshot, other)
        changes = await apart(selections.differ, snapshot, before, view)
        show(_difference(snapshot, changes, before.key, view.key))


def _controls(address: Address, listed: list[Listed], key: str) -> None:
    keys = {one.key: f"{one.key}, {one.num_images:,} images" for one in listed}

    def field(name: str, label: str, options: dict[str, str], value: str) -> None:
        def go(event: Any) -> None:  # noqa: ANN401  NiceGUI's
            ui.navigate.to(address.with_(**{name: event.value or None}).url)

        found = ui.select(options, label=label, value=value, on_change=go)
        found.props("outlined dense options-dense").classes("wide-field")

    others = {"": "nothing", **{k: t for k, t in keys.items() if k != key}}
    against = address.text("against")
    others.setdefault(against, against)
    with ui.element("section").classes("card"), ui.element("div").classes("controls"):
        field("view", "View", {**keys, key: keys.get(key, key)}, key)
        field("against", "Compared with", others, against)
        show(link(url("/grid", {"view": key, "labels": "none"}), "Its images"))


def _figures(counts: ViewCounts) -> Markup:
    record = counts.view.record
    share = counts.kept / counts.num_in if counts.num_in else None
    said = "" if share is None else f"{percent(share)} of {counts.num_in:,}"
    parts = [
        figure(count(record.num_images), "images", f"{record.mode}"),
        figure(count(counts.kept), "pseudo-labeled", said),
        figure(count(counts.labeled), "labeled", ""),
        figure(count(record.num_draws), "draws in a pass", _copies(counts)),
        figure(
            count(sum(counts.dropped.values())), "left out", f"{len(counts.dropped)} reasons"
        ),
    ]
    return html('<section class="figures">{}</section>', joined(parts))


def _copies(counts: ViewCounts) -> str:
    return f"{counts.draws / counts.kept:.2f} of each pseudo-label" if counts.kept else ""


def _out(counts: ViewCounts) -> Markup:
    rows = [("kept", counts.kept, ""), *((w, n, "second") for w, n in counts.dropped.items())]
    most = max(1, *(n for _, n, _ in rows))
    lines = joined(
        html("<b>{}</b>{}<em>{}</em>", why.replace("_", " "), bar(n / most, css), count(n))
        for why, n, css in rows
    )
    return html(
        '<section class="card"><h2>What became of the unlabeled images</h2><div class="bars">{}'
        "</div>{}</section>",
        lines,
        "" if counts.dropped else note("Nothing was left out."),
    )


def _made_of(counts: ViewCounts) -> Markup:
    record = counts.view.record
    pairs: dict[str, Cell] = {"query": record.query, **selections.settings(record.parameters)}
    names = label_names(record.parameters)
    if names:
        shown = [link(url("/grid", {"labels": n, "view": counts.view.key}), n) for n in names]
        pairs["teachers"] = joined(shown, ", ")
    pins = [
        tag(f"{name} {version}", "bad" if name in counts.older else "")
        for name, version in record.pins.items()
        if version
    ]
    older = ", ".join(f"{name} (+{n})" for name, n in counts.older.items())
    said = note(f"Newer since: {older}." if older else "All that it read is still the newest.")
    return html(
        '<section class="card"><h2>Made of</h2>{}<h2 style="margin-top:22px">Pinned</h2>{}'
        '<div style="margin-top:10px">{}</div></section>',
        facts(pairs),
        joined(pins, " "),
        said,
    )


_ORDER: Final = ("predicted", "candidates", "quota", "kept", "draws")


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _by_class(snapshot: Snapshot, counts: ViewCounts) -> Markup:
    if not counts.by_class:
        return Markup("")
    names = sorted(counts.by_class, key=_place)
    kept = np.array(counts.by_class.get("kept", counts.by_class[names[0]]))
    order = np.argsort(-kept, kind="stable")[:_MOST_CLASSES]
    columns = [
        Column(name="Class"),
        *(Column(name=n.capitalize(), kind="number") for n in names),
    ]
    columns.append(Column(name=""))
    most = max(int(kept.max(initial=0)), 1)
    labels = (label_names(counts.view.record.parameters) or ["none"])[0]

    def of_class(name: str | None) -> Markup:
        within = {"view": counts.view.key, "class": name, "labels": labels}
        return link(url("/grid", within), name)

    rows: list[tuple[Cell, ...]] = [
        (
            of_class(snapshot.class_name(int(n))),
            *(int(counts.by_class[name][n]) for name in names),
            html(
                '<span style="display:inline-block;width:110px">{}</span>', bar(kept[n] / most)
            ),
        )
        for n in order
    ]
    return html('<section class="card"><h2>By class</h2>{}</section>', table(columns, rows))


def _difference(snapshot: Snapshot, changes: Difference, before: str, after: str) -> Markup:
    said = joined(
        figure(count(n), name, note_)
        for (name, n), note_ in zip(
            changes.images.items(),
            ("same class", "another class", "only in this one", "only in the other"),
            strict=True,
        )
    )
    flips = table(
        [Column(name="Was"), Column(name="Is"), Column(name="Images", kind="number")],
        [
            (snapshot.class_name(old), snapshot.class_name(new), n)
            for old, new, n in changes.flips[:10]
        ],
    )
    moved = np.argsort(-(changes.entered + changes.left), kind="stable")[:10]
    by_class = table(
        [
            Column(name="Class"),
            Column(name="Entered", kind="number"),
            Column(name="Left", kind="number"),
        ],
        [
            (snapshot.class_name(int(n)), int(changes.entered[n]), int(changes.left[n]))
            for n in moved
        ],
    )
    return html(
        '<section class="card"><h2>{} since {}</h2><div class="figures">{}</div><div '
        'class="columns" style="margin-top:20px"><div>{}</div><div>{}</div></div></section>',
        after,
        before,
        said,
        flips,
        by_class,
    )
