"""What an accuracy is worth."""

import pytest

from trainers.evaluation.intervals import counted, wilson


@pytest.mark.parametrize(
    ("num_right", "num_images", "low", "high"),
    [  # by the formula of Wilson 1927, z = 1.959964
        (0, 10, 0.0, 27.7533),
        (10, 10, 72.2467, 100.0),
        (81, 263, 25.5289, 36.6210),
        (4050, 5000, 79.8881, 82.0625),
    ],
)
def test_the_interval_is_wilsons(
    num_right: int, num_images: int, low: float, high: float
) -> None:
    assert wilson(num_right, num_images) == pytest.approx((low, high), abs=1e-3)


def test_an_accuracy_says_how_many_were_right_if_it_can_be_of_so_many_images() -> None:
    assert counted(100 * 1 / 3, 6) == 2
    assert counted(100 * 4049 / 4999, 4999) == 4049
    assert counted(81.0, 7) is None
    assert counted(50.0, 0) is None
    assert counted(101.0, 100) is None
