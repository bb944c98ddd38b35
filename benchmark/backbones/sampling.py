"""Guided sampling: DDIM or the original DiT's ancestral sampling, with a hook through which methods steer it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benchmark.backbones.backbone import Backbone
from benchmark.core.errors import UsageError

if TYPE_CHECKING:
    from diffusers import DDIMScheduler  # imported where it is used: it takes seconds, and planning needs none

FORMS = ("ddim", "ddpm")

Guidance = Callable[[torch.Tensor, int, torch.Tensor], "torch.Tensor | None"]
"""``guidance(x0, level, index)``: where to a step of the sampler is pulled.

``x0`` float32 ``[n, c, h, w]`` holds the clean latents that the network now expects, ``level`` (0 … 999) the noise
level of the step, ``index`` int64 ``[n]`` (on the device of ``x0``) the images' positions among those of the call to
:func:`sample`. The result, ``[n, c, h, w]`` or None for no pull, is taken as a gradient of the log density: DDPM adds
it times the deviation of the step to the mean, DDIM subtracts it times sqrt(1 - alpha_bar) from the noise.
"""


def sampling_levels(scheduler: DDIMScheduler, steps: int, form: str = "ddim") -> list[int]:
    """The noise levels of ``steps`` steps, highest first.

    ``ddim``: the scheduler's own (leading spacing: 980, 960, …, 0 for 50). ``ddpm``: evenly spaced with both ends, as
    OpenAI's `respace.py space_timesteps` has them (999, 979, 958, …, 20, 0 for 50).

    Raises:
        UsageError: one step of ``ddpm``.
    """
    if form == "ddim":
        from diffusers import DDIMScheduler

        own = DDIMScheduler.from_config(scheduler.config)
        own.set_timesteps(steps)
        return [int(t) for t in own.timesteps]
    total = scheduler.config.num_train_timesteps
    if steps < 2:
        raise UsageError("ancestral sampling needs at least 2 steps", where=f"--set steps={steps}", allowed="2 to 1000")
    return [round(i * (total - 1) / (steps - 1)) for i in reversed(range(steps))]


@torch.no_grad()
def sample(
    backbone: Backbone,
    classes: torch.Tensor,
    steps: int,
    guidance: float,
    generators: Sequence[torch.Generator],
    chunk: int = 64,
    *,
    form: str = "ddim",
    channels: int = 0,
    hook: Guidance | None = None,
) -> torch.Tensor:
    """Latents float32 ``[n, c, h, w]`` sampled from N(0, 1) in ``steps`` steps, ``chunk`` images together.

    Args:
        classes: backbone classes, int64 ``[n]``.
        guidance: classifier-free guidance; 1 is plain conditional sampling.
        generators: one CPU generator an image, so that an image does not depend on its batch.
        form: ``ddim`` is deterministic; ``ddpm`` adds noise in every step but the last, with the learned variance of
            the network or, where it has learned none, that of the posterior.
        channels: latent channels that are guided; 0: all (:meth:`Backbone.predict`).
        hook: what else steers the sampling, see :data:`Guidance`.
    """
    assert len(classes) == len(generators), (len(classes), len(generators))
    assert form in FORMS, form
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(backbone.scheduler.config)
    scheduler.set_timesteps(steps)
    levels = sampling_levels(scheduler, steps, form)
    power = [float(backbone.scheduler.alphas_cumprod[t]) for t in levels]
    moves = _ancestral_moves(power)
    done = []
    for first in range(0, len(classes), chunk):
        part = classes[first : first + chunk].to(backbone.device)
        own = generators[first : first + chunk]
        index = torch.arange(first, first + len(part), device=backbone.device)
        x = _normal(backbone, own) * float(scheduler.init_noise_sigma)
        for place, level in enumerate(levels):
            noise, variance = backbone.predict(x, level, part, guidance, channels)
            x0 = (1 / power[place]) ** 0.5 * x - (1 / power[place] - 1) ** 0.5 * noise
            pull = hook(x0, level, index) if hook is not None else None
            if form == "ddim":
                if pull is not None:
                    noise = noise - (1 - power[place]) ** 0.5 * pull
                x = scheduler.step(noise, level, x).prev_sample
                continue
            mean, deviation = moves[place].of(x, x0, variance)
            x = mean if pull is None else mean + deviation * pull
            if place + 1 < len(levels):  # no noise in the last step
                x = x + deviation * _normal(backbone, own)
        done.append(x)
    return torch.cat(done)


def _normal(backbone: Backbone, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Standard normal latents ``[n, c, h, w]`` on the device, one generator an image."""
    draws = [torch.randn(backbone.latent_shape, generator=g) for g in generators]
    return torch.stack(draws).to(backbone.device)


@dataclass(frozen=True)
class _Move:
    """A step of ancestral sampling: its mean is ``clean * x0 + noisy * x``, its variance ``small`` to ``large``."""

    clean: float
    noisy: float
    small: float
    large: float

    def of(self, x: torch.Tensor, x0: torch.Tensor, learned: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation; ``learned`` in -1 … 1 says where between the two variances, on a scale of logarithms."""
        share = torch.zeros_like(x) if learned is None else (learned + 1) / 2
        logarithm = share * math.log(self.large) + (1 - share) * math.log(self.small)
        return self.clean * x0 + self.noisy * x, torch.exp(0.5 * logarithm)


def _ancestral_moves(power: Sequence[float]) -> list[_Move]:
    """Steps between the alpha_bar of ``power``, noisiest first, and from the last to 1.

    Ho et al., arXiv 2006.11239, eq. 6 and 7; variances as Nichol and Dhariwal, arXiv 2102.09672, eq. 15. The last
    step's smallest variance is 0; like OpenAI's `gaussian_diffusion.py`, its logarithm is that of the step before.
    """
    moves: list[_Move] = []
    for here, lower in zip(power, [*power[1:], 1.0], strict=True):
        beta = 1 - here / lower
        clean, noisy = beta * lower**0.5 / (1 - here), (1 - lower) * (here / lower) ** 0.5 / (1 - here)
        small = beta * (1 - lower) / (1 - here)
        moves.append(_Move(clean, noisy, small or (moves[-1].small if moves else beta), beta))
    return moves
