"""Recover: images that a classifier calls their class and whose BatchNorm statistics are the data's.

Source: SRe2L (arXiv 2306.13092, section 3.2), repository VILA-Lab/SRe2L, ``SRe2L/recover/data_synthesis.py`` and
``utils.py``, ``SRe2L/*small_dataset/recover_cifar.py``; CDA's schedule: ``CDA/recover_cda_in1k.py``. Total variation
and the l2 norm of the images are left out: every published script sets their weights to 0.

The methods that followed change single pieces of this loop, each a field of `Settings`: DWA moves the weights before
the first step and weighs the variances, DELT lets images enter later, FADRM cuts the loop into segments of other sizes
with a new optimiser each, CV-DD and FADRM+ take several classifiers in turn (:mod:`baselines.sre2l.presets`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
        r_var: weight of the variances beside the means in the BatchNorm term.
        ascents: steps of normalised gradient ascent on the weights before the first step, ``radius`` long together.
        ascent_gradients: whether the first step of the images also follows the gradients that they got in the ascents.
        sizes: side in pixels of each segment; the steps are shared out evenly, each segment has a new optimiser.
            Empty: one segment at the images' own size.
        kept: share of the images that a new segment begins with; the rest are the images that they began as.
    """

    iterations: int
    lr: float
    r_bn: float
    first_bn: float
    jitter: int
    flip: bool
    smallest_crop: Callable[[int, int], float] | None
    r_var: float = 1.0
    ascents: int = 0
    radius: float = 0.0
    ascent_gradients: bool = True
    sizes: tuple[int, ...] = ()
    kept: float = 1.0


def constant_crop(step: int, total: int) -> float:
    """SRe2L: crops of 8 % to 100 % of the area throughout."""
    return SMALLEST


def curriculum_crop(step: int, total: int) -> float:
    """CDA (``--easy2hard-mode cosine --milestone 1``): whole images first, then ever smaller crops, down to 8 %."""
    return SMALLEST + (1 - SMALLEST) * (1 + math.cos(math.pi * step / total)) / 2


@contextmanager
def batchnorm_distances(model: nn.Module, r_var: float = 1.0) -> Iterator[list[torch.Tensor]]:
    """While open, each forward pass of ``model`` fills the list: a distance a BatchNorm2d layer, in module order.

    The distance is ``r_var`` × ‖running variance - batch variance‖₂ + ‖running mean - batch mean‖₂ of the layer's
    input, over its channels (biased variance).
    """
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    distances: list[torch.Tensor] = [torch.empty(0)] * len(layers)

    def hook(index: int):
        def measure(module: nn.BatchNorm2d, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            x = inputs[0]
            if x.dtype == torch.bfloat16:  # of autocast: it would round the statistics to 3 digits
                x = x.float()
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            spread = (module.running_var - variance).norm()
            distances[index] = (spread if r_var == 1 else r_var * spread) + (module.running_mean - mean).norm()

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


def ascend(model: nn.Module, x: torch.Tensor, view: torch.Tensor, targets: torch.Tensor, settings: Settings):
    """Move the weights of ``model``, in place, ``settings.ascents`` times up the cross-entropy of ``view``.

    DWA (arXiv 2409.17612, section 4.2; ``distillation/perterb.py``): each ascent is ``radius / ascents`` long in the
    norm over all weights.

    Args:
        view: what the model sees of the images ``x``.

    Returns:
        The sum of the gradients that ``x`` got meanwhile.
    """
    weights = [p.requires_grad_(True) for p in model.parameters()]
    total = torch.zeros_like(x)
    for _ in range(settings.ascents):
        value = F.cross_entropy(model(view), targets)
        *gradients, own = torch.autograd.grad(value, [*weights, x], retain_graph=True, allow_unused=True)
        moved = [(w, g) for w, g in zip(weights, gradients, strict=True) if g is not None]
        length = torch.stack([g.norm() for _, g in moved]).norm()
        with torch.no_grad():
            for w, g in moved:
                w.add_(g * (settings.radius / settings.ascents / (length + 1e-12)))
        total += own
    model.requires_grad_(False)
    return total


def entered(enters: Sequence[int], device: torch.device | str) -> dict[int, torch.Tensor | None]:
    """For each step at which images enter: which of them there are from then on; None for all of them."""
    rounds = {}
    for step in sorted(set(enters)):
        rows = [i for i, first in enumerate(enters) if first <= step]
        rounds[step] = None if len(rows) == len(enters) else torch.tensor(rows).to(device)
    return rounds


def segments(settings: Settings, size: int) -> list[tuple[int, int]]:
    """(first step, side in pixels) of each segment."""
    sizes = settings.sizes or (size,)
    return [(i * settings.iterations // len(sizes), side) for i, side in enumerate(sizes)]


def resized(x: torch.Tensor, size: int) -> torch.Tensor:
    """``x`` ``[n, C, H, W]``, bilinear without antialiasing (FADRM); itself where it has the size."""
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def recover(
    model: nn.Module | Sequence[nn.Module],
    start: torch.Tensor,
    targets: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    settings: Settings,
    seed: int,
    enters: Sequence[int] = (),
) -> torch.Tensor:
    """Optimise the batch ``start``; its images are coupled by the BatchNorm statistics.

    Args:
        model: in eval mode, with at least one BatchNorm2d; takes images normalised by ``mean`` and ``std``. Several
            take turns, a step each.
        start: float ``[n, C, H, W]``, normalised. targets: int64 ``[n]``. mean, std: ``[1, C, 1, 1]``.
        enters: the step at which each image joins (DELT); empty: all from step 0 on.

    Returns:
        float ``[n, C, H, W]``, normalised; pixel values stay in 0..1.
    """
    models = [model] if isinstance(model, nn.Module) else list(model)
    if settings.ascents:
        models = [copy.deepcopy(m) for m in models]  # their weights move
    low, high = -mean / std, (1 - mean) / std
    rounds, parts, rows = entered(enters, start.device), dict(segments(settings, start.shape[-1])), None
    x = resized(start, next(iter(parts.values()))).clone().requires_grad_(True)
    with seeded(seed), ExitStack() as stack:
        distances = [stack.enter_context(batchnorm_distances(m, settings.r_var)) for m in models]
        for step in range(settings.iterations):
            if step in parts:
                if step:
                    x = resized(x.detach(), parts[step])
                    x = (settings.kept * x + (1 - settings.kept) * resized(start, parts[step])).requires_grad_(True)
                optimizer = torch.optim.Adam([x], settings.lr, betas=(0.5, 0.9), eps=1e-8)
            rows = rounds.get(step, rows)
            turn = step % len(models)
            rate = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.iterations))
            optimizer.param_groups[0]["lr"] = rate
            view = augment(x if rows is None else x[rows], settings, step)
            labels = targets if rows is None else targets[rows]
            before = None
            if settings.ascents and step < len(models):
                before = ascend(models[turn], x, view, labels, settings)
            logits = models[turn](view)
            value = loss(logits, labels, distances[turn], settings.r_bn, settings.first_bn)
            (x.grad,) = torch.autograd.grad(value, x)
            if before is not None and settings.ascent_gradients:
                x.grad += before
            optimizer.step()
            with torch.no_grad():
                x.copy_(x.clamp(low, high))
    return x.detach()
