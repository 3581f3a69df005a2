"""What the benchmark of labels of views makes of its lines."""

import pytest

from benchmarks.view_labels import Comparing, measurements
from trainers.recipe import load_recipe


def test_differences_are_paired_by_seed() -> None:
    shared = {"teacher": 77.0, "clean seconds": 60, "views seconds": 80, "draws": 1000}
    lines = [
        {"seed": 0, "clean": 80.0, "views": 79.5, "bytes a draw": 21.0, **shared},
        {"seed": 1, "clean": 79.0, "views": 80.0, "bytes a draw": 22.0, **shared},
    ]
    found = {(m.contender, m.metric): m for m in measurements(lines) if m.case == "all seeds"}

    assert found["views", "difference"].value == 0.25
    assert found["views", "difference"].unit == "points"
    assert found["views", "difference_deviation"].value == pytest.approx(1.06)
    assert found["clean", "mean"].value == 79.5
    assert found["views", "bytes_a_draw"].value == 21.5


def test_both_recipes_are_the_same_but_for_the_labels() -> None:
    comparing = Comparing(recipe=load_recipe("fashion_mnist"), home=None)  # type: ignore[arg-type]  # nothing is run
    clean, views = (comparing.recipe_of(labels, 3) for labels in ("clean", "views"))

    assert views.label.views
    assert not clean.label.views
    assert views.model_copy(update={"label": clean.label}) == clean
    assert (clean.seed, clean.iterations, clean.control) == (3, 1, False)
