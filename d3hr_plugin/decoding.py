"""From noise back to images: guided DDIM sampling from a chosen depth (paper section 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from d3hr_plugin.inversion import check_guidance, ddim_move
from d3hr_plugin.schedule import alphas, check_start, levels, sampling_pairs

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
) -> torch.Tensor:
    """Clean scaled latents ``[n, c, h, w]`` float32, sampled from ``start_step`` of ``steps`` on, ``batch`` at a time.

    Deterministic: each image depends on its own latent only. ``ending`` as in
    :func:`d3hr_plugin.schedule.sampling_pairs`; ``classes`` holds backbone classes ``[n]``.
    """
    check_start(start_step, steps)
    check_guidance(backbone, guidance, "decode_guidance")
    power = alphas(backbone.scheduler)
    pairs = sampling_pairs(levels(backbone.scheduler, steps), start_step, ending, len(power))
    out = []
    for x, chosen in zip(latents.split(batch), classes.split(batch), strict=True):
        x, chosen = x.to(backbone.device, torch.float32), chosen.to(backbone.device)
        for level, lower in pairs:
            x = ddim_move(x, backbone.eps(x, level, chosen, guidance), power[level], power[lower])
        out.append(x)
    return torch.cat(out)
