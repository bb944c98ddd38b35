"""Group sampling: the latents that stand for a class, behind one small interface (paper section 3.2).

A sampler is a function ``(Draw) -> Group``. Everything is whitened (class mean 0, deviation 1); the caller scales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmark.compute import derive_seed, generator
from benchmark.errors import UsageError
from d3hr_plugin.scores import Score

BLOCK = 1 << 18  # numbers drawn at a time in a search: a megabyte, which stays in a core's cache
SKEWNESS_TOLERANCE = 1e-6  # left in a coordinate of a matched group


@dataclass(frozen=True)
class Draw:
    """What a sampler is asked for: ``n`` latents of ``d`` coordinates for one class.

    ``std`` ``[d]`` are the class's deviations (they weigh the score), ``spread`` scales the drawn deviations,
    ``seed`` is anything printable: equal seeds give equal groups, and classes have different ones.
    """

    n: int
    std: torch.Tensor
    seed: tuple
    m: int = 1000
    score: Score = field(default_factory=Score)
    spread: float = 1.0

    @property
    def d(self) -> int:
        """Coordinates of a latent."""
        return len(self.std)

    def generator(self, *purpose: object) -> torch.Generator:
        """A generator of this draw and purpose."""
        return generator(*self.seed, *purpose)


@dataclass
class Group:
    """Whitened latents ``[n, d]`` float32, their score (recomputed in float64), and which candidate won."""

    latents: torch.Tensor
    score: float
    winner: int = 0

    @staticmethod
    def of(latents: torch.Tensor, draw: Draw, winner: int = 0) -> Group:
        """Score ``latents`` in float64."""
        score = draw.score(latents[None].double(), draw.std.double())
        return Group(latents.float(), float(score), winner)


def gaussian(draw: Draw) -> Group:
    """Plain independent draws."""
    return Group.of(torch.randn(draw.n, draw.d, generator=draw.generator("group")) * draw.spread, draw)


def search(draw: Draw) -> Group:
    """The best of ``m`` candidate groups. Candidates are drawn and reduced in blocks that fit the cache and thrown
    away; the winner is drawn again from its block's seed, so memory does not depend on ``m``.
    """
    per_block = max(1, min(draw.m, BLOCK // (draw.n * draw.d)))
    std = draw.std.float()
    buffer = torch.empty(per_block, draw.n, draw.d)
    best, winner = float("inf"), 0
    for first in range(0, draw.m, per_block):
        groups = buffer[: min(per_block, draw.m - first)]
        groups.normal_(generator=draw.generator("block", first)).mul_(draw.spread)
        value, row = draw.score(groups, std).min(0)
        if value < best:
            best, winner = float(value), first + int(row)
    first = winner - winner % per_block
    groups = buffer[: min(per_block, draw.m - first)]
    groups.normal_(generator=draw.generator("block", first)).mul_(draw.spread)
    return Group.of(groups[winner - first].clone(), draw, winner)


def law_search(draw: Draw) -> Group:
    """The same winner's law without drawing the losers (:mod:`d3hr_plugin.law`); only for the paper's score."""
    from d3hr_plugin import law

    score = draw.score
    if score.form != "paper":
        return search(draw)
    weights = (score.mean, score.std, score.skew)
    seed = derive_seed(*draw.seed, "law")
    group, winner = law.search(draw.n, draw.std.double().numpy(), draw.m, weights, draw.spread, seed)
    return Group.of(group, draw, winner)


def latin(draw: Draw) -> Group:
    """A Latin hypercube: each coordinate takes one value from each of ``n`` equally likely strata."""
    return Group.of(_latin(draw) * draw.spread, draw)


def _latin(draw: Draw) -> torch.Tensor:
    g = draw.generator("group")
    strata = torch.rand(draw.n, draw.d, generator=g).argsort(0)
    inside = torch.rand(draw.n, draw.d, generator=g, dtype=torch.float64)
    return torch.special.ndtri(((strata + inside) / draw.n).clamp(1e-12, 1 - 1e-12))


def sobol(draw: Draw) -> Group:
    """The first ``n`` points of a scrambled Sobol sequence, mapped to normals."""
    engine = torch.quasirandom.SobolEngine
    if draw.d > engine.MAXDIM:
        raise UsageError(
            f"a Sobol sequence has at most {engine.MAXDIM} coordinates; these latents have {draw.d}",
            where="--set sampler=sobol",
            hint="--set sampler=latin",
        )
    points = engine(draw.d, scramble=True, seed=derive_seed(*draw.seed, "sobol")).draw(draw.n, dtype=torch.float64)
    return Group.of(torch.special.ndtri(points.clamp(1e-12, 1 - 1e-12)) * draw.spread, draw)


def moment_matched(draw: Draw) -> Group:
    """Independent draws, shifted and scaled so that the group's mean and deviation are the class's exactly."""
    z = torch.randn(draw.n, draw.d, generator=draw.generator("group"), dtype=torch.float64)
    return Group.of(_standardised(z) * draw.spread, draw)


def matched(draw: Draw) -> Group:
    """Mean, deviation *and* skewness over the group equal the class's, so the paper's score is nearly 0.

    Moves each coordinate's values the shortest way (Newton) to zero skewness. Half of the coordinates start from
    independent draws and half from a Latin hypercube: pooled over seeds the two err from the normal in opposite
    directions (a group with an exact deviation has no values far out, so its coordinates cannot be exactly normal).
    One latent is the class mean; of two or three the values are fixed up to their order.
    """
    start = torch.randn(draw.n, draw.d, generator=draw.generator("start"), dtype=torch.float64)
    from_latin = torch.rand(draw.d, generator=draw.generator("which")) < 0.5
    z = _standardised(torch.where(from_latin, _latin(draw), start))
    if draw.n > 2:
        for attempt in range(50):
            z, skew = _without_skewness(z)
            stuck = ~(skew < SKEWNESS_TOLERANCE)
            if not stuck.any():
                break
            fresh = torch.randn(draw.n, int(stuck.sum()), generator=draw.generator("again", attempt)).double()
            z[:, stuck] = _standardised(fresh)
    return Group.of(z * draw.spread, draw)


def _standardised(z: torch.Tensor) -> torch.Tensor:
    """Columns with mean 0 and unbiased deviation 1; zero for a single row."""
    z = z - z.mean(0)
    return z / z.std(0) if len(z) > 1 else z


def _without_skewness(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``z`` moved along the skewness's gradient within the columns of the same mean and deviation; and what is left."""
    n = len(z)
    z = z * (n / (n - 1)) ** 0.5  # biased variance 1
    for _ in range(30):
        skew = (z**3).mean(0)
        if skew.abs().max() < SKEWNESS_TOLERANCE / 10:
            break
        along = z.square() - 1 - skew * z  # orthogonal to 1 and z
        step = skew / (3 * along.square().mean(0).clamp_min(1e-9))
        z = z - step.clamp(-0.5, 0.5) * along
        z = z - z.mean(0)
        z = z / z.square().mean(0).sqrt()
    return z * ((n - 1) / n) ** 0.5, (z**3).mean(0).abs()


SAMPLERS: dict[str, Callable[[Draw], Group]] = {
    "search": law_search,
    "search-by-draws": search,
    "gaussian": gaussian,
    "moments": moment_matched,
    "matched": matched,
    "latin": latin,
    "sobol": sobol,
}
