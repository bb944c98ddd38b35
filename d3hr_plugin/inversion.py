"""Domain mapping: DDIM inversion of VAE latents to a depth of the schedule (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log
from typing import TYPE_CHECKING

import torch

from benchmark.api import JobError, UsageError
from d3hr_plugin.schedule import alphas, check_depth, check_stride, levels, quadratic_levels

if TYPE_CHECKING:
    from benchmark.api import Backbone


def ddim_move(x: torch.Tensor, eps: torch.Tensor, power: float, target: float) -> torch.Tensor:
    """Move ``x`` from signal power ``power`` to ``target`` along the noise estimate: one DDIM step, either way."""
    return (x - (1 - power) ** 0.5 * eps) * (target / power) ** 0.5 + (1 - target) ** 0.5 * eps


SOLVERS = ("ddim", "ab2", "dpm2m")


class Slope:
    """The noise estimate that a step takes: of second order, extrapolated from the step before, for ab2 and dpm2m.

    With y = x / sqrt(alpha_bar) and rho = sqrt(1 / alpha_bar - 1) the probability-flow ODE is dy / d rho = eps. ``ab2``
    (Adams and Bashforth) extrapolates eps linearly in rho, ``dpm2m`` (DPM-Solver-2M in its eps form, Lu et al. 2022) in
    ln rho, which is half the log signal-to-noise ratio; ``ddim`` does not. Works in both directions.
    """

    def __init__(self, solver: str) -> None:
        self.solver = solver
        self.previous: tuple[torch.Tensor, float] | None = None

    def __call__(self, eps: torch.Tensor, power: float, target: float) -> torch.Tensor:
        """The estimate for the step from ``alpha_bar`` = ``power`` to ``target``, given ``eps`` at ``power``."""
        if self.solver == "ddim":
            return eps
        rho, rho_next = (1 / power - 1) ** 0.5, (1 / target - 1) ** 0.5
        width = rho_next - rho if self.solver == "ab2" else log(rho_next / rho)
        slope = eps
        if self.previous is not None:
            before, width_before = self.previous
            slope = eps + (eps - before) * (width / (2 * width_before))
        self.previous = eps, width
        return slope


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
    evaluations: int = 0,
    noise_until: int = 0,
    noise: torch.Tensor | None = None,
    label: str = "",
) -> dict[int, torch.Tensor]:
    """Latents ``[n, c, h, w]`` (scaled, clean) at each of ``depths``; stops at the deepest.

    Args:
        classes: backbone classes ``[n]``.
        solver: ``ddim`` steps from level s to the next level t with the noise that the model sees at t, as the authors
            do; the others (:class:`Slope`) take the noise at s and that of the step before, so that they need fewer
            steps.
        stride: levels a step; every depth must be a multiple of it.
        evaluations: where above 0, that many steps over quadratic levels to the single depth, in place of the
            schedule's.
        noise_until: noise level (of 1000) up to which ``noise`` ``[n, c, h, w]`` is added in place of inverting.
        label: names the class in errors. Depth 0 is the input.

    Raises:
        UsageError: a depth beyond the schedule or off the stride, or guidance on an unconditional backbone.
        JobError: not-a-number values; the backbone names the layer that made them first, and the class.
    """
    check_guidance(backbone, guidance, "invert_guidance")
    ascending, power = levels(backbone.scheduler, steps), alphas(backbone.scheduler)
    for depth in depths:
        check_depth(depth, steps)
        if not evaluations:
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
    depth_of = {ascending[depth]: depth for depth in depths if depth}
    path = inversion_levels(ascending, max(depths, default=0), stride, evaluations, noise_until)
    if path[0]:
        assert noise is not None, "forward noise for the first levels"
        x = power[path[0]] ** 0.5 * x + (1 - power[path[0]]) ** 0.5 * noise.to(x.device)
        kept |= {depth_of[path[0]]: x} if path[0] in depth_of else {}
    slope = Slope(solver)
    for low, high in pairwise(path):
        eps = backbone.eps(x, high if solver == "ddim" else low, classes, guidance)
        x = ddim_move(x, slope(eps, power[low], power[high]), power[low], power[high])
        if high in depth_of:
            kept[depth_of[high]] = x
    return kept


def inversion_levels(
    ascending: Sequence[int], depth: int, stride: int, evaluations: int, noise_until: int
) -> list[int]:
    """The noise levels that an inversion to ``depth`` walks through, ascending; the first is where it starts."""
    if not depth:
        return [0]
    if evaluations:
        return quadratic_levels(ascending[depth], evaluations, min(noise_until, ascending[depth] - 1))
    path = [ascending[i] for i in range(0, depth + 1, stride)]
    return [level for level in path if level >= noise_until] or path[-1:]


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
