"""Parts of a report that are made from the same as the pages of the app."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from markupsafe import Markup

from plstore.errors import QueryError
from plstore.labels import LabelSet
from plstore.query import Limits, run_query
from plstore.report import drawing, lineage
from plstore.report.comparison import compare
from plstore.report.markup import Cell, Column, html, joined, note, percent, table
from plstore.report.matrix import matrix
from plstore.report.shown import pictures
from plstore.report.snapshot import Snapshot, labels_name
from plstore.report.thresholds import counts_of, keep
from plstore.report.tiles import Tile, tile
from plstore.selection import Balance

_FLOORS: Final = (0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_NUM_IMAGES: Final = 12
_QUERY: Final = "review/worth_a_look"
_LIMITS: Final = Limits(seconds=300.0)


def card(title: str, *parts: Markup) -> Markup:
    """Return a part of a report under its title."""
    return html('<section class="card"><h2>{}</h2>{}</section>', title, joined(parts))


def labels_of_run(snapshot: Snapshot, result: Mapping[str, Any]) -> list[LabelSet]:
    """Return the labels of unlabeled images that a run's models gave, the last ones last."""
    students = result["students"]
    names = [*(s.get("taught_by") for s in students), *(s["teacher_id"] for s in students)]
    known = snapshot.labels("unlabeled")
    found = [labels for name in names for labels in known if labels.teacher_id == name]
    return list(dict.fromkeys(found))


def led(snapshot: Snapshot) -> Markup:
    """Return what led to what in the store, of this run and others."""
    layout = lineage.lineage(snapshot, lineage.models(snapshot))
    return card("What led to what", drawing.lineage(layout))


def kept_by_floor(
    snapshot: Snapshot, labels: LabelSet, floor: float, parameters: Mapping[str, Any]
) -> Markup:
    """Return what other floors of confidence would leave of labels, by the same balance."""
    known = {f.name for f in fields(Balance)}
    given = {n: v for n, v in parameters.items() if n in known and n != "min_confidence"}
    counts = counts_of(snapshot, labels)
    columns = [
        *(Column(name=n, kind="number") for n in ("Floor", "Above it", "Of all", "Kept")),
        *(Column(name=n, kind="number") for n in ("Draws", "Classes without one")),
        Column(name="Right, by validation", kind="number"),
    ]
    rows: list[list[Cell]] = []
    for number in sorted({*_FLOORS, round(floor, 3)}):
        kept = keep(counts, Balance(min_confidence=number, **given), snapshot.class_names)
        above, total = int(kept.candidates.sum()), max(int(kept.predicted.sum()), 1)
        rows.append(
            [
                html("<b>{}</b>" if number == round(floor, 3) else "{}", f"{number:g}"),
                above,
                percent(above / total),
                int(kept.kept.sum()),
                int(kept.draws.sum()),
                int((kept.candidates == 0).sum()),
                percent(kept.estimate),
            ]
        )
    said = f"Labels of {labels_name(labels)}, balanced as for the last student."
    return card("Kept by floor", note(said), table(columns, rows))


def confusion(snapshot: Snapshot, before: LabelSet, labels: LabelSet) -> Markup:
    """Return how the last labels differ from those before."""
    found = compare(snapshot, before, labels)
    same = found.num_same / max(found.num_images, 1)
    said = f"{found.num_images:,} images that both have; {percent(same)} of the same class."
    drawn = matrix(
        found,
        lambda class_id: snapshot.class_name(class_id) or "",
        (labels_name(before), labels_name(labels)),
    )
    return html('<section class="card">{}{}</section>', drawn, note(said))


def worth_a_look(snapshot: Snapshot, labels: LabelSet) -> Markup:
    """Return a handful of the images that a look helps most, or why there are none."""
    title = "Most worth a look"
    try:
        rows = run_query(
            snapshot.store,
            _QUERY,
            as_of=snapshot.pins,
            limits=_LIMITS,
            teacher_id=labels.teacher_id,
            iteration=labels.iteration,
            num_images=_NUM_IMAGES,
        ).to_pylist()
    except QueryError as error:
        return card(title, note(f"Left out: {str(error).partition(chr(10))[0]}"))
    if not rows:
        return card(title, note("No image is in doubt."))
    said = "By disagreement, doubt, likely errors and cuts: plstore ui --review has them all."
    tiles = html('<div class="tiles">{}</div>', joined(_tiles(snapshot, rows)))
    return card(title, note(said), tiles)


def _tiles(snapshot: Snapshot, rows: Sequence[Mapping[str, Any]]) -> list[Markup]:
    shots = pictures(snapshot).of([row["sample_id"] for row in rows])
    return [
        tile(
            Tile(
                sample_id=row["sample_id"],
                key=row["key"],
                split=row["split"],
                class_name=row["class_name"],
                confidence=None,
                other_name=row["label_name"] or row["other_name"],
            ),
            shots[row["sample_id"]],
            more=row["why"],
        )
        for row in rows
    ]
