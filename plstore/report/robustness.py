"""How robust the models of a run are, where they were evaluated for it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any, Final

from plstore.query import run_query
from plstore.report.figures import COLOURS, new_figure
from plstore.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

_SPLIT: Final = "test"
_INTERVAL_ALPHA: Final = 0.15


@dataclass(frozen=True)
class RobustModels:
    """What models say of images that were made worse.

    Attributes:
        names: What people call each model, by its teacher id, in order.
        corrupted: Rows of `evaluation/perturbed_accuracy`, of corruptions.
        attacked: The same of attacks.
        flips: Rows of `evaluation/flip_probabilities`.
    """

    names: Mapping[str, str]
    corrupted: Sequence[Row]
    attacked: Sequence[Row]
    flips: Sequence[Row]

    @property
    def is_known(self) -> bool:
        """Whether any of them was evaluated."""
        return bool(self.corrupted or self.attacked or self.flips)

    @property
    def table(self) -> list[dict[str, object]]:
        """A row a model, percent: accuracy under corruptions, changes from frame to frame."""
        return [
            {
                "model": name,
                "accuracy under corruptions": _percent(
                    row["accuracy"] for row in _of(self.corrupted, teacher_id)
                ),
                "changes of class from frame to frame": _percent(
                    row["flip_probability"] for row in _of(self.flips, teacher_id)
                ),
            }
            for teacher_id, name in self.names.items()
        ]

    def accuracy_by_corruption(self) -> "Figure":
        """Draw the accuracy under each corruption, the mean of its severities."""
        kinds = sorted({row["perturbation"] for row in self.corrupted})
        figure, axes = new_figure(6.4, 0.6 + 0.11 * len(kinds) * (1 + len(self.names)))
        height = 0.8 / len(self.names)
        for index, (teacher_id, name) in enumerate(self.names.items()):
            found = [
                100 * mean(r["accuracy"] for r in _of(self.corrupted, teacher_id, kind))
                if _of(self.corrupted, teacher_id, kind)
                else float("nan")
                for kind in kinds
            ]
            places = [place + index * height for place in range(len(kinds))]
            axes.barh(places, found, height, label=name, color=COLOURS[index % len(COLOURS)])
        middle = 0.4 - height / 2
        axes.set_yticks([place + middle for place in range(len(kinds))], kinds)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel(f"accuracy, %, of {_SPLIT} images, mean of severities")
        figure.legend(loc="outside upper center", ncols=len(self.names), frameon=False)
        return figure

    def accuracy_by_epsilon(self) -> "Figure":
        """Draw the accuracy under each attack by its epsilon, with 95 % intervals."""
        kinds = sorted({row["perturbation"] for row in self.attacked})
        figure, axes = new_figure(6.4, 3.6)
        for index, (teacher_id, name) in enumerate(self.names.items()):
            colour = COLOURS[index % len(COLOURS)]
            for kind, style in zip(kinds, ("-", "--", ":", "-.") * len(kinds), strict=False):
                rows = _of(self.attacked, teacher_id, kind)
                radii = [row["level"] for row in rows]
                low, middle, high = (
                    [100 * row[end] for row in rows] for end in ("low", "accuracy", "high")
                )
                label = f"{name}, {kind}"
                axes.plot(radii, middle, style, marker="o", color=colour, label=label)
                axes.fill_between(radii, low, high, color=colour, alpha=_INTERVAL_ALPHA)
        radii = sorted({row["level"] for row in self.attacked})
        axes.set_xscale("log")
        axes.set_xticks(radii, [f"{radius:.3g}" for radius in radii])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("epsilon, pixels from 0 to 1")
        axes.set_ylabel("accuracy, %")
        axes.legend(loc="best", frameon=False, fontsize="small")
        return figure


def robust_models(store: Store, result: Mapping[str, Any]) -> RobustModels:
    """Return what is known of the models of a run.

    Args:
        store: The store that the run filled.
        result: The run's `result.json`.
    """
    names = {result["teacher"]["teacher_id"]: "teacher"}
    names |= {s["teacher_id"]: f"student {s['iteration']}" for s in result["students"]}
    if result["control"] is not None:
        names[result["control"]["teacher_id"]] = "control"
    accuracy, flips = "evaluation/perturbed_accuracy", "evaluation/flip_probabilities"
    corrupted = run_query(store, accuracy, split=_SPLIT, kind="corruption").to_pylist()
    attacked = run_query(store, accuracy, split=_SPLIT, kind="attack").to_pylist()
    changes = run_query(store, flips, split=_SPLIT).to_pylist()
    there = {row["teacher_id"] for row in (*corrupted, *attacked, *changes)}
    own = {teacher_id: name for teacher_id, name in names.items() if teacher_id in there}
    return RobustModels(
        own, *(_asked_of_all(rows, own) for rows in (corrupted, attacked, changes))
    )


def _asked_of_all(rows: Sequence[Row], names: Mapping[str, str]) -> list[Row]:
    """Return rows of what every model was asked that was asked at all, of as many images."""
    own = [row for row in rows if row["teacher_id"] in names]
    asked = Counter((row["perturbation"], row.get("level"), row["num_images"]) for row in own)
    num_models = len({row["teacher_id"] for row in own})
    return [
        row
        for row in own
        if asked[row["perturbation"], row.get("level"), row["num_images"]] == num_models
    ]


def _of(rows: Sequence[Row], teacher_id: str, kind: str | None = None) -> list[Row]:
    return [
        row
        for row in rows
        if row["teacher_id"] == teacher_id and kind in {None, row["perturbation"]}
    ]


def _percent(shares: Iterator[float]) -> str | None:
    values = list(shares)
    return f"{100 * mean(values):.1f}" if values else None
