"""Recover: images from noise that a classifier calls their class and whose BatchNorm statistics are the data's.

Source: SRe2L (arXiv 2306.13092, section 3.2), repository VILA-Lab/SRe2L, ``SRe2L/recover/data_synthesis.py`` and
``utils.py``, ``SRe2L/*small_dataset/recover_cifar.py``; CDA's schedule: ``CDA/recover_cda_in1k.py``. Total variation
and the l2 norm of the images are left out: every published script sets their weights to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from baselines.crops import random_resized_crops, seeded

RATIO = (3 / 4, 4 / 3)  # torchvision's default aspect ratios
SMALLEST = 0.08  # torchvision's default smallest crop, as a share of the area


@dataclass(frozen=True)
class Settings:
    """One recovery.

    Attributes:
        lr: Adam's rate at the start of a cosine that ends at 0.
        r_bn: weight of the BatchNorm term; ``first_bn`` multiplies the first layer's part of it.
        jitter: largest circular shift in pixels, drawn anew each step for the whole batch.
        smallest_crop: smallest crop of step i of n as a share of the area; None for no crops (and no flips).
    """

    iterations: int
    lr: float
    r_bn: float
    first_bn: float
    jitter: int
    flip: bool
    smallest_crop: Callable[[int, int], float] | None


def constant_crop(step: int, total: int) -> float:
    """SRe2L: crops of 8 % to 100 % of the area throughout."""
    return SMALLEST


def curriculum_crop(step: int, total: int) -> float:
    """CDA (``--easy2hard-mode cosine --milestone 1``): whole images first, then ever smaller crops, down to 8 %."""
    return SMALLEST + (1 - SMALLEST) * (1 + math.cos(math.pi * step / total)) / 2


@contextmanager
def batchnorm_distances(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """While open, each forward pass of ``model`` fills the list: a distance a BatchNorm2d layer, in module order.

    The distance is ‖running variance - batch variance‖₂ + ‖running mean - batch mean‖₂ of the layer's input, over
    its channels (biased variance).
    """
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    distances: list[torch.Tensor] = [torch.empty(0)] * len(layers)

    def hook(index: int):
        def measure(module: nn.BatchNorm2d, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            x = inputs[0]
            if x.dtype == torch.bfloat16:  # of autocast: it would round the statistics to 3 digits
                x = x.float()
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            distances[index] = (module.running_var - variance).norm() + (module.running_mean - mean).norm()

        return measure

    handles = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(layers)]
    try:
        yield distances
    finally:
        for handle in handles:
            handle.remove()


def loss(
    logits: torch.Tensor, targets: torch.Tensor, distances: Sequence[torch.Tensor], r_bn: float, first_bn: float
) -> torch.Tensor:
    """Cross-entropy + ``r_bn`` × (``first_bn`` × first layer's distance + the other layers' distances)."""
    return F.cross_entropy(logits, targets) + r_bn * (first_bn * distances[0] + sum(distances[1:]))


def augment(x: torch.Tensor, settings: Settings, step: int) -> torch.Tensor:
    """One crop, one flip and one circular shift for the whole batch, drawn from torch's global generator."""
    if settings.smallest_crop is not None:
        smallest = settings.smallest_crop(step, settings.iterations)
        (x,) = random_resized_crops(x, x.shape[-1], 1, (smallest, 1.0), RATIO)
        if settings.flip and torch.rand(1) < 0.5:
            x = x.flip(-1)
    down, right = torch.randint(0, settings.jitter + 1, (2,)).tolist()
    return x.roll((down, right), (2, 3))


def recover(
    model: nn.Module,
    start: torch.Tensor,
    targets: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    settings: Settings,
    seed: int,
) -> torch.Tensor:
    """Optimise the batch ``start``; its images are coupled by the BatchNorm statistics.

    Args:
        model: in eval mode, with at least one BatchNorm2d; takes images normalised by ``mean`` and ``std``.
        start: float ``[n, C, H, W]``, standard normal. targets: int64 ``[n]``. mean, std: ``[1, C, 1, 1]``.

    Returns:
        float ``[n, C, H, W]``, normalised; pixel values stay in 0..1.
    """
    x = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([x], settings.lr, betas=(0.5, 0.9), eps=1e-8)
    low, high = -mean / std, (1 - mean) / std
    with seeded(seed), batchnorm_distances(model) as distances:
        for step in range(settings.iterations):
            rate = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.iterations))
            optimizer.param_groups[0]["lr"] = rate
            logits = model(augment(x, settings, step))
            (x.grad,) = torch.autograd.grad(loss(logits, targets, distances, settings.r_bn, settings.first_bn), x)
            optimizer.step()
            with torch.no_grad():
                x.copy_(x.clamp(low, high))
    return x.detach()
