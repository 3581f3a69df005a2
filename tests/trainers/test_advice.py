"""What a result means: the best model, and what to try where students do not gain."""

from typing import Any

import pytest

from trainers.advice import advice, best_model


def result(
    last: float, control: float | None, teacher: float = 50.0, **changes: str
) -> dict[str, Any]:
    def model(name: str, accuracy: float | None) -> dict[str, Any]:
        return {
            "teacher_id": name,
            "test_accuracy": accuracy,
            "validation_accuracy": accuracy,
            "how": "scratch",
        }

    return {
        "teacher": {**model("t0", teacher), **changes},
        "students": [model("t1", 40.0), model("t2", last)],
        "control": None if control is None else model("control", control),
    }


@pytest.mark.parametrize(
    ("last", "control", "teacher", "name"),
    [(60, 50, 50, "t2"), (50, 50, 50, "t0"), (45, 50, 50, "t0"), (45, 70, 50, "control")],
)
def test_the_best_by_validation_is_the_model(
    last: float, control: float, teacher: float, name: str
) -> None:
    best = best_model(result(last, control, teacher))

    assert best is not None
    assert best["teacher_id"] == name


def test_without_validation_no_model_is_best() -> None:
    found = result(60, 50)
    for model in (found["teacher"], found["control"], *found["students"]):
        model["validation_accuracy"] = None

    assert best_model(found) is None


def test_a_gain_beyond_chance_needs_no_advice() -> None:
    lines = advice(result(60, 50), num_images=1000)

    assert len(lines) == 1
    assert "t2" in lines[0]


@pytest.mark.parametrize(
    ("last", "control", "images", "says"),
    [
        (48, 50, 10_000, "-2.00 points from the control. Try: start from pretrained"),
        (51, 50, 100, "+1.00 points from the control, which is within chance"),
        (49, None, 10_000, "-1.00 points from the teacher"),
    ],
)
def test_no_gain_is_said_with_what_to_try(
    last: float, control: float | None, images: int, says: str
) -> None:
    assert says in advice(result(last, control), num_images=images)[-1]


def test_other_things_are_to_be_tried_with_given_weights() -> None:
    (_, line) = advice(result(40, 50, how="probe"), num_images=10_000)

    assert "--set select.min_confidence=0.8" in line
    assert "pretrained" not in line


def test_few_validation_images_are_said() -> None:
    (line,) = advice(result(60, 50), num_images=1000, num_validation=14)

    assert "60.00 % of 14 images, which are few" in line


def test_a_floor_that_keeps_little_is_to_be_lowered() -> None:
    found = result(40, 50, how="probe")
    found["students"][-1] |= {"min_confidence": 0.5, "counts": {"kept": 292, "in": 20_000}}

    line = advice(found, num_images=10_000)[-1]
    assert "lower the floor, which kept 292 of 20,000 images" in line
    assert "raise the floor" not in line


def test_what_was_done_already_is_not_advised() -> None:
    found = result(40, 50, how="probe")
    found["students"][-1]["min_confidence"] = 0.8

    assert "raise the floor" not in advice(found, num_images=10_000)[-1]
