"""Draws the winner of the search over candidate groups directly from its distribution, without drawing the m groups.

For normal draws a coordinate's mean, standard deviation and skewness over the group are independent (the first two are
a complete sufficient statistic, the third depends on neither location nor scale: Basu's theorem), and coordinates are
independent. The paper's score of a candidate is therefore A + B + lambda C with independent A, B and C, each the
root of a sum over coordinates of independent terms. So:

1. draw (A, B, C) of all m candidates from the distributions of those sums: three numbers a candidate instead of n d;
2. take the best candidate;
3. draw a group whose mean, deviation and skewness terms are the winner's: coordinates from the exponentially tilted
   distribution, which is the same once the sum is given, until the sum lies within ``WINDOW`` of the target.

The distributions come from the sums' cumulant functions by Barndorff-Nielsen's r* (for d terms its relative error is
of order d^-3/2). A's cumulant function is closed, B's an integral over the chi density, C's an average over a fixed
pool of draws scaled to the exact mean. Tests compare the outcome with plain search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import interpolate, stats

WINDOW = 0.02  # how near to the winner's sums the group is drawn, in standard deviations of the sum
BLOCK = 1 << 16  # candidates at a time
POOL = 1 << 20  # draws in the pool for the skewness of n normals
EFFECTIVE_TERMS = 4  # below that many equal coordinates the search draws its candidates
TRIES = 4000  # draws before the nearest one is taken
_SADDLES = np.concatenate([-np.geomspace(400, 0.02, 64), np.geomspace(0.02, 30, 36)])  # in units of 1 / sd

Cumulants = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass
class SumDistribution:
    """Of a sum of independent terms: ``value`` by a standard normal ``score``, and the tilt that centres it there."""

    score: np.ndarray
    value: np.ndarray
    tilt: np.ndarray
    sd: float

    @staticmethod
    def of(cumulants: Cumulants, limit: float = np.inf) -> SumDistribution:
        """From ``cumulants(theta) -> K, K', K''`` of the sum, defined for theta below ``limit``."""
        sd = float(np.sqrt(cumulants(np.zeros(1))[2][0]))
        theta = _SADDLES / sd
        theta = theta[theta < 0.9 * limit]
        k, slope, bend = cumulants(theta)
        bend = np.maximum(bend, 1e-300)
        r = np.sign(theta) * np.sqrt(np.maximum(2 * (theta * slope - k), 1e-300))
        r = r + np.log(theta * np.sqrt(bend) / r) / r
        good = np.isfinite(r) & (np.abs(r) < 9)
        r, slope, theta = r[good], slope[good], theta[good]
        rising = np.concatenate([[True], np.diff(np.maximum.accumulate(r)) > 0])
        fine = np.linspace(r[0], r[-1], 4001)
        value, tilt = (interpolate.PchipInterpolator(r[rising], y[rising])(fine) for y in (slope, theta))
        if (
            fine[-1] < 9
        ):  # the cumulants end early; candidates so far above the mean do not win, a straight line will do
            fine = np.append(fine, 9.0)
            value = np.append(value, value[-1] + (9 - fine[-2]) * (value[-1] - value[-2]) / (fine[-2] - fine[-3]))
            tilt = np.append(tilt, tilt[-1])
        return SumDistribution(fine, value, tilt, sd)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """``count`` independent values of the sum."""
        return np.interp(rng.standard_normal(count, dtype=np.float32), self.score, self.value)

    def tilt_for(self, value: float) -> float:
        """The tilt under which the sum's mean is ``value``; at most 0, so that rejection can draw coordinates."""
        return min(0.0, float(np.interp(value, self.value, self.tilt)))


def mean_distribution(weights: np.ndarray) -> SumDistribution:
    """Of ``sum_j weights_j chi2_1``: the squared mean term, ``weights = (spread std)^2 / n``."""

    def cumulants(theta):
        shrunk = 1 - 2 * np.outer(theta, weights)
        ratio = weights / shrunk
        return -0.5 * np.log(shrunk).sum(1), ratio.sum(1), 2 * np.square(ratio).sum(1)

    return SumDistribution.of(cumulants, 0.5 / weights.max())


