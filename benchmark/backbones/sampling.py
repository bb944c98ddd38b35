"""Plain guided DDIM sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import DDIMScheduler

from benchmark.backbones.backbone import Backbone


@torch.no_grad()
def sample(
    backbone: Backbone,
    classes: torch.Tensor,
    steps: int,
    guidance: float,
    generators: Sequence[torch.Generator],
    chunk: int = 64,
) -> torch.Tensor:
    """Latents float32 ``[n, c, h, w]`` sampled from N(0, 1) by deterministic DDIM in ``steps`` steps.

    Args:
        classes: backbone classes, int64 ``[n]``.
        guidance: 1 is plain conditional sampling.
        generators: one CPU generator an image, so that an image does not depend on its batch.
    """
    assert len(classes) == len(generators), (len(classes), len(generators))
    scheduler = DDIMScheduler.from_config(backbone.scheduler.config)
    scheduler.set_timesteps(steps)
    done = []
    for first in range(0, len(classes), chunk):
        part = classes[first : first + chunk].to(backbone.device)
        draws = [torch.randn(backbone.latent_shape, generator=g) for g in generators[first : first + chunk]]
        latents = torch.stack(draws).to(backbone.device) * float(scheduler.init_noise_sigma)
        for t in scheduler.timesteps:
            noise = backbone.eps(latents, int(t), part, guidance)
            latents = scheduler.step(noise, int(t), latents).prev_sample
        done.append(latents)
    return torch.cat(done)
