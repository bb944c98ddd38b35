"""Domain mapping: DDIM inversion of VAE latents to a depth of the schedule (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from benchmark.api import JobError, UsageError
from d3hr_plugin.schedule import alphas, check_depth, check_stride, levels

if TYPE_CHECKING:
    from benchmark.api import Backbone


def ddim_move(x: torch.Tensor, eps: torch.Tensor, power: float, target: float) -> torch.Tensor:
    """Move ``x`` from signal power ``power`` to ``target`` along the noise estimate: one DDIM step, either way."""
    return (x - (1 - power) ** 0.5 * eps) * (target / power) ** 0.5 + (1 - target) ** 0.5 * eps


SOLVERS = ("ddim", "ab2")


@torch.no_grad()
def invert(
    backbone: Backbone,
    latents: torch.Tensor,
    classes: torch.Tensor,
    *,
    steps: int,
    depths: Sequence[int],
    guidance: float,
    solver: str = "ddim",
    stride: int = 1,
    label: str = "",
) -> dict[int, torch.Tensor]:
    """Latents ``[n, c, h, w]`` (scaled, clean) at each of ``depths``; stops at the deepest.

    Args:
        classes: backbone classes ``[n]``.
        solver: ``ddim`` steps from level s to the next level t with the noise that the model sees at t, as the authors
            do; ``ab2`` takes the noise at s and extrapolates it from the step before (Adams and Bashforth's second
            order, in the coordinates in which DDIM is Euler's method), so that it needs fewer steps.
        stride: levels a step; every depth must be a multiple of it.
        label: names the class in errors. Depth 0 is the input.

    Raises:
        UsageError: a depth beyond the schedule or off the stride, or guidance on an unconditional backbone.
        JobError: not-a-number values; the backbone names the layer that made them first, and the class.
    """
    check_guidance(backbone, guidance, "invert_guidance")
    ascending, power = levels(backbone.scheduler, steps), alphas(backbone.scheduler)
    for depth in depths:
        check_depth(depth, steps)
        check_stride(depth, stride)
    x = latents.to(backbone.device, torch.float32)
    classes = classes.to(backbone.device)
    if not torch.isfinite(x).all():
        raise JobError(
            f"the VAE's encoder returned values that are not finite for {label or 'a class'}",
            where="VAE encoder",
            hint="repeat with --precision fp32; check the class's images",
        )
    kept = {0: x} if 0 in depths else {}
    noise_to_signal = [(1 / a - 1) ** 0.5 for a in power]
    previous, width_before = None, 0.0
    for depth in range(stride, max(depths, default=0) + 1, stride):
        low, high = ascending[depth - stride], ascending[depth]
        eps = backbone.eps(x, high if solver == "ddim" else low, classes, guidance)
        slope, width = eps, noise_to_signal[high] - noise_to_signal[low]
        if solver == "ab2" and previous is not None:
            slope = eps + (eps - previous) * (width / (2 * width_before))
        x = ddim_move(x, slope, power[low], power[high])
        previous, width_before = eps, width
        if depth in depths:
            kept[depth] = x
    return kept


def add_noise(latents: torch.Tensor, generators: Sequence[torch.Generator], power: float) -> torch.Tensor:
    """DDPM's forward process instead of inversion (the paper's ablation): fresh noise, one generator an image."""
    noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators]).to(latents.device)
    return power**0.5 * latents + (1 - power) ** 0.5 * noise


def check_guidance(backbone: Backbone, guidance: float, name: str) -> None:
    """Classifier-free guidance needs a class that stands for "no class"."""
    if guidance != 1 and backbone.null_class is None:
        raise UsageError(
            f"{name} = {guidance:g}, but this backbone is unconditional or was trained without label dropout",
            where=f"--set {name}={guidance:g}",
            allowed="1",
            hint="ddbench backbone train --dataset NAME trains one with label dropout",
        )