@lru_cache(maxsize=32)
def _deviation_nodes(n: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """(h, probability) of ``h = (spread s - 1)^2`` where ``(n-1) s^2`` is chi-squared: a fine midpoint rule."""
    chi = stats.chi(n - 1, scale=1 / np.sqrt(n - 1))
    edges = np.linspace(chi.ppf(1e-17), chi.isf(1e-17), 1601)
    middle = (edges[1:] + edges[:-1]) / 2
    mass = chi.pdf(middle)
    return np.square(spread * middle - 1), mass / mass.sum()


def deviation_distribution(variances: np.ndarray, n: int, spread: float) -> SumDistribution:
    """Of ``sum_j variances_j (spread s_j - 1)^2``: the squared deviation term."""
    h, mass = _deviation_nodes(n, spread)
    mean, top = mass @ h, variances.max()
    sd = np.sqrt((mass @ np.square(h) - mean**2) * np.square(variances).sum())
    limit = 0.5 * (n - 1) / spread**2 if spread else np.inf
    high = min(0.9 * limit, _SADDLES[-1] / sd * top)
    low = _SADDLES[0] / sd * top
    u = np.concatenate([-np.geomspace(-low, 1e-7 * -low, 160), [0.0], np.geomspace(1e-6 * high, high, 100)])
    power = np.outer(u, h)
    peak = power.max(1, keepdims=True)
    weight = np.exp(power - peak) * mass
    total = weight.sum(1)
    first = weight @ h / total
    second = weight @ np.square(h) / total - first**2
    curve = interpolate.CubicHermiteSpline(u, np.log(total) + peak[:, 0], first)
    bend = interpolate.CubicHermiteSpline(u, first, second)

    def cumulants(theta):
        at = np.clip(np.outer(theta, variances), low, high)
        return curve(at).sum(1), bend(at) @ variances, bend(at, 1) @ np.square(variances)

    return SumDistribution.of(cumulants, high / top / 0.9)


@lru_cache(maxsize=4)
def _skewness_pool(n: int) -> np.ndarray:
    """Squared biased skewness of ``POOL`` sets of ``n`` normals, from a fixed seed."""
    rng = np.random.default_rng(n)
    step = max(1, (1 << 18) // n)
    return np.concatenate([_skewness(_shapes(rng, n, min(step, POOL - first))) ** 2 for first in range(0, POOL, step)])


def _shapes(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Standardised normals ``[n, d]``: mean 0 and biased variance 1 in every column."""
    z = rng.standard_normal((n, d), dtype=np.float32)
    z -= z.mean(0)
    return z / np.sqrt(np.einsum("nd,nd->d", z, z) / n)


def _skewness(shapes: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd,nd->d", shapes, shapes, shapes) / len(shapes)


def skewness_square(n: int) -> float:
    """Exact mean of the squared biased skewness of ``n`` normals (Fisher 1930)."""
    return 6 * (n - 2) / ((n + 1) * (n + 3))


@lru_cache(maxsize=32)
def skewness_distribution(n: int, d: int) -> SumDistribution:
    """Of ``sum_j g_j^2`` over ``d`` coordinates: the squared skewness term; does not depend on the class."""
    pool = _skewness_pool(n)
    histogram, edges = np.histogram(pool, bins=4000)
    mass, y = histogram / len(pool), (edges[1:] + edges[:-1]) / 2
    y = y * (skewness_square(n) / (mass @ y))  # the sampling error of the pool's mean would be the one that shows

    def cumulants(theta):
        power = np.outer(theta, y)
        peak = power.max(1, keepdims=True)
        weight = np.exp(power - peak) * mass
        total = weight.sum(1)
        first = weight @ y / total
        second = weight @ np.square(y) / total - first**2
        return d * (np.log(total) + peak[:, 0]), d * first, d * second

    return SumDistribution.of(cumulants)


def applies(std: torch.Tensor) -> bool:
    """Whether the sums have enough terms for r*: ``EFFECTIVE_TERMS`` by the variances' participation ratio.

    Where one coordinate dominates, the sum's distribution is not the one that r* gives.
    """
    weights = std.double().square()
    return float(weights.sum() ** 2) >= EFFECTIVE_TERMS * float(weights.square().sum())


def search(n: int, std: np.ndarray, m: int, weights: tuple[float, float, float], spread: float, seed: int):
    """The best of ``m`` groups of ``n`` under the paper's score with ``weights`` of its (mean, std, skew) terms.

    Args:
        std: the class's deviations ``[d]``; ``seed``: 63 bits.

    Returns:
        (whitened group float32 ``[n, d]``, position of the winner among the candidates).
    """
    rng = np.random.Generator(np.random.SFC64(seed))
    std = np.asarray(std, dtype=np.float64)
    d = len(std)
    spreads = spread > 0 and std.max() > 0  # a class of one image has no deviations: every group is its mean
    used = [weights[0] > 0 and spreads, weights[1] > 0 and n > 1 and spreads, weights[2] > 0 and n > 2]
    distributions = [
        mean_distribution(np.square(spread * std) / n) if used[0] else None,
        deviation_distribution(np.square(std), n, spread) if used[1] else None,
        skewness_distribution(n, d) if used[2] else None,
    ]
    best, winner, sums = np.inf, 0, [0.0, 0.0, 0.0]
    for first in range(0, m, BLOCK):
        count = min(BLOCK, m - first)
        parts = [distribution.draw(rng, count) if distribution else None for distribution in distributions]
        scores = sum(w * np.sqrt(p) for w, p in zip(weights, parts) if p is not None) + np.zeros(count)
        row = int(scores.argmin())
        if scores[row] < best:
            best, winner = scores[row], first + row
            sums = [float(p[row]) if p is not None else 0.0 for p in parts]
    mean = _means(rng, n, std, spread, distributions[0], sums[0])
    deviation = _deviations(rng, n, std, spread, distributions[1], sums[1])
    shape = _group_shapes(rng, n, d, distributions[2], sums[2])
    group = spread * (mean + deviation * shape * np.sqrt((n - 1) / n))
    return torch.from_numpy(np.ascontiguousarray(group, dtype=np.float32)), winner


def _nearest(
    draw: Callable[[], np.ndarray], measure: Callable, distribution: SumDistribution | None, target: float
) -> np.ndarray:
    """The first of repeated draws whose sum is within the window of ``target`` (or the nearest of ``TRIES``)."""
    if distribution is None:
        return draw()
    best, error = None, np.inf
    for _ in range(TRIES):
        made = draw()
        miss = abs(float(measure(made)) - target)
        if miss < error:
            best, error = made, miss
        if error <= WINDOW * distribution.sd:
            break
    assert best is not None
    return best


def _means(
    rng, n: int, std: np.ndarray, spread: float, distribution: SumDistribution | None, target: float
) -> np.ndarray:
    weights = np.square(spread * std) / n
    scale = 1 / np.sqrt(n * (1 - 2 * (distribution.tilt_for(target) if distribution else 0.0) * weights))
    made = _nearest(
        lambda: rng.standard_normal(len(std)) * scale, lambda z: np.square(spread * std * z).sum(), distribution, target
    )
    return made * np.sqrt(target / np.square(spread * std * made).sum()) if distribution else made


def _deviations(
    rng, n: int, std: np.ndarray, spread: float, distribution: SumDistribution | None, target: float
) -> np.ndarray:
    if n == 1:
        return np.zeros(len(std))
    tilt = distribution.tilt_for(target) if distribution else 0.0

    def draw():
        return _rejected(
            lambda count: np.sqrt(rng.chisquare(n - 1, count) / (n - 1))[None],
            lambda s, where: tilt * np.square(std[where] * (spread * s[0] - 1)),
            len(std),
            rng,
        )[0]

    made = _nearest(draw, lambda s: np.square(std * (spread * s - 1)).sum(), distribution, target)
    if distribution is None:
        return made
    return (1 + (spread * made - 1) * np.sqrt(target / np.square(std * (spread * made - 1)).sum())) / spread


def _group_shapes(rng, n: int, d: int, distribution: SumDistribution | None, target: float) -> np.ndarray:
    if n == 1:
        return np.zeros((1, d))
    tilt = distribution.tilt_for(target) if distribution else 0.0

    def draw():
        return _rejected(lambda count: _shapes(rng, n, count), lambda z, _: tilt * np.square(_skewness(z)), d, rng)

    return _nearest(draw, lambda z: np.square(_skewness(z)).sum(), distribution, target)


def _rejected(propose: Callable, log_accept: Callable, d: int, rng: np.random.Generator) -> np.ndarray:
    """Columns ``[k, d]`` proposed until each is accepted with probability ``exp(log_accept)``."""
    made = propose(d)
    open_columns = np.arange(d)
    candidate = made
    while True:
        refused = np.log(rng.random(len(open_columns))) > log_accept(candidate, open_columns)
        open_columns = open_columns[refused]
        if not len(open_columns):
            return made
        candidate = propose(len(open_columns))
        made[:, open_columns] = candidate
