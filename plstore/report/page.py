"""The HTML report of a run: one file, nothing to fetch, in the colours of the app."""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from plstore.report import sections
from plstore.report.figures import (
    accuracy_by_iteration,
    class_counts,
    confidence_histogram,
    contact_sheet,
)
from plstore.report.markup import Cell, Column, html, joined, note, style, table
from plstore.report.robustness import RobustModels, robust_models
from plstore.report.sections import card
from plstore.report.snapshot import Snapshot
from plstore.schema import REFUSALS
from plstore.storage import write_atomically
from plstore.store import Store
from plstore.views import find_view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title><style>{style}</style></head><body>
<main class="main report"><div><h1>{title}</h1><p class="lead">{lead}</p></div>
{body}
</main></body></html>
"""
_DARK: Final = re.compile(r"body\.body--dark([^{}]*)\{([^{}]*)\}")


def write_report(
    path: Path, store: Store, result: Mapping[str, Any], rows: Sequence[Mapping[str, object]]
) -> None:
    """Write the report of a finished run.

    Args:
        path: The HTML file.
        store: The store that the run filled.
        result: The run's `result.json`.
        rows: Its table.
    """
    lead = (
        f"Seed {result['seed']}, recipe {result['recipe_hash']}, plstore "
        f"{result['code_version']}, {result['run_seconds']} seconds of work."
    )
    page = html(
        _PAGE,
        title=f"Noisy Student: {result['recipe']}",
        style=Markup(_style()),  # noqa: S704  the program's own
        lead=lead,
        body=joined(_parts(store, result, rows), "\n"),
    )
    write_atomically(path, page.encode())


def _style() -> str:
    """Return the app's style, dark where the system is, and what only a report has."""
    shared, own = style("style.css"), style("report.css")
    dark = " ".join(f"body{where}{{{rules}}}" for where, rules in _DARK.findall(shared))
    light = _DARK.sub("", shared)
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{ {dark} }}\n{own}"


def _parts(
    store: Store, result: Mapping[str, Any], rows: Sequence[Mapping[str, object]]
) -> Iterator[Markup]:
    students = result["students"]
    snapshot = Snapshot(store)
    labels = sections.labels_of_run(snapshot, result)
    views = [find_view(store, student["view"]) for student in students]
    floor = students[0]["min_confidence"]
    accuracy = _image(accuracy_by_iteration(result), "accuracy by iteration")
    yield card("Result", _table(rows), accuracy)
    yield sections.led(snapshot)
    yield card("Images", _imported(result["imported"]))
    teachers = [student["taught_by"] for student in students]
    histogram = confidence_histogram(store, teachers, floor)
    yield card("Confidence", _image(histogram, "confidence histogram"))
    taught = [one for one in labels if one.teacher_id == teachers[-1]]
    if taught:
        given = {} if views[-1] is None else views[-1].record.parameters
        floor = students[-1]["min_confidence"]
        yield sections.kept_by_floor(snapshot, taught[-1], floor, given)
    yield card("Classes before and after balancing", *_balanced(store, students))
    if len(labels) > 1:
        yield sections.confusion(snapshot, labels[-2], labels[-1])
    if views[-1] is not None:
        sheet = contact_sheet(views[-1], store.class_names, rows=20, seed=result["seed"])
        said = "A row a class, drawn by the seed; above each, the teacher's confidence."
        title = "Pseudo-labeled images of the last student"
        yield card(title, note(said), _image(sheet, "contact sheet", "sheet"))
    if labels:
        yield sections.worth_a_look(snapshot, labels[-1])
    yield from _robustness(robust_models(store, result))


def _balanced(store: Store, students: Sequence[Mapping[str, Any]]) -> Iterator[Markup]:
    for student in students:
        yield _selection(student["counts"])
        number = student["iteration"]
        figure = class_counts(store.class_names, student["counts"], iteration=number)
        yield _image(figure, f"class counts, iteration {number}")


def _robustness(models: RobustModels) -> Iterator[Markup]:
    """Yield the part on images that were made worse; nothing where no model was asked so."""
    if not models.is_known:
        return
    said = (
        "Percent, of test images that were made worse on the way; 'plstore evaluate' with "
        "--corruptions, --sequences and --attacks asked the models."
    )
    parts = [note(said), _table(models.table)]
    if models.corrupted:
        parts.append(_image(models.accuracy_by_corruption(), "accuracy by corruption"))
    if models.attacked:
        parts.append(_image(models.accuracy_by_epsilon(), "accuracy under attacks"))
    yield card("Robustness", *parts)


def _table(rows: Sequence[Mapping[str, object]]) -> Markup:
    columns = [Column(name=name) for name in rows[0]]
    cells: list[list[Cell]] = [
        [None if value is None else str(value) for value in row.values()] for row in rows
    ]
    return table(columns, cells)


def _imported(imported: Mapping[str, Any]) -> Markup:
    rows: list[dict[str, object]] = [
        {"images": count, "verdict": verdict, "meaning": REFUSALS.get(verdict, "used")}
        for verdict, count in imported["verdicts"].items()
    ]
    rows += [
        {"images": count, "verdict": f"accepted, {name}", "meaning": "converted at import"}
        for name, count in imported["conversions"].items()
    ]
    rows += [
        {"images": count, "verdict": fault, "meaning": "not imported; tried again next time"}
        for fault, count in imported.get("unread", {}).items()
    ]
    splits = ", ".join(f"{split} {count}" for split, count in imported["splits"].items())
    said = note(f"By split: {splits or 'imported before'}.")
    return joined([said, _table(rows)]) if rows else said


def _selection(counts: Mapping[str, Any]) -> Markup:
    dropped = ", ".join(f"{reason} {n}" for reason, n in counts["dropped"].items()) or "none"
    text = (
        f"{counts['in']} unlabeled images in, {counts['kept']} kept, {counts['draws']} draws; "
        f"dropped: {dropped}."
    )
    if "shrunk" in counts:
        text += f" {counts['shrunk']} of the view's images are shrunk."
    if counts["classes_without_candidate"]:
        text += f" Nothing was kept for {', '.join(counts['classes_without_candidate'])}."
    return note(text)


def _image(figure: "Figure", alt: str, css: str = "figure") -> Markup:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    data = base64.b64encode(stream.getvalue()).decode()
    address = f"data:image/png;base64,{data}"
    return html('<img class="{}" alt="{}" src="{}">', css, alt, Markup(address))  # noqa: S704  base64
