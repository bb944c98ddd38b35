"""The ranks that torchrun starts: how they agree, and how they train one network together.

Without torchrun there is one rank and every function here does nothing. Under it the ranks of ``ddbench run`` share
out jobs (:mod:`benchmark.pipeline.engine`); inside :func:`together` they do one job: every rank draws the numbers of
the *global* batch from the same generators, computes its own rows of it, and gradients are summed. BatchNorm uses the
statistics of the global batch on any device (:func:`synchronise_norms`). So the result equals that of one process up
to the order of sums; only dropout and stochastic depth draw other masks. Only the first rank writes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import JobError

if TYPE_CHECKING:
    import torch

    from benchmark.core.store import Stage, Store

PATIENCE = timedelta(days=7)  # ranks wait for each other while one does a job; torchrun ends them when one dies
BUCKET_BYTES = 64 << 20  # of gradients summed at once
VISIBLE_SECONDS = 60  # how long a network file system may hide a new folder from another host

_together = False


def rank() -> int:
    """This process's rank; 0 without torchrun."""
    return int(os.environ.get("RANK", 0)) if world() > 1 else 0


def world() -> int:
    """How many ranks torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "MASTER_ADDR" in os.environ else 1


def launched() -> bool:
    """Whether torchrun started this process, be it as the only rank."""
    return "LOCAL_RANK" in os.environ


def leads() -> bool:
    """Whether this is the rank that writes and reports."""
    return rank() == 0


def start() -> None:
    """Join the other ranks, once; SIGTERM (what torchrun sends when it is stopped) then unwinds like Ctrl-C."""
    if world() == 1:
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)


def leave() -> None:
    """Part from the other ranks, once all is done and well: Gloo's threads, left to the end of the process, abort it.

    Not after an error: the others may be waiting for this rank, and NCCL would wait for them.
    """
    if world() == 1:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def agree(value: Any) -> Any:
    """The first rank's ``value`` (JSON-like), on every rank."""
    if world() == 1:
        return value
    import torch.distributed as dist

    start()
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def wait() -> None:
    """Return when every rank has come here."""
    if world() > 1:
        collect(None)


def collect(value: Any) -> list[Any]:
    """Every rank's ``value``, by rank."""
    if world() == 1:
        return [value]
    import torch.distributed as dist

    start()
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, value)
    return found


# -- one job on all ranks ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within it all ranks do the same job: :func:`rows` cuts batches, :func:`sum_gradients` sums."""
    global _together
    start()
    before, _together = _together, world() > 1
    try:
        yield
    finally:
        _together = before


def size() -> int:
    """How many ranks do the present job."""
    return world() if _together else 1


def decide(value: Any) -> Any:
    """:func:`agree` among the ranks of the present job; a rank that works alone decides for itself."""
    return agree(value) if size() > 1 else value


def writes() -> bool:
    """Whether this process writes the present job's checkpoints."""
    return size() == 1 or leads()


def build(store: Store, stage: Stage, make: Callable[[Path], None]) -> Path:
    """``store.build`` on all ranks of the job: the first makes the artifact, the others run ``make`` beside it."""
    if size() == 1:
        return store.build(stage, make)
    if leads():
        asked = []

        def leading(folder: Path) -> None:
            asked.append(agree(True))
            make(folder)

        store.build(stage, leading)
        if not asked:
            agree(False)
    elif agree(None):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
    wait()
    for _ in range(VISIBLE_SECONDS):
        found = store.open(stage)
        if found is not None:
            return found
        time.sleep(1)
    raise JobError(
        f"rank {rank()} does not see what the first rank made",
        where=str(store.path(stage)),
        hint="torchrun over several hosts needs DDBENCH_CACHE on a file system that they share",
    )


def check_same(value: Any, what: str) -> None:
    """Every rank starts from the same place (and none goes on before all have read it).

    Raises:
        JobError: they do not.
    """
    if size() == 1:
        return
    found = collect(value)
    if any(other != found[0] for other in found):
        raise JobError(
            f"the ranks start from different {what}s: {found}",
            hint="torchrun over several hosts needs DDBENCH_CACHE on a file system that they share",
        )


