"""When memory runs out: smaller micro-batches with equal results, images that stay on the host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# the allocators', and what cuBLAS and cuDNN say where the memory of their workspaces is missing
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "_status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that a device or the host has no memory left."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether an image's output depends on the other images of its batch."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def resident(images: Tensor, device: str) -> Tensor:
    """``images`` on the device, or pinned on the host where they would take more than half of what is free there."""
    if torch.device(device).type != "cuda":
        return images.to(device)
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # kept from earlier jobs
    if images.numel() * images.element_size() > free // 2:
        return images.contiguous().pin_memory()
    return images.to(device)


def recompute(model: nn.Module) -> nn.Module:
    """Make ``model`` keep no activations inside its blocks but compute them again when gradients need them.

    For networks with BatchNorm, where smaller micro-batches would be another computation: results stay equal, because
    running statistics are left alone the second time. Blocks are the children (of containers too), and runs of four
    layers in a flat container.
    """
    for module in model.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # what comes after a block must not change the input that it is repeated from
    children = list(model.children())
    if len(children) == 1 and not isinstance(model, nn.Sequential):
        recompute(children[0])
    else:
        for child in [model] if isinstance(model, nn.Sequential) else children:
            _wrap(child)
    return model


def _wrap(module: nn.Module, run: int = 4) -> None:
    children = list(module.children())
    if not children:
        return
    if not isinstance(module, nn.Sequential):
        module.forward = _Recomputed([module], module.forward)
    elif any(True for child in children for _ in child.children()):
        for child in children:
            _wrap(child)
    else:
        runs = [children[i : i + run] for i in range(0, len(children), run)]
        parts = [_Recomputed(part, _chain(part)) for part in runs]
        module.forward = _chain(parts)


def _chain(parts: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        for part in parts:
            x = part(x)
        return x

    return forward


class _Recomputed:
    def __init__(self, modules: list[nn.Module], plain: Callable[[Tensor], Tensor]) -> None:
        self.modules, self.plain = modules, plain

    def __call__(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.plain(x)

        def contexts():
            return contextlib.nullcontext(), _statistics_kept(self.modules)

        return checkpoint(self.plain, x, use_reentrant=False, context_fn=contexts, preserve_rng_state=True)


@contextlib.contextmanager
def _statistics_kept(modules: list[nn.Module]) -> Iterator[None]:
    norms = [m for part in modules for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(m, m.running_mean, m.running_var, m.num_batches_tracked) for m in norms]
    for m in norms:  # same shapes and the same kernel, thrown-away statistics
        if m.running_mean is not None:
            m.running_mean, m.running_var = m.running_mean.clone(), m.running_var.clone()
            m.num_batches_tracked = m.num_batches_tracked.clone()
    try:
        yield
    finally:
        for m, mean, var, count in kept:
            m.running_mean, m.running_var, m.num_batches_tracked = mean, var, count
