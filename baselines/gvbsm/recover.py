"""The loop of G-VBSM and EDC: images that several classifiers call their class, a step each in turn.

Sources: see :mod:`baselines.gvbsm.method`; in ``Branch_CIFAR_10/recover/`` G-VBSM's
``data_synthesis_with_svd_with_db_with_all_statistic.py`` and EDC's ``recover.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from baselines.crops import random_resized_crops, seeded
from baselines.gvbsm.statistics import Distances, Goal, precise

RATIO = (3 / 4, 4 / 3)
POOLED = 32  # side to which images are pooled before their Gram matrix is taken
TEMPERATURE = 4.0  # of the eigenvalues' and the smoothed images' softmax


@dataclass(frozen=True)
class Settings:
    """One recovery.

    Attributes:
        lr: Adam's rate at the start of a cosine that ends at 0.
        r_loss: weight of the statistics; ``first`` multiplies the first layer's part of it.
        diversity: weight of the term on the eigenvalues of each class's Gram matrix (G-VBSM).
        flatness: weight of the divergence from the smoothed images' logits (EDC); ``smoothing`` is their decay.
        pad: the batch is shifted by up to so many pixels, zeros come in; 0: it is cropped from ``smallest_crop`` of
            the area on.
        jitter: largest circular shift in pixels.
    """

    iterations: int
    lr: float
    r_loss: float
    first: float
    diversity: float
    flatness: float
    smoothing: float
    momentum: float
    drop: float
    warm: bool
    pad: int
    smallest_crop: float
    flip: bool
    jitter: int


def augment(images: Sequence[torch.Tensor], settings: Settings) -> list[torch.Tensor]:
    """One shift or crop, one flip and one circular shift for all batches, from torch's global generator."""
    side, both = images[0].shape[-1], torch.stack(list(images))
    if settings.pad:
        padded = F.pad(both, (settings.pad,) * 4)
        down, right = (int(torch.randint(0, 2 * settings.pad + 1, (1,))) for _ in range(2))
        both = padded[..., down : down + side, right : right + side]
    else:
        flat = both.flatten(0, 1)  # resizing takes 4 dimensions
        (flat,) = random_resized_crops(flat, side, 1, (settings.smallest_crop, 1.0), RATIO)
        both = flat.view(both.shape)
    if settings.flip and torch.rand(1) < 0.5:
        both = both.flip(-1)
    if settings.jitter:
        down, right = torch.randint(0, settings.jitter + 1, (2,)).tolist()
        both = both.roll((down, right), (3, 4))
    return list(both)


def spread(images: torch.Tensor, groups: Sequence[torch.Tensor]) -> torch.Tensor:
    """G-VBSM's diversity: for each class the divergence of the eigenvalues' softmax at two temperatures.

    KL(softmax(e / 4) ‖ softmax(e)) over the eigenvalues e of the class's Gram matrix of images pooled to 32 x 32 (the
    first without gradient), summed over classes.

    Args:
        groups: positions in ``images`` ``[n, C, H, W]`` of each class's.
    """
    flat = F.adaptive_avg_pool2d(precise(images), POOLED).flatten(1)
    total = flat.new_zeros(())
    for rows in groups:
        gram = flat[rows] @ flat[rows].t()
        values = torch.linalg.eigvalsh(gram)
        wanted = (values / TEMPERATURE).softmax(-1).detach()
        total = total + F.kl_div(values.log_softmax(-1), wanted, reduction="sum")
    return total


def recover(
    models: Sequence[nn.Module],
    targets: Sequence[list[list[Goal]]],
    start: torch.Tensor,
    labels: torch.Tensor,
    *,
    groups: Sequence[torch.Tensor],
    mean: torch.Tensor,
    std: torch.Tensor,
    settings: Settings,
    seed: int,
) -> torch.Tensor:
    """Optimise the batch ``start``.

    Args:
        models: in eval mode; ``targets`` are the goals of each (:func:`baselines.gvbsm.statistics.goals`).
        start: float ``[n, C, H, W]``, normalised. labels: int64 ``[n]``; groups: positions of each class's images.

    Returns:
        float ``[n, C, H, W]``, normalised; pixel values in 0..1.
    """
    s, low, high = settings, -mean / std, (1 - mean) / std
    x = start.clone().requires_grad_(True)
    smoothed = x.detach().clone()
    optimizer = torch.optim.Adam([x], s.lr, betas=(0.5, 0.9), eps=1e-8)
    with seeded(seed), ExitStack() as stack:
        watched = [Distances(m, t, s.momentum, s.drop, s.warm) for m, t in zip(models, targets, strict=True)]
        for distances in watched:
            stack.enter_context(distances.watched())
        for step in range(s.iterations):
            optimizer.param_groups[0]["lr"] = s.lr * 0.5 * (1 + math.cos(math.pi * step / s.iterations))
            turn = step % len(models)
            views = augment([x, smoothed] if s.flatness else [x], s)
            logits = models[turn](views[0])
            first, *others = watched[turn].values
            loss = F.cross_entropy(logits, labels) + s.r_loss * (s.first * first + sum(others))
            if s.diversity:
                loss = loss + s.diversity * spread(views[0], groups)
            if s.flatness:
                with torch.no_grad(), watched[turn].blind():
                    calm = (models[turn](views[1]) / TEMPERATURE).softmax(1)
                    smoothed = s.smoothing * smoothed + (1 - s.smoothing) * x
                apart = F.kl_div((logits / TEMPERATURE).log_softmax(1), calm, reduction="none")
                loss = loss + s.flatness * apart.mean()  # over images *and* classes, as the authors' code has it
            (x.grad,) = torch.autograd.grad(loss, x)
            optimizer.step()
            with torch.no_grad():
                x.copy_(x.clamp(low, high))
    return x.detach()