def rows(count: int) -> slice:
    """This rank's rows of a batch of ``count``; ranks differ by one row at most."""
    return slice(rank() * count // size(), (rank() + 1) * count // size()) if size() > 1 else slice(0, count)


def cut(piece: slice) -> tuple[slice, float]:
    """This rank's part of ``piece`` of a batch, and its share of the piece's rows (the weight of its mean loss)."""
    length = piece.stop - piece.start
    mine = rows(length)
    return slice(piece.start + mine.start, piece.start + mine.stop), (mine.stop - mine.start) / length


def part(count: int) -> tuple[slice, float]:
    """:func:`cut` of a whole batch, for training that has no use for an empty part.

    Raises:
        JobError: the batch has fewer rows than there are ranks.
    """
    if count < size():
        raise JobError(f"a batch of {count} cannot be shared by {size()} ranks", hint="a larger batch, or fewer ranks")
    return cut(slice(0, count))


def by_rows(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """``function(x)`` for one that treats rows apart: each rank does its own, all get all. No gradient passes."""
    if size() == 1:
        return function(x)
    import torch
    import torch.distributed as dist

    mine = function(x[rows(len(x))])
    full = torch.zeros(len(x), *mine.shape[1:], dtype=mine.dtype, device=mine.device)
    full[rows(len(x))] = mine
    dist.all_reduce(full)
    return full


def total(value: float) -> float:
    """The sum of ``value`` over the job's ranks."""
    return sum(collect(value)) if size() > 1 else value


def sum_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Replace every gradient by its sum over the job's ranks."""
    if size() == 1:
        return
    import torch
    import torch.distributed as dist

    bucket: list[torch.Tensor] = []

    def send() -> None:
        flat = torch.cat([g.reshape(-1) for g in bucket])
        dist.all_reduce(flat)
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket])):
            gradient.copy_(part.view_as(gradient))
        bucket.clear()

    gradients = [p.grad for p in parameters if p.grad is not None]
    held = 0
    for gradient in gradients:
        if bucket and (held > BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            send()
            held = 0
        bucket.append(gradient)
        held += gradient.numel() * gradient.element_size()
    if bucket:
        send()


def synchronise_norms(model: torch.nn.Module) -> None:
    """Let every BatchNorm of ``model`` normalise by the statistics of the global batch while training.

    The same computation on CPU and GPU: two sums over the ranks a layer, with gradients (`torch.nn.SyncBatchNorm`
    needs a GPU). Running statistics are those of the global batch too, so they are equal on all ranks.
    """
    if size() == 1:
        return
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.forward = _global_norm(module, module.forward)


def _global_norm(module, plain: Callable) -> Callable:
    import torch
    import torch.distributed as dist

    class Summed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            x = x.clone()
            dist.all_reduce(x)
            return x

        @staticmethod
        def backward(ctx, gradient):
            gradient = gradient.clone()
            dist.all_reduce(gradient)
            return gradient

    def forward(x: torch.Tensor) -> torch.Tensor:
        if not module.training or size() == 1:
            return plain(x)
        shape = [1, -1] + [1] * (x.ndim - 2)
        other = [d for d in range(x.ndim) if d != 1]
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        sums = wide.sum(other)
        sums = Summed.apply(torch.cat([sums, sums.new_full((1,), x.numel() / x.shape[1])]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = wide - mean.view(shape)
        variance = Summed.apply(centred.square().sum(other)) / count
        if module.track_running_stats and module.running_mean is not None:
            with torch.no_grad():
                module.num_batches_tracked += 1
                share = 1 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
                module.running_mean.lerp_(mean.to(module.running_mean.dtype), share)
                unbiased = variance * (count / (count - 1).clamp(min=1))
                module.running_var.lerp_(unbiased.to(module.running_var.dtype), share)
        out = centred * (variance + module.eps).rsqrt().view(shape)
        if module.affine:
            out = out * module.weight.view(shape) + module.bias.view(shape)
        return out.to(x.dtype)

    return forward
