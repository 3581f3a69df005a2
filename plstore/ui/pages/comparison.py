"""Compare: two teachers or iterations side by side, down to the images behind each number."""

from typing import Any

from markupsafe import Markup
from nicegui import ui

from plstore.labels import LabelSet
from plstore.report import comparison
from plstore.report.comparison import KNOWN, SHIFT_BINS, Comparison, previous_labels
from plstore.report.markup import (
    DASH,
    Column,
    count,
    figure,
    html,
    joined,
    link,
    note,
    percent,
    table,
)
from plstore.report.matrix import matrix
from plstore.report.snapshot import Snapshot, find_labels, labels_name
from plstore.ui.address import Address, url
from plstore.ui.desk import Desk
from plstore.ui.grid import label_choices
from plstore.ui.pages.charts import chart, histogram
from plstore.ui.pages.frame import apart, heading, show


async def draw(desk: Desk, address: Address) -> None:
    """Draw the page."""
    snapshot = desk.snapshot()
    heading("Compare", "Two sets of labels of the same images. Every number opens its images.")
    split = address.text("split", "unlabeled")
    labels = find_labels(snapshot, address.text("b"), split)
    if labels is None:
        show(note(f"No labels of {split} images like that: plstore label makes some."))
        return
    before = _other(snapshot, address, labels)
    _controls(snapshot, address, labels, before)
    if before is None:
        show(note("There are no other labels to compare these with yet."))
        return
    found = await apart(comparison.compare, snapshot, labels, before)
    pages = _Names(snapshot, labels, before)
    show(_figures(found, pages))
    with ui.element("div").classes("wide"):
        drawn = matrix(found, pages.name, (pages.earlier, pages.later), pages.of_cell)
        show(drawn).classes("card")
        with ui.element("div").classes("stack"):
            if any(found.shift):
                with ui.element("section").classes("card"):
                    show(html("<h2>Confidence, later less earlier</h2>"))
                    chart(_shift(found))
            show(_pairs(found, pages)).classes("card")


def _other(snapshot: Snapshot, address: Address, labels: LabelSet) -> LabelSet | str | None:
    name = address.text("a")
    if name == KNOWN:
        return KNOWN
    found = find_labels(snapshot, name, labels.split) if name else None
    if found is not None and found != labels:
        return found
    if labels.split != "unlabeled" and not name:
        return KNOWN
    return previous_labels(snapshot, labels)


def _controls(
    snapshot: Snapshot, address: Address, labels: LabelSet, before: LabelSet | str | None
) -> None:
    choices = label_choices(snapshot)

    def field(name: str, label: str, options: dict[str, str], value: str | None) -> None:
        def go(event: Any) -> None:  # noqa: ANN401  NiceGUI's
            ui.navigate.to(address.with_(**{name: event.value}).url)

        found = ui.select(options, label=label, value=value, on_change=go)
        found.props("outlined dense options-dense").classes("wide-field")

    other = labels_name(before) if isinstance(before, LabelSet) else before
    splits = {s.split: s.split for s in snapshot.sets}
    with ui.element("section").classes("card"), ui.element("div").classes("controls"):
        field("a", "Rows", {**choices, KNOWN: "what people say"}, other)
        field("b", "Columns", choices, labels_name(labels))
        field("split", "Split", splits, labels.split)


class _Names:
    """What both sides are called, and where their images are."""

    def __init__(self, snapshot: Snapshot, labels: LabelSet, before: LabelSet | str) -> None:
        self._snapshot = snapshot
        self.later = labels_name(labels)
        self.earlier = labels_name(before) if isinstance(before, LabelSet) else "people"
        self._within = {
            "labels": self.later,
            "split": labels.split,
            "against": KNOWN if before == KNOWN else self.earlier,
        }

    def name(self, class_id: int) -> str:
        return self._snapshot.class_name(class_id) or ""

    def images(self, **more: object) -> str:
        return url("/grid", {**self._within, **more})

    def of_cell(self, a_id: int, b_id: int) -> str:
        return self.images(**{"class": self.name(b_id), "other": self.name(a_id)})


def _figures(found: Comparison, names: _Names) -> Markup:
    changed = found.num_images - found.num_same
    flipped = link(names.images(change="flipped"), count(changed))
    parts = [
        figure(count(found.num_images), "images", "that both have"),
        figure(percent(found.agreement), "the same class", f"{found.num_same:,} images"),
        figure(flipped, "another class", "open them"),
        figure(_mean(found.a_mean), "mean confidence", names.earlier),
        figure(_mean(found.b_mean), "mean confidence", names.later),
    ]
    return html('<section class="figures">{}</section>', joined(parts))


def _mean(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _shift(found: Comparison) -> dict[str, Any]:
    edges = [f"{-1 + 2 * n / SHIFT_BINS:+.2f}" for n in range(SHIFT_BINS)]
    return histogram(
        {"images": found.shift}, edges, at=SHIFT_BINS // 2, logarithmic=True, x="shift"
    )


def _pairs(found: Comparison, names: _Names) -> Markup:
    if not found.pairs:
        return html("<h2>Changes</h2>{}", note("Not one class differs."))
    columns = [
        Column(name=names.earlier),
        Column(name=names.later),
        Column(name="Images", kind="number"),
    ]
    rows = [
        (
            names.name(pair.a_id),
            names.name(pair.b_id),
            link(names.of_cell(pair.a_id, pair.b_id), count(pair.num_images)),
        )
        for pair in found.pairs[:12]
    ]
    return html("<h2>What is taken for what</h2>{}", table(columns, rows))
