"""Means over seeds and what they are worth: t intervals, paired differences, two sources of error, many tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
MIN_SHARED = 3  # seeds that two results must share before a test can tell them apart


class Results(NamedTuple):
    """A cell's scores by seed, percent, and where known which test images each student got right (bool ``[N]``)."""

    scores: Mapping[int, float]
    right: Mapping[int, np.ndarray] = {}


class Estimate(NamedTuple):
    """A mean with what makes it uncertain: ``sources`` are (variance of the mean, its degrees of freedom) each.

    ``images``: the sources are seeds and test images, else seeds alone. No sources: a single seed, nothing is known.
    """

    mean: float
    sources: tuple[tuple[float, float], ...]
    seeds: int
    images: bool = False

    def half_at(self, level: float) -> float:
        """Half width of the interval of ``level`` (0..1): those of the sources, each with its own t, in quadrature."""
        if not self.sources:
            return math.nan
        return math.sqrt(math.fsum(t_quantile(level, n) ** 2 * variance for variance, n in self.sources))

    @property
    def half(self) -> float:
        """Half width of the 95 % interval; NaN for one seed."""
        return self.half_at(LEVEL)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the whole (Satterthwaite 1946), at least those of the seeds."""
        total = math.fsum(variance for variance, _ in self.sources)
        parts = math.fsum(variance**2 / n for variance, n in self.sources)
        return max(total**2 / parts, self.seeds - 1) if parts else self.seeds - 1

    @property
    def p(self) -> float:
        """Two-sided p value of a mean of 0: one minus the level of the interval that ends there; NaN for one seed."""
        if not self.sources:
            return math.nan
        variances = [variance for variance, _ in self.sources if variance > 0]
        if not variances or self.mean == 0:
            return 1.0 if self.mean == 0 else 0.0
        from scipy.special import stdtr, stdtrit

        if len(variances) == 1:
            ((variance, n),) = (source for source in self.sources if source[0] > 0)
            return float(2 * stdtr(n, -abs(self.mean) / math.sqrt(variance)))
        low, high = -80.0, 0.0  # of the logarithm of p
        for _ in range(50):
            middle = (low + high) / 2
            half = math.fsum(stdtrit(n, math.exp(middle) / 2) ** 2 * variance for variance, n in self.sources)
            low, high = (low, middle) if half < self.mean**2 else (middle, high)
        return math.exp((low + high) / 2)


NOTHING = Estimate(math.nan, (), 0)


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and unbiased standard deviation (NaN for one value).

    Raises:
        ValueError: no values.
    """
    values = [float(v) for v in values]
    if not values:
        raise ValueError("no values")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


@lru_cache(maxsize=4096)
def t_quantile(level: float, freedom: float) -> float:
    """Two-sided quantile of Student's t: the half width in standard errors of an interval of ``level`` (0..1)."""
    from scipy.stats import t

    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    return float(t.ppf(0.5 + level / 2, freedom))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Mean and half width of its t interval; the half width of a single value is NaN (nothing is known)."""
    mean, std = mean_std(values)
    n = len(values)
    if n == 1:
        return mean, math.nan
    return mean, t_quantile(level, n - 1) * std / math.sqrt(n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = LEVEL) -> tuple[float, float, int]:
    """Mean of ``a - b`` over the seeds that both have, the half width of its t interval, and how many seeds.

    ``(nan, nan, 0)`` where no seed is shared.
    """
    shared = sorted(set(a) & set(b))
    if not shared:
        return math.nan, math.nan, 0
    mean, half = mean_interval([a[s] - b[s] for s in shared], level)
    return mean, half, len(shared)


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of one number a seed; its error is the spread over seeds."""
    mean, std = mean_std(values)
    n = len(values)
    return Estimate(mean, ((std**2 / n, n - 1),) if n > 1 else (), n)


def over_seeds_and_images(table: np.ndarray) -> Estimate:
    """The mean of a table ``[seeds, images]`` whose error has both sources: other seeds, other test images.

    Two-way random effects without replication: the variance of the mean is ``V_seeds / S + V_images / N - V_rest /
    (S N)``, of the seeds' means, of the images' means, and of what both leave, which the first two count twice. The
    second difference is the images' part (0 at least).
    """
    seeds, images = table.shape
    mean, rows, columns = table.mean(), table.mean(1), table.mean(0)
    rest = (((table - rows[:, None] - columns + mean) ** 2).sum()) / max((seeds - 1) * (images - 1), 1)
    of_images = max(columns.var(ddof=1) / images - rest / (seeds * images), 0.0)
    sources = (float(rows.var(ddof=1) / seeds), seeds - 1), (float(of_images), images - 1)
    return Estimate(float(mean), sources, seeds, True)


def estimate(results: Results) -> Estimate:
    """The mean of a cell; over test images as well where every seed's are known."""
    return _estimate(results, sorted(results.scores))


def difference(a: Results, b: Results) -> Estimate:
    """``a - b`` paired by seed, and by test image where those of both are known for every shared seed."""
    shared = sorted(set(a.scores) & set(b.scores))
    if not shared:
        return NOTHING
    scores = {s: a.scores[s] - b.scores[s] for s in shared}
    known = all(s in a.right and s in b.right and len(a.right[s]) == len(b.right[s]) for s in shared)
    right = {s: a.right[s].astype(float) - b.right[s] for s in shared} if known else {}
    return _estimate(Results(scores, right), shared)


def mean_difference(pairs: Sequence[tuple[Results, Results]]) -> Estimate:
    """One number of several cells: of each seed that all have the mean difference over cells, then as `difference`.

    Cells that share distilled sets are one experiment; their differences are not independent, their means by seed are.
    """
    shared = sorted(set.intersection(*({*a.scores} & {*b.scores} for a, b in pairs)))
    if not shared:
        return NOTHING
    return over_seeds([math.fsum(a.scores[s] - b.scores[s] for a, b in pairs) / len(pairs) for s in shared])


def _estimate(results: Results, seeds: Sequence[int]) -> Estimate:
    right = [results.right[s] for s in seeds if s in results.right]
    if len(seeds) < 2 or len(right) < len(seeds) or len({len(r) for r in right}) > 1:
        return over_seeds([results.scores[s] for s in seeds])
    return over_seeds_and_images(100 * np.stack(right).astype(float))


def comparisons_with_best(methods: int, freedom: float) -> float:
    """How many comparisons the tests of ``methods`` against the best of them count for.

    Between ``methods - 1``, were the best known beforehand, and the ``methods (methods - 1) / 2`` of all pairs: it was
    chosen from the same data. The exponent is a fit to simulated columns of equal methods (docs/statistics.md).

    Args:
        freedom: degrees of freedom of the comparison in question.
    """
    return (methods - 1) * (methods / 2) ** (1 - 0.8 / math.sqrt(max(freedom, 1)))


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for being several (Holm 1979); NaN stays and does not count."""
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    out, running = [math.nan] * len(p), 0.0
    for place, (value, i) in enumerate(known):
        running = max(running, min(1.0, value * (len(known) - place)))
        out[i] = running
    return out
