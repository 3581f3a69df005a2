"""Intervals of paired differences, and what they show."""

import numpy as np
import pytest
from scipy import stats

from trainers.ablation.statistics import paired


def test_a_difference_that_is_always_there_agrees() -> None:
    found = paired([2.4, 3.1, 2.2, 2.9, 3.4])

    assert found.mean == pytest.approx(2.8)
    assert found.low is not None
    assert found.high is not None
    assert 1.5 < found.low < 2.2
    assert 3.4 < found.high < 4.1
    assert found.method == "the wider of BCa bootstrap and Student's t"
    assert found.seeds == 5
    assert (found.verdict("+"), found.verdict("-")) == ("agrees", "contradicts")


def test_one_that_crosses_zero_is_not_shown() -> None:
    found = paired([-0.5, 0.7, -0.1, 0.6, -0.4])

    assert found.verdict("+") == found.verdict("-") == "not shown"


def test_of_few_seeds_a_mean_of_zero_is_rarely_taken_for_another() -> None:
    random = np.random.default_rng(0)
    wrong = sum(
        paired(random.normal(size=3).tolist()).verdict("+") != "not shown" for _ in range(200)
    )

    assert wrong <= 20  # 39 by the bootstrap alone


def test_the_interval_is_the_wider_of_two_of_scipy_and_the_same_each_time() -> None:
    values = [0.3, 1.9, 0.8, -0.2, 2.5, 0.9]
    first, second = paired(values), paired(values)
    t_low, t_high = stats.t.interval(0.95, 5, loc=np.mean(values), scale=stats.sem(values))
    wide = stats.bootstrap((values,), np.mean, method="BCa", rng=np.random.default_rng(1))

    assert first == second
    assert (first.t_low, first.t_high) == pytest.approx((t_low, t_high))
    assert first.bootstrap_low == pytest.approx(wide.confidence_interval.low, abs=0.1)
    assert first.bootstrap_high == pytest.approx(wide.confidence_interval.high, abs=0.1)
    assert first.bootstrap_low is not None
    assert first.bootstrap_high is not None
    assert first.low == min(first.bootstrap_low, t_low)
    assert first.high == max(first.bootstrap_high, t_high)


def test_few_or_equal_differences_say_how_their_interval_was_made() -> None:
    one, two, same = paired([1.5]), paired([1.0, 1.2]), paired([0.5] * 4)

    assert (one.low, one.high, one.method) == (None, None, "none: one seed")
    assert one.verdict("+") == "not shown"
    assert two.method.startswith("Student's t")
    assert two.low == pytest.approx(1.1 - 12.706 * 0.1, abs=1e-3)
    assert two.verdict("+") == "not shown"
    assert (two.bootstrap_low, two.bootstrap_high) == (None, None)
    assert (same.low, same.high) == (0.5, 0.5)
    assert same.verdict("+") == "agrees"
    assert (paired([0.5] * 2).low, paired([0.5] * 2).verdict("+")) == (None, "not shown")
    assert paired([0.0] * 3).verdict("+") == "not shown"


def test_differences_of_two_values_have_an_interval() -> None:
    found = paired([1.0, 1.0, 1.0, 1.0, 0.0])

    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.mean <= found.high
