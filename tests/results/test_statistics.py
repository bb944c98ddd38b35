"""Intervals and differences against scipy and by hand."""

import math

import pytest
from scipy import stats

from benchmark.results.statistics import mean_interval, mean_std, paired_difference, t_quantile

VALUES = [71.2, 73.4, 69.9, 75.0, 72.2]


def test_mean_and_deviation():
    assert mean_std([1, 2, 3, 4]) == (2.5, pytest.approx(math.sqrt(5 / 3)))
    assert mean_std([5])[0] == 5 and math.isnan(mean_std([5])[1])
    with pytest.raises(ValueError):
        mean_std([])


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_interval_is_scipys(level):
    mean, half = mean_interval(VALUES, level)
    low, high = stats.t.interval(level, len(VALUES) - 1, loc=mean, scale=stats.sem(VALUES))
    assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))


def test_quantile_of_the_tables():
    assert t_quantile(0.95, 2) == pytest.approx(4.303, abs=1e-3) and t_quantile(0.95, 4) == pytest.approx(
        2.776, abs=1e-3
    )
    with pytest.raises(ValueError):
        t_quantile(1.0, 3)


def test_one_value_has_no_interval():
    mean, half = mean_interval([80.0])
    assert mean == 80 and math.isnan(half)


def test_paired_difference_uses_shared_seeds_only():
    a, b = {0: 80, 1: 82, 2: 84, 9: 0}, {0: 70, 1: 73, 2: 71, 5: 0}
    mean, half, n = paired_difference(a, b)
    paired = stats.ttest_rel([80, 82, 84], [70, 73, 71]).confidence_interval(0.95)
    assert n == 3 and mean - half == pytest.approx(paired.low) and mean + half == pytest.approx(paired.high)
    assert paired_difference({0: 1}, {1: 1})[2] == 0
