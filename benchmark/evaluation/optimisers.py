"""Optimizer, learning rate and loss that a protocol asks for."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.evaluation.protocols import Protocol


def make_optimizer(model: nn.Module, protocol: Protocol, rate: float) -> torch.optim.Optimizer:
    """The protocol's optimizer; ``decay: matrices`` leaves norms and biases alone (RDED's ``get_parameters``)."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if protocol.decay == "matrices":
        heavy = [p for name, p in named if "weight" in name and p.ndim > 1]
        chosen = {id(p) for p in heavy}
        light = [p for _, p in named if id(p) not in chosen]
        groups = [{"params": heavy}, {"params": light, "weight_decay": 0.0}]
        groups = [g for g in groups if g["params"]]
    else:
        groups = [{"params": [p for _, p in named]}]
    # Fused kernels round in another order. Where a gradient is tiny Adam divides noise by its own size, so after
    # 20 steps float32 runs differ by 1e-3 (as a published run does from itself with its batches reversed).
    fused = None if protocol.optimizer == "adamw_torch" else True
    common = {"lr": rate, "weight_decay": protocol.weight_decay, "fused": fused}
    if protocol.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=protocol.momentum, **common)
    return torch.optim.AdamW(groups, betas=tuple(protocol.betas), **common)


def rate_factor(protocol: Protocol, epoch: int, epochs: int, step: int, steps: int) -> float:
    """The learning rate of a step as a factor of the base rate. Epochs and steps count from 0."""
    if protocol.schedule == "step":
        return protocol.gamma ** sum(epoch >= m for m in protocol.milestones)
    now, end = (step, steps) if protocol.schedule_by == "step" else (epoch, epochs)
    factor = 1.0
    rise = protocol.warmup * steps
    if rise and step < rise:
        return (step + 1) / math.ceil(rise) if step + 1 < rise else 1.0
    if rise and protocol.schedule_by == "step":
        now, end = step - rise, steps - rise
    if protocol.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * now / end))
    elif protocol.schedule == "half_cosine":  # RDED, D3HR: lambda epoch: 0.5 (1 + cos(pi epoch / epochs / 2))
        factor = 0.5 * (1 + math.cos(math.pi * now / end / 2))
    return factor


def loss_of(
    protocol: Protocol, logits: Tensor, labels: Tensor, soft: Tensor | None, other: Tensor | None, share: float
) -> Tensor:
    """Mean loss of a batch.

    Args:
        logits: ``[n, classes]`` of the student.
        labels: int64 ``[n]``.
        soft: the teacher's logits for the same (mixed) batch, or None.
        other, share: labels of what each image was mixed with (or None), and the part that it kept.
    """

    def hard() -> Tensor:
        own = F.cross_entropy(logits, labels, label_smoothing=protocol.label_smoothing)
        if other is None:
            return own
        mixed_in = F.cross_entropy(logits, other, label_smoothing=protocol.label_smoothing)
        return share * own + (1 - share) * mixed_in

    if protocol.loss == "ce":
        return hard()
    assert soft is not None
    t, soft, logits = protocol.temperature, _full(soft).to(_full(logits).dtype), _full(logits)
    if protocol.loss == "kl":
        loss = F.kl_div(F.log_softmax(logits / t, dim=1), F.softmax(soft / t, dim=1), reduction="batchmean")
        return loss * t * t if protocol.temperature_squared else loss
    return F.mse_loss(logits, soft) + protocol.ce_weight * hard()


def _full(x: Tensor) -> Tensor:
    """Half precision (autocast, stored labels) to float32; others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def set_bn_updates(model: nn.Module, times: int) -> None:
    """Make one forward pass move BatchNorm's running statistics as ``times`` passes over the same batch would.

    ``times`` updates with momentum m leave ``(1 - m)^times`` of the old value, which is one update with momentum
    ``1 - (1 - m)^times``: RDED's and D3HR's logging-only second forward pass (m = 0.1) is momentum 0.19.
    """
    if times == 1:
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = 1 - (1 - module.momentum) ** times
