"""When memory runs out: smaller micro-batches with equal results, images that stay on the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that a device or the host has no memory left."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error).lower() for text in ("out of memory", "can't allocate memory", "not enough memory")
    )


def has_batch_norm(model: nn.Module) -> bool:
    """Whether an image's output depends on the other images of its batch."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def resident(images: Tensor, device: str) -> Tensor:
    """``images`` on the device, or pinned on the host where they would take more than half of what is free there."""
    if torch.device(device).type != "cuda":
        return images.to(device)
    free, _ = torch.cuda.mem_get_info(device)
    if images.numel() * images.element_size() > free // 2:
        return images.contiguous().pin_memory()
    return images.to(device)


def recompute(model: nn.Module) -> nn.Module:
    """Make ``model`` keep no activations inside its blocks but compute them again when gradients need them.

    For networks with BatchNorm, where smaller micro-batches would be another computation: results stay equal, because
    running statistics are left alone the second time. Blocks are the children, and the children of containers.
    """
    for block in _blocks(model):
        block.forward = _Recomputed(block)
    return model


def _blocks(model: nn.Module) -> list[nn.Module]:
    blocks = []
    for child in model.children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)) and len(child) > 1:
            blocks += list(child)
        elif any(True for _ in child.children()) and len(list(model.children())) == 1:
            blocks += _blocks(child)
        else:
            blocks.append(child)
    return blocks


class _Recomputed:
    def __init__(self, block: nn.Module) -> None:
        self.block, self.plain = block, block.forward

    def __call__(self, x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and self.block.training):
            return self.plain(x)
        if not x.requires_grad and not any(p.requires_grad for p in self.block.parameters()):
            return self.plain(x)
        contexts = lambda: (contextlib.nullcontext(), _statistics_kept(self.block))  # noqa: E731
        return checkpoint(self.plain, x, use_reentrant=False, context_fn=contexts, preserve_rng_state=True)


@contextlib.contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(m, m.track_running_stats, m.running_mean, m.running_var, m.num_batches_tracked) for m in norms]
    for m in norms:  # same shapes and the same kernel, thrown-away statistics
        if m.running_mean is not None:
            m.running_mean, m.running_var = m.running_mean.clone(), m.running_var.clone()
            m.num_batches_tracked = m.num_batches_tracked.clone()
    try:
        yield
    finally:
        for m, _, mean, var, count in kept:
            m.running_mean, m.running_var, m.num_batches_tracked = mean, var, count
