"""Group sampling: the latents that stand for a class, behind one small interface (paper section 3.2).

A sampler is a function ``(Draw) -> Group``. Everything is whitened (class mean 0, deviation 1); the caller scales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmark.api import UsageError, derive_seed, generator
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


def search_by_distribution(draw: Draw) -> Group:
    """The search's winner from its own distribution, without drawing the losers (:mod:`winner_distribution`).

    Draws all candidates where that does not apply: for scores but the paper's, and where one coordinate dominates.
    """
    from d3hr_plugin import winner_distribution

    score = draw.score
    if score.form != "paper" or not winner_distribution.applies(draw.std):
        return search(draw)
    weights = (score.mean, score.std, score.skew)
    seed = derive_seed(*draw.seed, "law")  # the word that seeds have always been made with
    group, winner = winner_distribution.search(draw.n, draw.std.double().numpy(), draw.m, weights, draw.spread, seed)
    return Group.of(group, draw, winner)


def latin(draw: Draw) -> Group:
    """A Latin hypercube: each coordinate takes one value from each of ``n`` equally likely strata."""
    return Group.of(_latin(draw.n, draw.d, draw.generator("group")) * draw.spread, draw)


def _latin(n: int, d: int, g: torch.Generator) -> torch.Tensor:
    strata = torch.from_numpy(torch.rand(d, n, generator=g).numpy().argsort(1).T)  # numpy sorts short rows faster
    inside = torch.rand(n, d, generator=g, dtype=torch.float64)
    return torch.special.ndtri(inside.add_(strata).div_(n).clamp_(1e-12, 1 - 1e-12))


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
    z = torch.randn(draw.n, draw.d, generator=draw.generator("start")).double()
    from_latin = torch.rand(draw.d, generator=draw.generator("which")).less(0.5).nonzero()[:, 0]
    z = _standardised(z.index_copy_(1, from_latin, _latin(draw.n, len(from_latin), draw.generator("group"))))
    if draw.n > 2:
        z = _without_skewness(z)
        for attempt in range(50):
            stuck = _skewness(z).abs().ge(SKEWNESS_TOLERANCE).nonzero()[:, 0]
            if not len(stuck):
                break
            fresh = torch.randn(draw.n, len(stuck), generator=draw.generator("again", attempt)).double()
            z[:, stuck] = _without_skewness(_standardised(fresh))
    return Group.of(z * draw.spread, draw)


def _standardised(z: torch.Tensor) -> torch.Tensor:
    """Columns with mean 0 and unbiased deviation 1; zero for a single row."""
    z = z - z.mean(0)
    return z.div_((z.square().sum(0) / (len(z) - 1)).sqrt_()) if len(z) > 1 else z


def _skewness(z: torch.Tensor) -> torch.Tensor:
    """Biased skewness ``[k]`` of standardised columns ``[n, k]``."""
    n = len(z)
    return (z * z.square()).mean(0) * (n / (n - 1)) ** 1.5


def _without_skewness(z: torch.Tensor) -> torch.Tensor:
    """``z`` moved along the skewness's gradient within the columns of the same mean and deviation (Newton)."""
    n = len(z)
    z = z * (n / (n - 1)) ** 0.5  # biased variance 1
    left, x = None, z  # the columns still on their way; None: all
    for _ in range(10):  # five or six do; a column that needs more is drawn again
        square = x.square()
        skew = (square * x).mean(0)
        going = (skew.abs() >= SKEWNESS_TOLERANCE / 10).nonzero()[:, 0]
        if not len(going):
            break
        if len(going) < 0.9 * len(skew):
            if left is None:
                z, left = x, going
            else:
                z[:, left] = x
                left = left[going]
            x, square, skew = x[:, going], square[:, going], skew[going]
        along = square.sub_(1).addcmul_(skew, x, value=-1)  # orthogonal to 1 and x
        step = (skew / (3 * along.square().mean(0).clamp_min(1e-9))).clamp_(-0.5, 0.5)
        x = torch.addcmul(x, step, along, value=-1)
        x = x.sub_(x.mean(0))
        x = x.div_(x.square().mean(0).sqrt_())
    if left is None:
        z = x
    else:
        z[:, left] = x
    return z * ((n - 1) / n) ** 0.5


SAMPLERS: dict[str, Callable[[Draw], Group]] = {
    "search": search_by_distribution,
    "search-by-draws": search,  # sampler=search with search_by=draws, under the name that records have
    "gaussian": gaussian,
    "moments": moment_matched,
    "matched": matched,
    "latin": latin,
    "sobol": sobol,
}
