"""Train a student on a distilled set, and nothing else: no loader processes, no validation that is not asked for.

The set lies on the device as uint8. Everything random is drawn from generators of (seed, purpose, epoch or step), so
a run that was killed continues from its checkpoint with the very numbers that it would have used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmark.compute import Precision, derive_seed, generator
from benchmark.errors import JobError
from benchmark.progress import Progress
from benchmark.protocols import Protocol
from benchmark.students import build_student, input_size, lr_group
from benchmark.training import checkpoint
from benchmark.training.augment import IMAGENET_MEAN, IMAGENET_STD, Augmenter, center_view, mix
from benchmark.training.optimisers import loss_of, make_optimizer, rate_factor, set_bn_updates
from benchmark.training.testing import accuracy, calibration_error, predict, test_set

if TYPE_CHECKING:
    from benchmark.datasets import Dataset
    from benchmark.teachers import Teacher


@dataclass
class Result:
    """A trained student and what it scored.

    Attributes:
        scores: percent: ``top1_last``, ``top5_last``, ``top1_best`` (of the evaluated epochs), ``ece``; and
            ``best_epoch``.
        curve: ``[epoch (from 1), top-1, top-5]`` of every evaluation.
        seconds: training and evaluation, over all the runs that it took.
        peak_memory: bytes on the device (0 on the CPU).
        steps: optimiser steps.
        resolved: what the names meant: batch, epochs, learning rate and group, input size, micro-batch.
    """

    scores: dict[str, float]
    curve: list[list[float]]
    seconds: float
    peak_memory: int
    steps: int
    model: nn.Module = field(repr=False)
    resolved: dict[str, Any] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


def normalisation(protocol: Protocol, dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel; ImageNet's are averaged for one-channel images."""
    if protocol.normalize == "dataset":
        return dataset.mean, dataset.std
    if dataset.channels == 1:
        return (sum(IMAGENET_MEAN) / 3,), (sum(IMAGENET_STD) / 3,)
    return IMAGENET_MEAN, IMAGENET_STD


