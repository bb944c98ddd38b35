"""Intervals and top sets keep what they promise where the truth is known (docs/statistics.md has the long run)."""

import numpy as np
import pytest
from simulation import COLUMNS, accuracy, coverage, draw, without_bits, wrong

from benchmark.results.boards.standing import BELOW, Column, Member
from benchmark.results.statistics import difference


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_cover_the_truth_of_the_population(seeds):
    found = coverage(seeds, 700, np.random.default_rng(seeds))
    assert 0.93 <= found["mean"] <= 0.975 and 0.93 <= found["difference"] <= 0.975
    if seeds == 10:
        assert found["mean, seeds alone"] < 0.9  # what an interval over seeds leaves out


@pytest.mark.parametrize(("bits", "repeats"), [(True, 200), (False, 800)])
def test_the_best_stay_in_the_top_set(bits, repeats):
    """At most 5 % of the columns, as far as so many can tell (one standard deviation: 1.5 and 0.8 points)."""
    assert wrong(COLUMNS["6 equal"], 5, repeats, np.random.default_rng(1), bits) <= 0.058
    assert wrong(COLUMNS["4 equal, 4 worse"], 5, repeats // 2, np.random.default_rng(2), bits) <= 0.058


def test_without_correction_they_would_not():
    random = np.random.default_rng(3)
    columns = [draw(COLUMNS["6 equal"], 5, random, spread={"taste": 0.0}) for _ in range(100)]
    plain = [without_bits(c) for c in columns]
    means = [[np.mean(list(r.scores.values())) for r in c] for c in plain]
    worse = [any(difference(c[int(np.argmax(m))], r).p < 0.05 for r in c) for c, m in zip(plain, means)]
    assert np.mean(worse) > 0.15
    assert accuracy(0) == 50


def test_a_method_that_is_clearly_worse_is_found():
    tests = [Column([Member(r) for r in draw([0.6, 0.6, -0.2], 5, np.random.default_rng(s))]) for s in range(20)]
    assert sum(t.standing(2) == BELOW for t in tests) >= 19
