"""Thresholds: what a floor and a quota leave, while they are moved; and a view of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from nicegui import ui

from plstore.errors import PlstoreError
from plstore.labels import LabelSet
from plstore.report.markup import (
    Column,
    bar,
    count,
    figure,
    html,
    joined,
    link,
    note,
    percent,
    table,
)
from plstore.report.snapshot import Snapshot, find_labels, labels_name
from plstore.report.thresholds import Counts, Kept, counts_of, keep
from plstore.ui import thresholds
from plstore.ui.address import Address, url
from plstore.ui.desk import Desk
from plstore.ui.grid import label_choices
from plstore.ui.pages.charts import change, chart, histogram
from plstore.ui.pages.frame import apart, heading, show
from plstore.ui.pages.live import Live
from plstore.ui.thresholds import POLICIES

_BINS = 50
_MOST_CLASSES = 200


async def draw(desk: Desk, address: Address) -> None:
    """Draw the page."""
    snapshot = desk.snapshot()
    heading(
        "Thresholds",
        "What a floor of confidence and a quota leave of a teacher's labels, counted at once.",
    )
    labels = find_labels(snapshot, address.text("labels"))
    if labels is None:
        show(
            note("No teacher has labeled unlabeled images yet: plstore label, or plstore run.")
        )
        return
    counts = await apart(counts_of, snapshot, labels)
    page = _Page(desk, snapshot, labels, counts)
    page.draw(address)


@dataclass
class _Page:
    """The open page: what is moved, and what follows from it."""

    desk: Desk
    snapshot: Snapshot
    labels: LabelSet
    counts: Counts

    def draw(self, address: Address) -> None:
        live = Live(address, self._redraw)
        with ui.element("section").classes("card"):
            self._controls(live)
        self._figures = show(Markup(""))
        with ui.element("div").classes("wide"):
            with ui.element("section").classes("card"):
                show(html("<h2>Labels by confidence</h2>"))
                self._chart = chart(self._options(address))
            with ui.element("section").classes("card"):
                show(html("<h2>The same from the shell</h2>"))
                self._command = show(Markup(""))
                self._saving(live)
        self._table = show(Markup(""))
        self._fill(address)

    def _controls(self, live: Live) -> None:
        balance = thresholds.read_balance(live.address)
        with ui.element("div").classes("controls"):
            self._choose_labels(live)
            live.select("policy", "Policy", POLICIES, value=balance.policy)
            _slider(live, "floor", "Floor", balance.min_confidence)
            live.typed("quota", "Draws of each class")
            live.typed("total", "Or of all together")
            _slider(live, "power", "Power, of a total", balance.power, high=1.0)
            live.classes("class", "Class to look at", self.snapshot.class_names)

    def _choose_labels(self, live: Live) -> None:
        known = {labels_name(s) for s in self.snapshot.labels("unlabeled")}
        choices = {n: t for n, t in label_choices(self.snapshot).items() if n in known}

        def go(event: Any) -> None:  # noqa: ANN401  NiceGUI's
            ui.navigate.to(live.address.with_(labels=event.value).url)

        found = ui.select(
            choices, label="Labels of", value=labels_name(self.labels), on_change=go
        )
        found.props("outlined dense options-dense")

    def _saving(self, live: Live) -> None:
        if not self.desk.is_review:
            show(note("Started with --review, this page saves the view itself."))
            return
        with ui.element("div").classes("controls").style("margin-top: 14px"):
            live.typed("view", "Name of the view")
            button = ui.button("Save as view").props("unelevated no-caps")
            button.on_click(lambda: self._save(live.address, button))

    async def _save(self, address: Address, button: ui.button) -> None:
        button.disable()
        try:
            balance = thresholds.read_balance(address)
            store = self.desk.for_review()
            made = await apart(
                thresholds.save, store, self.labels, balance, address.text("view")
            )
        except PlstoreError as error:
            ui.notify(str(error), type="negative", multi_line=True, position="top")
            button.enable()
            return
        await apart(self.desk.refresh)
        ui.navigate.to(url("/view", {"view": made.key}))

    async def _redraw(self, address: Address) -> None:
        change(self._chart, self._options(address))
        self._fill(address)

    def _class(self, address: Address) -> int | None:
        return self.snapshot.class_id(address.text("class"))

    def _options(self, address: Address) -> dict[str, Any]:
        balance = thresholds.read_balance(address)
        class_id = self._class(address)
        series = {"all classes": self.counts.histogram(bins=_BINS)}
        if class_id is not None:
            name = str(self.snapshot.class_name(class_id))
            series = {name: self.counts.histogram(class_id, _BINS)}
        edges = [f"{n / _BINS:.2f}" for n in range(_BINS)]
        at = min(int(balance.min_confidence * _BINS), _BINS - 1)
        return histogram(series, edges, x="confidence", at=at, logarithmic=True)

    def _fill(self, address: Address) -> None:
        balance = thresholds.read_balance(address)
        kept = keep(self.counts, balance, self.snapshot.class_names)
        self._figures.content = str(_figures(kept))
        said = thresholds.command(self.labels, balance, address.text("view"), self.desk.path)
        self._command.content = str(
            html('<pre class="cli" data-copy="{}" title="Click to copy">{}</pre>', said, said)
        )
        self._table.content = str(self._by_class(kept, self._class(address)))

    def _by_class(self, kept: Kept, only: int | None) -> Markup:
        order = [only] if only is not None else np.argsort(-kept.predicted, kind="stable")
        shown = [int(n) for n in order[:_MOST_CLASSES]]
        columns = [
            Column(name="Class"),
            Column(name="Predicted", kind="number"),
            Column(name="Above the floor", kind="number"),
            Column(name="Quota", kind="number"),
            Column(name="Kept", kind="number"),
            Column(name="Draws", kind="number"),
            Column(name="Copies", kind="number"),
            Column(name="Kept above", kind="number"),
            Column(name="Right, by validation"),
        ]
        most = max(int(kept.predicted.max(initial=1)), 1)
        rows = [self._row(kept, class_id, most) for class_id in shown]
        left = len(kept.predicted) - len(shown)
        more = note(f"and {left:,} classes more; choose one above") if left and not only else ""
        return html(
            '<section class="card"><h2>By class</h2>{}{}</section>', table(columns, rows), more
        )

    def _row(self, kept: Kept, class_id: int, most: int) -> tuple[Any, ...]:
        name = self.snapshot.class_name(class_id)
        within = {"labels": labels_name(self.labels), "class": name, "sort": "-confidence"}
        share, seen = kept.accuracy[class_id], int(kept.num_seen[class_id])
        right = (
            html("{} <small class='faint'>of {}</small>", percent(float(share), 0), seen)
            if seen
            else None
        )
        return (
            link(url("/grid", within), name),
            html("{} {}", count(kept.predicted[class_id]), _thin(kept, class_id, most)),
            int(kept.candidates[class_id]),
            int(kept.quotas[class_id]),
            int(kept.kept[class_id]),
            int(kept.draws[class_id]),
            f"{kept.copies[class_id]:.2f}",
            f"{kept.cuts[class_id]:.3f}" if kept.kept[class_id] else None,
            right,
        )


def _thin(kept: Kept, class_id: int, most: int) -> Markup:
    return html(
        '<span style="display:inline-block;width:64px;margin-left:8px">{}</span>',
        bar(int(kept.predicted[class_id]) / most),
    )


def _slider(live: Live, name: str, label: str, now: float, high: float = 0.999) -> None:
    with ui.element("div").classes("slider-box"):
        says = ui.html(sanitize=False)

        def say(value: float) -> None:
            says.content = f"<small>{label} <b>{value:g}</b></small>"

        async def changed(event: Any) -> None:  # noqa: ANN401  NiceGUI's
            value = min(round(event.value, 3), high)
            say(value)
            await live.change(**{name: value})

        say(now)
        ui.slider(min=0, max=1, step=0.01, value=now, on_change=changed).props("dense")


def _figures(kept: Kept) -> Markup:
    images, draws = int(kept.kept.sum()), int(kept.draws.sum())
    empty = int((kept.candidates == 0).sum())
    share = images / kept.num_accepted if kept.num_accepted else 0
    below = int((kept.predicted - kept.candidates).sum())
    over = int((kept.candidates - kept.kept).sum())
    parts = [
        figure(count(images), "images kept", f"{percent(share)} of {kept.num_accepted:,}"),
        figure(count(draws), "draws in a pass", f"{draws / max(images, 1):.2f} of each image"),
        figure(count(below), "below the floor", ""),
        figure(count(over), "over the quota", ""),
        figure(
            percent(kept.estimate),
            "right, estimated",
            f"from {int(kept.num_seen.sum()):,} validation images above the same cuts",
        ),
        figure(count(empty), "classes without one", ""),
    ]
    return html('<section class="figures">{}</section>', joined(parts))
