"""Runs: how models were trained, what they are worth, and how robust they are."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup
from nicegui import ui

from plstore.report.markup import Cell, Column, html, link, note, percent, table
from plstore.report.runs import FinishedRun
from plstore.report.snapshot import Snapshot
from plstore.ui import models
from plstore.ui.address import Address, url
from plstore.ui.desk import Desk
from plstore.ui.models import Curves
from plstore.ui.pages.charts import chart, columns, lines
from plstore.ui.pages.frame import apart, heading, show

_NAMES: Final = {
    "train/loss": "Training loss",
    "validation/accuracy": "Validation accuracy, %",
    "train/learning_rate": "Learning rate",
    "train/images_per_second": "Images a second",
    "train/epoch_seconds": "Seconds an epoch",
    "train/peak_memory_bytes": "Peak memory, bytes",
    "input/wait_share": "Share of waiting for images",
}
_SHARES: Final = ("accuracy", "low", "high", "top5_accuracy")
_MOST_RUNS: Final = 8


async def draw(desk: Desk, address: Address) -> None:
    """Draw the page."""
    snapshot = desk.snapshot()
    heading("Runs", "How models were trained, and what they are worth.")
    known = await apart(models.run_names, snapshot)
    named = [n for n in address.text("models").split(",") if n in known]
    chosen = named or known[-_MOST_RUNS:]
    done = await apart(models.finished, snapshot)
    if not known and not done:
        show(note("Nothing was measured yet: plstore run and plstore train do."))
        return
    if done:
        show(_finished(done))
    _choose(address, known, chosen)
    found = await apart(models.curves, snapshot, chosen)
    _curves(found)
    show(_single(found))
    for split in ("test", "validation"):
        rows = await apart(models.metrics, snapshot, split)
        if rows:
            show(_metrics(rows, split))
    await _robust(snapshot)


def _choose(address: Address, known: Sequence[str], chosen: Sequence[str]) -> None:
    def go(event: Any) -> None:  # noqa: ANN401  NiceGUI's
        ui.navigate.to(url("/runs", {**address.given, "models": ",".join(event.value)}))

    with ui.element("section").classes("card"), ui.element("div").classes("controls"):
        found = ui.select(
            list(known), label="Models", value=list(chosen), multiple=True, on_change=go
        )
        found.props("outlined dense options-dense use-chips").classes("wide-field")


def _finished(done: Sequence[FinishedRun]) -> Markup:
    rows = [found.row() for found in done]
    names = list(rows[0])
    cells: list[list[Cell]] = [[_cell(row[name]) for name in names] for row in rows]
    head = [Column(name=name.capitalize()) for name in names]
    return html('<section class="card"><h2>Finished runs</h2>{}</section>', table(head, cells))


def _cell(value: object) -> Cell:
    return value if value is None or isinstance(value, int | float | bool) else str(value)


def _curves(found: Curves) -> None:
    with ui.element("div").classes("columns"):
        for name, of in found.by_name.items():
            with ui.element("section").classes("card"):
                show(html("<h2>{}</h2>", _NAMES.get(name, name)))
                chart(lines(of))


def _single(found: Curves) -> Markup:
    """Return a line for each value, by metric: as long as there are, and never wider."""
    names = sorted({name for of in found.single.values() for name in of})
    if not names:
        return Markup("")
    head = [Column(name="Metric"), Column(name="Model"), Column(name="Value", kind="number")]
    rows: list[list[Cell]] = []
    for name in names:
        shown: Cell = html("<b>{}</b>", name)
        for model, of in found.single.items():
            if name in of:
                rows.append([shown, model, of[name]])
                shown = ""
    return html(
        '<section class="card"><h2>Measured once</h2>{}</section>',
        table(head, rows, css="tall wraps"),
    )


def _metrics(rows: Sequence[Mapping[str, Any]], split: str) -> Markup:
    names = [n for n in rows[0] if n not in {"iteration", "teacher_id"}]
    head = [
        Column(name="Iteration", kind="number"),
        Column(name="Teacher"),
        *(Column(name=n.replace("_", " "), kind="number") for n in names),
    ]
    cells: list[list[Cell]] = []
    for row in rows:
        within = {"labels": f"{row['teacher_id']}@{row['iteration']}", "split": split}
        values = [
            percent(row[n]) if n in _SHARES and row[n] is not None else row[n] for n in names
        ]
        cells.append(
            [
                row["iteration"],
                link(url("/compare", _compared(within)), row["teacher_id"]),
                *values,
            ]
        )
    return html(
        '<section class="card"><h2>Evaluated on {} images</h2>{}</section>',
        split,
        table(head, cells),
    )


def _compared(within: Mapping[str, str]) -> dict[str, str]:
    return {"a": "known", "b": within["labels"], "split": within["split"]}


async def _robust(snapshot: Snapshot) -> None:
    rows = await apart(models.robustness, snapshot)
    if not rows:
        return
    kinds = list(dict.fromkeys(row["perturbation"] for row in rows))
    teachers = list(dict.fromkeys(row["teacher_id"] for row in rows))
    series = {teacher: [_mean(rows, teacher, kind) for kind in kinds] for teacher in teachers}
    with ui.element("section").classes("card"):
        show(html("<h2>Accuracy on images made worse, %</h2>"))
        chart(columns(kinds, series))


def _mean(rows: Sequence[Mapping[str, Any]], teacher: str, kind: str) -> float | None:
    values = [
        100 * row["accuracy"]
        for row in rows
        if row["teacher_id"] == teacher and row["perturbation"] == kind
    ]
    return sum(values) / len(values) if values else None
