"""FLOPs of a student's forward pass, counted on a model without weights."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=64)
def forward_flops(student: str, classes: int, channels: int, side: int) -> float:
    """FLOPs of one image through ``student`` (matrix products and convolutions, as PyTorch counts them)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmark.students import build_student

    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        build_student(student, classes, channels, side, 0).eval()(torch.empty(1, channels, side, side))
    return float(counter.get_total_flops())