def checkpoint_interval(steps: int) -> int:
    """Steps between checkpoints: a tenth of the run, at least 100."""
    return max(100, -(-steps // 10))


def evaluated_epochs(protocol: Protocol, epochs: int) -> list[int]:
    """Epochs (from 0) after which the student is tested; the last one always."""
    after = protocol.evaluate_after * epochs if protocol.evaluate_after < 1 else protocol.evaluate_after
    every = protocol.evaluate_every
    chosen = {e for e in range(epochs) if every and e % every == every - 1 and e > after}
    return sorted(chosen | {epochs - 1})


def train_student(
    images: Tensor,
    labels: Tensor,
    *,
    dataset: Dataset,
    protocol: Protocol,
    student: str | None = None,
    teacher: Teacher | None = None,
    ipc: int,
    seed: int,
    device: str = "cpu",
    precision: Precision | None = None,
    workdir: Path | None = None,
    label: str = "student",
    on_interval: Callable[[int], None] | None = None,
) -> Result:
    """Train and test one student.

    Args:
        images, labels: the distilled set, uint8 ``[N, C, h, w]`` and int64 ``[N]``.
        teacher: needed where the protocol's labels are soft.
        workdir: keeps checkpoints; a run that finds one continues bit for bit.
        label: of the progress bar.
        on_interval: called with the number of steps when a checkpoint interval begins (to count work).

    Raises:
        JobError: the loss is not finite.
    """
    precision = precision or Precision()
    protocol = protocol.for_dataset(dataset.name)
    run = _Run(images, labels, dataset, protocol, student or protocol.student, teacher, ipc, seed, device, precision)
    with torch.random.fork_rng(devices=[]):
        return run.go(workdir, label, on_interval)


class _Run:
    """The state of one training run."""

    def __init__(self, images, labels, dataset, protocol, student, teacher, ipc, seed, device, precision) -> None:
        self.dataset, self.protocol, self.teacher = dataset, protocol, teacher
        self.device, self.precision, self.seed, self.student = device, precision, seed, student
        classes = len(dataset.classes)
        self.size = protocol.resolution or dataset.image_size
        has_crop = any(entry["op"] == "random_resized_crop" for entry in protocol.augment)
        self.images = (images if has_crop else center_view(images, self.size)).to(device)
        self.labels = labels.to(device)
        self.epochs, self.steps = protocol.length(ipc, classes, len(images))
        self.batch = protocol.batch_size(ipc, classes, len(images))
        self.group = lr_group(student)
        self.rate = protocol.rate(self.group)
        mean, std = normalisation(protocol, dataset)
        self.augment = Augmenter(protocol.augment, self.size, mean, std)
        self.model = build_student(student, classes, dataset.channels, self.size, seed).to(device)
        self.input_size = input_size(self.model, self.size)
        set_bn_updates(self.model, protocol.bn_updates)
        self.optimizer = make_optimizer(self.model, protocol, self.rate)
        self.average = [p.detach().clone() for p in self.model.parameters()] if protocol.ema else None
        self.random_layers = any("Drop" in type(m).__name__ or "Stochastic" in type(m).__name__
                                 for m in self.model.modules())  # fmt: skip
        if protocol.labels != "hard" and teacher is None:
            raise JobError(f"protocol {protocol.name} needs a teacher", where=f"student {student}")

    def go(self, workdir: Path | None, label: str, on_interval) -> Result:
        began, spent, step, curve = time.perf_counter(), 0.0, 0, []
        file = workdir / "student.pt" if workdir else None
        if file and (state := checkpoint.load(file)):
            step, curve, spent = state["step"], state["curve"], state["seconds"]
            self._restore(state)
        if torch.device(self.device).type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        each = -(-len(self.images) // self.batch)
        wanted = set(evaluated_epochs(self.protocol, self.epochs))
        interval = checkpoint_interval(self.steps)
        if on_interval and step < self.steps:
            on_interval(min(interval, self.steps - step))
        self.model.train()
        with Progress(self.steps, label, "step", initial=step) as bar:
            while step < self.steps:
                epoch, place = divmod(step, each)
                if place == 0 or step == 0 or not hasattr(self, "order"):
                    self.order = torch.randperm(len(self.images), generator=generator(self.seed, "order", epoch))
                self._step(epoch, step, self.order[place * self.batch : (place + 1) * self.batch])
                step += 1
                bar.update()
                over = step % each == 0 or step == self.steps
                if over and epoch in wanted:
                    curve.append([epoch + 1, *self._test()[0]])
                if file and step < self.steps and step % interval == 0:
                    checkpoint.save(self._state(step, curve, spent + time.perf_counter() - began), file)
                if on_interval and step < self.steps and step % interval == 0:
                    on_interval(min(interval, self.steps - step))
        return self._result(curve, spent + time.perf_counter() - began)

    def _step(self, epoch: int, step: int, index: Tensor) -> None:
        protocol = self.protocol
        random = generator(self.seed, "batch", step)
        if self.random_layers:
            torch.manual_seed(derive_seed(self.seed, "layers", step))
        there = index.to(self.device)
        labels = self.labels[there]
        x = self.augment(self.images[there], random)
        partner, share = None, 1.0
        if protocol.mix != "none" and (protocol.mix_probability >= 1 or
                                       float(torch.rand((), generator=random)) < protocol.mix_probability):  # fmt: skip
            x, partner, share = mix(x, protocol.mix, protocol.mix_alpha, random)
        factor = rate_factor(protocol, epoch, self.epochs, step, self.steps)
        if protocol.remake_optimizer and self.optimizer.param_groups[0]["lr"] > self.rate * factor * 1.001:
            self.optimizer = make_optimizer(self.model, protocol, self.rate * factor)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        with self.precision.context(self.device):
            soft = None
            if protocol.labels == "soft":
                with torch.no_grad():
                    soft = self.teacher.logits_of(x, self.augment.mean, self.augment.std)
            loss = loss_of(protocol, self.model(x), labels, soft, partner, share)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.average is not None:
            decay = min(protocol.ema, (1 + step) / (10 + step))  # a young average follows fast
            with torch.no_grad():
                torch._foreach_lerp_(self.average, list(self.model.parameters()), 1 - decay)
        if step % 100 == 99 and not bool(torch.isfinite(loss)):
            raise JobError(
                f"the loss is {float(loss)} at step {step + 1}",
                where=f"student {self.student}, seed {self.seed}, protocol {protocol.name}",
                hint="a smaller learning rate: --protocol-set lr=…; or --precision fp32",
            )

    def _test(self) -> tuple[tuple[float, float], Tensor, Tensor]:
        images, labels = test_set(self.dataset, self.size, self.protocol.test_resize, self.device)
        kept = None
        if self.average is not None:
            kept = [p.detach().clone() for p in self.model.parameters()]
            self._put(self.average)
        with self.precision.context(self.device):
            logits = predict(self.model, images, self.augment.normalise)
        if kept is not None:
            self._put(kept)
        return accuracy(logits, labels), logits, labels

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.model.parameters(), values):
            parameter.copy_(value)

    def _state(self, step: int, curve: list, seconds: float) -> dict[str, Any]:
        return {
            "step": step,
            "curve": curve,
            "seconds": seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average = [a.to(self.device) for a in state["average"]]

    def _result(self, curve: list[list[float]], seconds: float) -> Result:
        if self.average is not None:
            self._put(self.average)
            self.average = None
        (top1, top5), logits, labels = self._test()
        if not bool(torch.isfinite(logits).all()):
            raise JobError("the student's logits are not finite", where=f"student {self.student}, seed {self.seed}")
        best = max(curve, key=lambda row: row[1])
        scores = {
            "top1_last": top1,
            "top5_last": top5,
            "top1_best": best[1],
            "best_epoch": best[0],
            "ece": calibration_error(logits, labels),
        }
        cuda = torch.device(self.device).type == "cuda"
        resolved = {
            "epochs": self.epochs,
            "steps": self.steps,
            "batch": self.batch,
            "lr": self.rate,
            "lr_group": self.group,
            "resolution": self.size,
            "input_size": self.input_size,
        }
        memory = torch.cuda.max_memory_allocated(self.device) if cuda else 0
        return Result(scores, curve, seconds, memory, self.steps, self.model.eval(), resolved)
