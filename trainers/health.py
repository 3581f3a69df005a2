"""How a run does from one iteration to the next: signs of help, and of harm.

Each is of the labels that a student learnt from: how well its teacher's confidence is
calibrated, how many labels changed, whether some class takes all of them.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from plstore.query import run_query
from plstore.store import Store

_MOST_FLIPS_COUNTED: Final = 5_000_000  # images: two sets of labels are joined
_CROWDED: Final = 3.0
_MISCALIBRATED: Final = 15.0
_FEW: Final = 50  # validation images: of fewer no calibration is told

Row = dict[str, Any]


def health(store: Store, students: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return a row for each student, with percent of its teacher's labels.

    Columns: calibration_error, the expected calibration error on validation images (Guo et al.
    2017); flips, unlabeled images whose class is another than the teacher before said;
    largest_class, the share of the most frequent class; missing_classes, how many classes have
    no pseudo-label. None where it is not known.
    """
    errors = _calibration_errors(store)
    flips = _flips(store, students)
    rows = []
    for number, student in enumerate(students):
        teacher, counts = student.get("taught_by"), student.get("counts") or {}
        predicted = counts.get("predicted_by_class") or []
        total = sum(predicted)
        rows.append(
            {
                "iteration": student.get("iteration"),
                "calibration_error": errors.get((student.get("iteration"), teacher)),
                "flips": flips[number] if number else None,
                "largest_class": _percent(max(predicted), total) if total else None,
                "missing_classes": predicted.count(0) if predicted else None,
            }
        )
    return rows


def warnings(rows: Sequence[Row], num_validation: int | None) -> list[str]:
    """Return a line for each sign of harm."""
    lines = []
    for row in rows:
        student, even = f"student {row['iteration']}", row.get("even_share") or 0.0
        largest = row["largest_class"]
        if even and largest is not None and largest > min(_CROWDED * even, 95.0):
            lines.append(
                f"the teacher of {student} called {largest:.0f} % of the images one class, "
                f"{even:.0f} % would be even: labels collapse. Label more images of the "
                "others; a balance (--set select.policy=exact) trains on fewer of that class"
            )
        error = row["calibration_error"]
        if error is not None and error > _MISCALIBRATED and (num_validation or 0) >= _FEW:
            lines.append(
                f"the confidence of the teacher of {student} is off by {error:.0f} points on "
                "validation images, so a floor cuts elsewhere than it says: 'plstore "
                "calibrate' finds a temperature for label.temperature"
            )
    flips = [row["flips"] for row in rows if row["flips"] is not None]
    if len(flips) > 1 and flips[-1] > flips[-2] * 1.5:
        lines.append(
            f"labels change more and more between iterations ({flips[-2]:.1f} then "
            f"{flips[-1]:.1f} % of them): fewer iterations, or milder noise"
        )
    return lines


def _calibration_errors(store: Store) -> dict[tuple[Any, Any], float]:
    rows = run_query(store, "calibration/expected_calibration_error").to_pylist()
    return {(row["iteration"], row["teacher_id"]): 100 * row["ece"] for row in rows}


def _flips(store: Store, students: Sequence[Mapping[str, Any]]) -> list[float | None]:
    sizes = [(student.get("counts") or {}).get("in", 0) for student in students]
    if len(students) < 2 or max(sizes) > _MOST_FLIPS_COUNTED:  # noqa: PLR2004  one has none before
        return [None] * len(students)
    flipped: dict[tuple[Any, Any, Any], int] = {}
    for row in run_query(store, "drift/flips_by_class").to_pylist():
        key = (row["iteration"], row["teacher_before"], row["teacher_after"])
        flipped[key] = flipped.get(key, 0) + row["num_images"]
    found: list[float | None] = [None]
    for before, student in pairwise(students):
        key = (student.get("iteration"), before.get("taught_by"), student.get("taught_by"))
        size = (student.get("counts") or {}).get("in", 0)
        found.append(_percent(flipped.get(key, 0), size) if size else None)
    return found


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole
