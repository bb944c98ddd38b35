"""A training loop that a kill cannot hurt: every step's randomness is derived, checkpoints are exact and atomic."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from benchmark.core import distributed
from benchmark.core.progress import Progress
from benchmark.core.store import Stage, Store
from benchmark.core.store.checked import find_checked, replace_checked

INTERVAL_SECONDS = 10.0  # aimed at between checkpoints: what a kill costs at most
SAVE_SHARE = 0.05  # of the time may go into writing checkpoints: large models have longer intervals
READ_STEPS = 10  # losses that are read at once
FIRST_INTERVAL = 20  # steps before the first checkpoint, while the speed is unknown


class OutOfTime(Exception):
    """A training has reached the deadline it was given; its checkpoint is written and the next call goes on there."""

    def __init__(self, label: str, done: int, total: int) -> None:
        super().__init__(f"{label}: {done} of {total} steps done when the time limit was reached")


class Averaged:
    """Modules with AdamW and a running average of the trainable weights.

    The average is the power function of arXiv 2312.02696 (section 3.1): its window grows with the training, so one
    ``width`` (standard deviation of the window as a share of the training so far) suits short and long runs.

    Args:
        keep: instead of ``width``: the share of the average that stays at a step, by the number of steps before it.
        betas: of AdamW.
        clip: largest norm of the whole gradient; None leaves it as it is.
        spare_vectors: biases and norms, of one dimension, get no weight decay.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float,
        weight_decay: float,
        width: float = 0.1,
        *,
        keep: Callable[[int], float] | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        clip: float | None = 1.0,
        spare_vectors: bool = False,
    ) -> None:
        self.module, self.lr, self.clip = module, lr, clip
        gamma = _gamma(width)
        self.keep = keep or (lambda done: (1 - 1 / (done + 1)) ** (gamma + 1))
        self.named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self.weights = [p for _, p in self.named]
        saved = module.state_dict(keep_vars=True)
        self.buffers = [(n, b) for n, b in module.named_buffers() if n in saved]
        spared = [p for p in self.weights if spare_vectors and p.ndim <= 1]
        decayed = [p for p in self.weights if not (spare_vectors and p.ndim <= 1)]
        groups = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr, betas=betas, weight_decay=weight_decay, fused=True
        )
        self.average = [p.detach().clone() for p in self.weights]

    def step(self, done: int, rate: float) -> None:
        """Apply the gradients; ``done`` steps were made before this one, ``rate`` multiplies the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * rate
        distributed.sum_gradients(self.weights)
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.weights, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(self.average, [p.detach() for p in self.weights], 1 - self.keep(done))

    def swap(self) -> None:
        """Exchange the weights with their average; call it twice to restore them."""
        for weight, average in zip(self.weights, self.average):
            kept = weight.detach().clone()
            weight.data.copy_(average)
            average.copy_(kept)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on."""
        found = {f"buffer.{name}": buffer for name, buffer in self.buffers}
        for (name, weight), average in zip(self.named, self.average):
            found[f"weight.{name}"], found[f"average.{name}"] = weight.detach(), average
            for key, value in self.optimizer.state.get(weight, {}).items():
                found[f"optimizer.{key}.{name}"] = value
        return {k: v.contiguous() for k, v in found.items()}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, buffer in self.buffers:
            buffer.copy_(tensors[f"buffer.{name}"])
        for (name, weight), average in zip(self.named, self.average):
            weight.data.copy_(tensors[f"weight.{name}"])
            average.copy_(tensors[f"average.{name}"])
            found = {key: tensors.get(f"optimizer.{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[weight] = {
                # in the weight's own memory format: the fused optimizer walks both in the order of their memory
                key: value.to(weight.device) if key == "step" else torch.empty_like(weight).copy_(value)
                for key, value in found.items()
                if value is not None
            }


def _gamma(width: float) -> float:
    """The exponent whose window has the relative width ``width`` (arXiv 2312.02696, eq. 126, solved by bisection)."""
    low, high = 0.0, 1e6
    while high - low > 1e-9 * max(1.0, low):
        middle = (low + high) / 2
        if math.sqrt(middle + 1) / ((middle + 2) * math.sqrt(middle + 3)) > width:
            low = middle
        else:
            high = middle
    return low


def rate_at(step: int, total: int, warmup: float) -> float:
    """Linear warm-up, then a cosine to zero: the multiplier of the learning rate at ``step`` of ``total``."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def train(
    store: Store,
    stage: Stage,
    label: str,
    total: int,
    state: Averaged,
    step: Callable[[int], float | torch.Tensor],
    evaluate: Callable[[], float] | None = None,
    evaluations: int = 20,
    *,
    rungs: Collection[int] = (),
    at_rung: Callable[[int], None] | None = None,
    deadline: float | None = None,
    read_steps: int = READ_STEPS,
) -> list[list[float]]:
    """Run steps 0 … ``total`` - 1 of ``step(i) -> loss``, or those left after the last checkpoint of ``stage``.

    ``step`` must draw all randomness from its argument; on several ranks its loss is the rank's share of the batch's.
    Losses are read a few steps late, for reading one waits until a GPU has done all that it was given.
    ``evaluate()`` is called with the averaged weights in place at ``evaluations`` even distances, ``at_rung(steps
    done)`` likewise after the steps in ``rungs``. Checkpoints lie in ``store.workdir(stage)`` (safetensors, replaced
    whole).

    Args:
        deadline: value of ``time.monotonic()`` at which to stop.
        read_steps: losses that are read at once: reading waits for the GPU.

    Returns:
        The curve: rows ``[step, seconds of training, mean training loss since the last row, evaluation]``.

    Raises:
        OutOfTime: at the deadline, with the checkpoint written.
    """
    file = store.workdir(stage) / f"{label.split()[-1]}.safetensors"
    done, seconds, curve, recent = _resume(file, state)
    distributed.check_same(done, "checkpoint")
    marks = {max(1, round(total * (i + 1) / evaluations)) for i in range(evaluations)}
    interval, saving = FIRST_INTERVAL, 0.0
    unread: list[float | torch.Tensor] = []

    def read() -> None:
        there = [loss for loss in unread if isinstance(loss, torch.Tensor)]
        for loss in torch.stack(there).tolist() if there else unread:  # one wait for a GPU
            recent[0] += distributed.total(loss)
            recent[1] += 1
        unread.clear()

    with Progress(total, label, "step", initial=done) as bar:
        while done < total:
            count = min(interval, total - done)
            if distributed.writes():
                store.log_work(stage, "steps", count)
            began = time.monotonic()
            for index in range(done, done + count):
                unread.append(step(index))
                if len(unread) >= read_steps:
                    read()
                bar.update(1, f"loss {recent[0] / recent[1]:.4f}" if recent[1] else "")
                if index + 1 in marks:
                    read()
                    value = math.nan
                    if evaluate is not None:
                        state.swap()
                        value = evaluate()
                        state.swap()
                    spent = seconds + time.monotonic() - began
                    curve.append([index + 1, round(spent, 1), recent[0] / recent[1], value])
                    recent[:] = 0.0, 0
                if index + 1 in rungs and at_rung is not None:
                    read()
                    paused = time.monotonic()
                    state.swap()
                    at_rung(index + 1)
                    state.swap()
                    began += time.monotonic() - paused
            read()
            done += count
            lasted = time.monotonic() - began
            seconds += lasted
            aim = max(INTERVAL_SECONDS, saving / SAVE_SHARE)
            interval = max(1, min(4 * interval, round(count * aim / max(lasted, 1e-3))))
            began = time.monotonic()
            if distributed.writes():
                _save(file, state, {"done": done, "seconds": seconds, "curve": curve, "recent": recent})
            saving = time.monotonic() - began
            if distributed.agree(deadline is not None and time.monotonic() > deadline) and done < total:
                raise OutOfTime(label, done, total)
    return curve


def _save(file: Path, state: Averaged, about: dict) -> None:
    replace_checked(file, lambda temporary: save_file(state.tensors(), temporary, {"about": json.dumps(about)}))


def _resume(file: Path, state: Averaged) -> tuple[int, float, list, list]:
    found = find_checked(file)
    if found is None:
        return 0, 0.0, [], [0.0, 0]
    with safe_open(found, "pt") as saved:
        about = json.loads(saved.metadata()["about"])
        state.load({key: saved.get_tensor(key) for key in saved.keys()})  # noqa: SIM118 - not a dict
    return about["done"], about["seconds"], about["curve"], about["recent"]


def batches(count: int, size: int, step: int, *seed: object) -> torch.Tensor:
    """Positions of the images of batch ``step``: every epoch a new order, derived from ``seed`` and the epoch.

    Batches run on over the end of an epoch, so every batch has ``size`` images.
    """
    from benchmark.core.compute import generator

    first, chosen = step * size, []
    while size:
        epoch, offset = divmod(first, count)
        order = _order(count, epoch, seed, generator)
        part = order[offset : offset + size]
        chosen.append(part)
        first, size = first + len(part), size - len(part)
    return torch.cat(chosen)


_ORDERS: dict[tuple, torch.Tensor] = {}


def _order(count: int, epoch: int, seed: tuple, generator) -> torch.Tensor:
    key = (count, epoch, seed)
    if key not in _ORDERS:
        if len(_ORDERS) > 4:
            _ORDERS.clear()
        _ORDERS[key] = torch.randperm(count, generator=generator(*seed, "epoch", epoch))
    return _ORDERS[key]
