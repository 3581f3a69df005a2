"""Figures of a run, as matplotlib figures; no window, no global state."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from plstore.query import run_query
from plstore.seeds import Purpose, generator
from plstore.store import Store
from plstore.views import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHEET_COLUMNS = 12
_SHEET_PIXELS = 96
COLOURS = ("#4f5bd5", "#d08a2e", "#1a7f4e", "#c2410c", "#8a6fc9", "#3d9bb3")
"""Those of the app's charts."""


def new_figure(width: float, height: float) -> tuple["Figure", "Axes"]:
    """Return a figure of some inches, and its axes, in the style of the report."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def accuracy_by_iteration(result: Mapping[str, Any]) -> "Figure":
    """Draw the accuracy of teacher and students, with the control as a line."""
    key, name = "test_accuracy", "test"
    if result["teacher"][key] is None:
        key, name = "validation_accuracy", "validation"
    models = [result["teacher"], *result["students"]]
    values = [float("nan") if model[key] is None else model[key] for model in models]
    figure, axes = new_figure(6.4, 3.4)
    axes.plot(range(len(values)), values, marker="o", color=COLOURS[0], label="plstore")
    for place in enumerate(values):
        text = f"{place[1]:.1f}"
        axes.annotate(text, place, (0, 7), textcoords="offset points", ha="center")
    control = None if result["control"] is None else result["control"][key]
    if control is not None:
        label = f"control, labels alone ({control:.1f})"
        axes.axhline(control, color=COLOURS[1], linestyle="--", label=label)
    axes.set_xticks(
        range(len(values)), ["teacher", *(f"student {i}" for i in range(1, len(values)))]
    )
    axes.set_ylabel(f"{name} accuracy, %")
    axes.margins(y=0.2)
    axes.legend(loc="best", frameon=False)
    return figure


def confidence_histogram(store: Store, teacher_ids: Sequence[str], floor: float) -> "Figure":
    """Draw how confident each teacher is on the unlabeled images, and the confidence floor."""
    rows = run_query(store, "coverage/confidence_histogram").to_pylist()
    figure, axes = new_figure(6.4, 3.4)
    edges = np.linspace(0, 1, 21)
    for index, teacher_id in enumerate(teacher_ids):
        counts = np.zeros(20)
        for row in rows:
            if row["teacher_id"] == teacher_id:
                counts[row["bin"]] += row["num_labels"]
        colour = COLOURS[index % len(COLOURS)]
        axes.stairs(counts, edges, label=teacher_id, color=colour, linewidth=1.5)
    axes.set_yscale("symlog", linthresh=10)
    axes.axvline(floor, color="black", linestyle=":", label=f"floor {floor:g}")
    axes.set_xlabel("confidence (highest probability)")
    axes.set_ylabel("unlabeled images")
    axes.legend(loc="upper left", frameon=False)
    return figure


def class_counts(
    class_names: Sequence[str], counts: Mapping[str, Any], *, iteration: int
) -> "Figure":
    """Draw images by predicted class: predicted, kept, and draws after balancing."""
    figure, axes = new_figure(max(6.4, 0.5 * len(class_names)), 3.6)
    positions = np.arange(len(class_names))
    series = (
        ("predicted", counts["predicted_by_class"]),
        ("kept", counts["kept_by_class"]),
        ("draws after balancing", counts["draws_by_class"]),
    )
    for index, (name, values) in enumerate(series):
        axes.bar(
            positions + (index - 1) * 0.27,
            values,
            width=0.27,
            label=name,
            color=COLOURS[index],
        )
    axes.set_xticks(positions, class_names, rotation=35, ha="right", parse_math=False)
    axes.set_ylabel("images")
    axes.set_title(f"iteration {iteration}", fontsize=10)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.3))
    return figure


def contact_sheet(view: View, class_names: Sequence[str], *, rows: int, seed: int) -> "Figure":
    """Show pseudo-labeled images of a view, drawn by a seed: a row a class, sure ones first.

    Classes are drawn too where there are more than `rows`.
    """
    from matplotlib.figure import Figure

    random = generator(seed, Purpose.CONTACT_SHEET)
    chosen = np.arange(len(class_names))
    if len(chosen) > rows:
        chosen = np.sort(random.choice(chosen, rows, replace=False))
    figure = Figure(figsize=(_SHEET_COLUMNS * 0.85, len(chosen) * 1.05), layout="constrained")
    grid = figure.subplots(len(chosen), _SHEET_COLUMNS, squeeze=False)
    for axes, class_id in zip(grid, chosen.tolist(), strict=True):
        picks = _picks(view, class_id, random)
        axes[0].set_ylabel(
            class_names[class_id], rotation=0, ha="right", va="center", fontsize=8
        )
        for cell in axes:
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
        for cell, (confidence, data) in zip(axes, picks, strict=False):
            cell.imshow(_thumbnail(data), cmap="gray", vmin=0, vmax=255)
            cell.set_title(f"{confidence:.2f}", fontsize=7, pad=2)
    return figure


def _picks(view: View, class_id: int, random: np.random.Generator) -> list[tuple[float, bytes]]:
    record = view.record
    dataset = view.store.table("view_rows").dataset(record.rows_version)
    here = (
        (pc.field("view") == record.view)
        & (pc.field("version") == record.version)
        & (pc.field("kind") == "pseudo")
        & (pc.field("class_id") == class_id)
    )
    ids = dataset.to_table(columns=["sample_id"], filter=here)["sample_id"].to_numpy()
    if not len(ids):
        return []
    some = random.choice(ids, min(_SHEET_COLUMNS, len(ids)), replace=False)
    found = dataset.to_table(filter=here & pc.field("sample_id").isin(some)).to_batches()
    rows = [row for batch in view.with_images(found) for row in batch.to_pylist()]
    picks = [(float(row["confidence"]), row["image"]) for row in rows]
    return sorted(picks, key=lambda pick: -pick[0])


def _thumbnail(data: bytes) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((_SHEET_PIXELS, _SHEET_PIXELS))
        return np.asarray(image)
