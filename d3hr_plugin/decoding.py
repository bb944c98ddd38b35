"""From noise back to images: guided DDIM sampling from a chosen depth (paper section 3.3)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from d3hr_plugin.inversion import Slope, check_guidance, ddim_move
from d3hr_plugin.schedule import alphas, check_start, levels, quadratic_levels, sampling_pairs

if TYPE_CHECKING:
    from benchmark.api import Backbone


@torch.no_grad()
def denoise(
    backbone: Backbone,
    latents: torch.Tensor,
    classes: torch.Tensor,
    *,
    steps: int,
    start_step: int,
    ending: str,
    guidance: float,
    batch: int,
    solver: str = "ddim",
    evaluations: int = 0,
) -> torch.Tensor:
    """Clean scaled latents ``[n, c, h, w]`` float32, sampled from ``start_step`` of ``steps`` on, ``batch`` at a time.

    Deterministic: each image depends on its own latent only. ``ending`` as in
    :func:`d3hr_plugin.schedule.sampling_pairs`; ``classes`` holds backbone classes ``[n]``. ``solver`` and
    ``evaluations`` (where above 0: that many steps over quadratic levels) as in :func:`d3hr_plugin.inversion.invert`.
    """
    check_start(start_step, steps)
    check_guidance(backbone, guidance, "decode_guidance")
    power = alphas(backbone.scheduler)
    ascending = levels(backbone.scheduler, steps)
    pairs = decoding_pairs(ascending, start_step, ending, evaluations, len(power))
    out = []
    for x, chosen in zip(latents.split(batch), classes.split(batch), strict=True):
        x, chosen = x.to(backbone.device, torch.float32), chosen.to(backbone.device)
        slope = Slope(solver)
        for level, lower in pairs:
            eps = backbone.eps(x, level, chosen, guidance)
            x = ddim_move(x, slope(eps, power[level], power[lower]), power[level], power[lower])
        out.append(x)
    return torch.cat(out)


def decoding_pairs(
    ascending: list[int], start_step: int, ending: str, evaluations: int, total: int = 1000
) -> list[tuple[int, int]]:
    """(level, next lower level) of each step: the schedule's from ``start_step``, or ``evaluations`` quadratic ones."""
    top = ascending[-1 - start_step]
    if evaluations and top:
        return list(pairwise(quadratic_levels(top, evaluations)[::-1]))
    return sampling_pairs(ascending, start_step, ending, total)
