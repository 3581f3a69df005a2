"""The HTML report of a run: one file, nothing to fetch."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from plstore.report.figures import (
    accuracy_by_iteration,
    class_counts,
    confidence_histogram,
    contact_sheet,
)
from plstore.report.robustness import RobustModels, robust_models
from plstore.schema import REFUSALS
from plstore.storage import write_atomically
from plstore.store import Store
from plstore.views import find_view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; border-bottom: 1px solid #ddd }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0 }
code { background: #f3f3f3; padding: .1rem .3rem }
small { color: #666 }
</style></head><body>
<h1>$title</h1>
$body
</body></html>
""")


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
    students = result["students"]
    teachers = [student["taught_by"] for student in students]
    views = [find_view(store, student["view"]) for student in students]
    floor = students[0]["min_confidence"]
    parts = [
        _paragraph(
            f"Seed {result['seed']}, recipe {result['recipe_hash']}, plstore "
            f"{result['code_version']}, {result['run_seconds']} seconds of work."
        ),
        "<h2>Result</h2>",
        _table(rows),
        _image(accuracy_by_iteration(result), "accuracy by iteration"),
        "<h2>Images</h2>",
        _imported(result["imported"]),
        "<h2>Confidence</h2>",
        _image(confidence_histogram(store, teachers, floor), "confidence histogram"),
        "<h2>Classes before and after balancing</h2>",
    ]
    for student in students:
        parts.append(_selection(student["counts"]))
        figure = class_counts(
            store.class_names, student["counts"], iteration=student["iteration"]
        )
        parts.append(_image(figure, f"class counts, iteration {student['iteration']}"))
    if views[-1] is not None:
        sheet = contact_sheet(views[-1], store.class_names, rows=20, seed=result["seed"])
        parts += [
            "<h2>Pseudo-labeled images of the last student</h2>",
            _paragraph(
                "A row a class, drawn by the seed; above each, the teacher's confidence."
            ),
            _image(sheet, "contact sheet"),
        ]
    parts += _robustness(robust_models(store, result))
    title = html.escape(f"Noisy Student: {result['recipe']}")
    page = _PAGE.substitute(title=title, body="\n".join(parts))
    write_atomically(path, page.encode())


def _robustness(models: RobustModels) -> list[str]:
    """Return the part on images that were made worse; none where no model was evaluated so."""
    if not models.is_known:
        return []
    parts = [
        "<h2>Robustness</h2>",
        _paragraph(
            "Percent, of test images that were made worse on the way; 'plstore evaluate' with "
            "--corruptions, --sequences and --attacks asked the models."
        ),
        _table(models.table),
    ]
    if models.corrupted:
        parts.append(_image(models.accuracy_by_corruption(), "accuracy by corruption"))
    if models.attacked:
        parts.append(_image(models.accuracy_by_epsilon(), "accuracy under attacks"))
    return parts


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape('-' if v is None else str(v))}</td>" for v in row.values())
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _imported(imported: Mapping[str, Any]) -> str:
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
    table = _table(rows) if rows else ""
    return _paragraph(f"By split: {splits or 'imported before'}.") + table


def _selection(counts: Mapping[str, Any]) -> str:
    dropped = ", ".join(f"{reason} {n}" for reason, n in counts["dropped"].items()) or "none"
    text = (
        f"{counts['in']} unlabeled images in, {counts['kept']} kept, {counts['draws']} draws; "
        f"dropped: {dropped}."
    )
    if "shrunk" in counts:
        text += f" {counts['shrunk']} of the view's images are shrunk."
    if counts["classes_without_candidate"]:
        text += f" Nothing was kept for {', '.join(counts['classes_without_candidate'])}."
    return _paragraph(text)


def _image(figure: "Figure", alt: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
