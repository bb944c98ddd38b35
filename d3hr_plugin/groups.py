"""Group sampling: the latents that stand for a class, behind one small interface (paper section 3.2).

A sampler is a function ``(Draw) -> Group``. Everything is whitened (class mean 0, deviation 1); the caller scales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmark.compute import generator
from d3hr_plugin.scores import Score

BLOCK = 1 << 18  # numbers drawn at a time in a search: a megabyte, which stays in a core's cache


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


SAMPLERS: dict[str, Callable[[Draw], Group]] = {"search": search, "gaussian": gaussian}
