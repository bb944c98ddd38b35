"""Means over seeds and what they are worth: Student's t intervals, paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache


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


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean and half width of its t interval; the half width of a single value is NaN (nothing is known)."""
    mean, std = mean_std(values)
    n = len(values)
    if n == 1:
        return mean, math.nan
    return mean, t_quantile(level, n - 1) * std / math.sqrt(n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = 0.95) -> tuple[float, float, int]:
    """Mean of ``a - b`` over the seeds that both have, the half width of its t interval, and how many seeds.

    ``(nan, nan, 0)`` where no seed is shared.
    """
    shared = sorted(set(a) & set(b))
    if not shared:
        return math.nan, math.nan, 0
    mean, half = mean_interval([a[s] - b[s] for s in shared], level)
    return mean, half, len(shared)
