"""Train a student on a distilled set, and nothing else: no loader processes, no validation that is not asked for.

The set lies on the device as it was read. Everything random is drawn from generators of (seed, purpose, epoch or
step), so a run that was killed continues from its checkpoint with the very numbers that it would have used.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmark.core import distributed
from benchmark.core.bits import pack
from benchmark.core.compute import Precision, derive_seed, fast_layout, generator
from benchmark.core.errors import JobError
from benchmark.core.progress import Progress
from benchmark.evaluation.optimisers import loss_of, make_optimizer, rate_factor, set_bn_updates
from benchmark.evaluation.protocols import Protocol
from benchmark.evaluation.relabel import StoredLabels, labels_in, relabel_stage, stored_labels
from benchmark.students import build_student, input_size, lr_group
from benchmark.training import checkpoint
from benchmark.training.augment import IMAGENET_MEAN, IMAGENET_STD, Augmenter, center_view, mix
from benchmark.training.memory import has_batch_norm, is_out_of_memory, recompute, resident
from benchmark.training.testing import accuracy, calibration_error, hits, predict, test_set

if TYPE_CHECKING:
    from benchmark.core.store import Store
    from benchmark.data import Dataset
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
        label_bytes: size of stored soft labels (0 for hard and online ones).
        resolved: what the names meant: batch, epochs, learning rate and its group, input size, parts of a batch.
        flags: what happened that a reader should know (smaller micro-batches after out-of-memory).
        predict: uint8 images to logits; augment: normalisation and size of the run; both for extra metrics.
    """

    scores: dict[str, float]
    curve: list[list[float]]
    seconds: float
    peak_memory: int
    steps: int
    model: nn.Module = field(repr=False)
    label_bytes: int = 0
    resolved: dict[str, Any] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    predict: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    augment: Augmenter | None = field(default=None, repr=False)


def normalisation(protocol: Protocol, dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel; ImageNet's are averaged for one-channel images."""
    if isinstance(protocol.normalize, dict):
        return tuple(protocol.normalize["mean"]), tuple(protocol.normalize["std"])
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
    which = every - 1 if protocol.evaluate_remainder is None else protocol.evaluate_remainder
    chosen = {e for e in range(epochs) if every and e % every == which and e >= after and (e > after or not after)}
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
    store: Store | None = None,
    set_key: str = "",
) -> Result:
    """Train and test one student.

    Args:
        images, labels: the distilled set, ``[N, C, h, w]`` in grey levels (uint8, or float32 as released) and int64
            ``[N]``.
        teacher: needed where the protocol's labels are soft or stored.
        workdir: keeps checkpoints; a run that finds one continues bit for bit.
        label: of the progress bar.
        on_interval: called with the number of steps when a checkpoint interval begins (to count work).
        store, set_key: where labels that the protocol stores are kept for every student of the set; without them they
            are made for this run.

    Raises:
        JobError: the loss is not finite; memory is too small even for a single image.
    """
    precision = precision or Precision()
    student = student or protocol.student_of(dataset.image_size)
    protocol = protocol.for_dataset(dataset, student)
    parts, flags = 1, []
    while True:
        given = {"teacher": teacher, "ipc": ipc, "seed": seed, "device": device, "precision": precision}
        run = _Run(images, labels, dataset, protocol, student, **given, parts=parts)
        run.label_home = (store, set_key)
        try:
            with torch.random.fork_rng(devices=[]):
                result = run.go(workdir, label, on_interval)
        except RuntimeError as error:
            if not is_out_of_memory(error) or distributed.size() > 1:
                raise
            if parts >= run.batch or (run.norms and parts > 1):
                raise JobError(
                    f"out of memory even with the smallest micro-batch ({run.micro_batch} images)",
                    where=f"student {student} on {device}",
                    hint="a smaller --student or resolution, or a device with more memory",
                ) from error
        else:
            result.flags += flags
            return result
        # the step that failed is repeated from the last checkpoint (or the start), so results are equal
        parts *= 2
        how = "activations computed twice" if run.norms else f"micro-batches of {-(-run.batch // parts)}"
        flags = [f"out of memory: {how}"]
        del run
        gc.collect()  # what refers to itself, as a compiled model does, still holds its weights
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()


class _Run:
    """The state of one training run."""

    def __init__(
        self, images, labels, dataset, protocol, student, *, teacher, ipc, seed, device, precision, parts
    ) -> None:
        if protocol.labels != "hard" and teacher is None:
            raise JobError(f"protocol {protocol.name} needs a teacher", where=f"student {student}")
        self.dataset, self.protocol, self.teacher, self.ipc = dataset, protocol, teacher, ipc
        self.device, self.precision, self.seed, self.student = device, precision, seed, student
        classes = len(dataset.classes)
        self.size = protocol.resolution or dataset.image_size
        has_crop = any(entry["op"] == "random_resized_crop" for entry in protocol.augment)
        self.images = resident(images if has_crop else center_view(images, self.size), device)
        self.labels = labels.to(device)
        self.epochs, self.steps = protocol.length(ipc, classes, len(images))
        self.batch = protocol.batch_size(ipc, classes, len(images))
        self.full_batch = protocol.batch_size(ipc, classes)
        self.each = -(-len(self.images) // self.batch)
        self.group = lr_group(student)
        self.rate = protocol.rate(self.group)
        mean, std = normalisation(protocol, dataset)
        self.augment = Augmenter(protocol.augment, self.size, mean, std)
        self.model = fast_layout(build_student(student, classes, dataset.channels, self.size, seed).to(device))
        distributed.synchronise_norms(self.model)
        self.input_size = input_size(self.model, self.size)
        set_bn_updates(self.model, protocol.bn_updates)
        self.norms, self.parts = has_batch_norm(self.model), parts
        if parts > 1 and self.norms:
            recompute(self.model)
        self.forward = torch.compile(self.model) if precision.compile else self.model
        self.optimizer = make_optimizer(self.model, protocol, self.rate)
        self.scaler = torch.amp.GradScaler(torch.device(device).type, enabled=precision.autocast == "float16")
        self.average = [p.detach().clone() for p in self.model.parameters()] if protocol.ema else None
        self.random_layers = any("Drop" in type(m).__name__ or "Stochastic" in type(m).__name__
                                 for m in self.model.modules())  # fmt: skip
        self.batch_seed = protocol.label_seed if protocol.labels == "stored" else seed
        self.stored: StoredLabels | None = None
        self.order_of = -1

    @property
    def micro_batch(self) -> int:
        """Images that are on their way through the network at once."""
        return -(-self.batch // (1 if self.norms else self.parts))

    def go(self, workdir: Path | None, label: str, on_interval) -> Result:
        """Train from the checkpoint in ``workdir``, or from the start, to the end."""
        began, spent, step, curve = time.perf_counter(), 0.0, 0, []
        file = workdir / "student.pt" if workdir else None
        if file and (state := checkpoint.load(file)):
            step, curve, spent = state["step"], state["curve"], state["seconds"]
            self._restore(state)
        distributed.check_same(step, "checkpoint")
        if torch.device(self.device).type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        wanted = set(evaluated_epochs(self.protocol, self.epochs))
        interval = checkpoint_interval(self.steps)
        with contextlib.ExitStack() as stack:
            if self.protocol.labels == "stored":
                self.stored = self._labels(workdir, stack)
            if on_interval and step < self.steps:
                on_interval(min(interval, self.steps - step))
            self.model.train()
            bar = stack.enter_context(Progress(self.steps, label, "step", initial=step))
            while step < self.steps:
                epoch, place = divmod(step, self.each)
                self._step(epoch, place, step)
                step += 1
                bar.update()
                if (step % self.each == 0 or step == self.steps) and epoch in wanted:
                    tested = self._test()
                    curve.append([epoch + 1, *tested[0]])
                if step < self.steps and step % interval == 0:
                    if file and distributed.writes():
                        checkpoint.save(self._state(step, curve, spent + time.perf_counter() - began), file)
                    if on_interval:
                        on_interval(min(interval, self.steps - step))
            return self._result(curve, tested, spent, began)  # the last epoch is always tested

    # -- one batch --------------------------------------------------------------------------------------------------

    def draw(self, epoch: int, place: int) -> tuple[Tensor, Tensor, Tensor | None, float]:
        """The batch at ``place`` of an epoch: normalised images, labels, mixing partner, share."""
        if self.order_of != epoch:
            self.order = torch.randperm(len(self.images), generator=generator(self.batch_seed, "order", epoch))
            self.order_of = epoch
        index = self.order[place * self.batch : (place + 1) * self.batch]
        if len(index) == 1 < len(self.order):  # BatchNorm cannot normalise one image of 1 px; the epoch's first joins
            index = torch.cat([index, self.order[:1]])
        random = generator(self.batch_seed, "batch", epoch * self.each + place)
        there = index.to(self.device, non_blocking=True)  # a blocking copy would wait for the step before
        images = self.images[there if self.images.device == there.device else index].to(self.device, non_blocking=True)
        x = self.augment(images, random)
        partner, share, protocol = None, 1.0, self.protocol
        if protocol.mix != "none" and (
            protocol.mix_probability >= 1 or float(torch.rand((), generator=random)) < protocol.mix_probability
        ):
            x, partner, share = mix(x, protocol.mix, protocol.mix_alpha, random)
        return x, self.labels[there], partner, share

    @torch.no_grad()
    def label_epoch(self, epoch: int) -> Tensor:
        """The teacher's logits for a whole epoch, float16 ``[N, classes]`` in the order of its batches."""
        rows = []
        for place in range(self.each):
            x = self.draw(epoch, place)[0]  # outside the context, as students draw it: autocast would round the crops
            with self.precision.context(self.device):
                rows.append(self.teacher.logits_of(x, self.augment.mean, self.augment.std))
        return torch.cat(rows).half()

    def _labels(self, workdir: Path | None, stack: contextlib.ExitStack) -> StoredLabels:
        store, set_key = self.label_home
        if store is not None and set_key:
            stage = relabel_stage(self.dataset, self.protocol, self.ipc, set_key, self.teacher.key, self.precision)
            return stored_labels(store, stage, self.epochs, self)
        folder = workdir / "labels" if workdir else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return labels_in(folder, self.epochs, self)

    def _step(self, epoch: int, place: int, step: int) -> None:
        protocol = self.protocol
        if self.random_layers:
            torch.manual_seed(
                derive_seed(self.seed, "layers", step) + (distributed.rank() if distributed.size() > 1 else 0)
            )
        x, labels, partner, share = self.draw(epoch, place)
        other = None if partner is None else labels[partner.to(labels.device, non_blocking=True)]
        factor = rate_factor(protocol, epoch, self.epochs, step, self.steps)
        if protocol.remake_optimizer and self.optimizer.param_groups[0]["lr"] > self.rate * factor * 1.001:
            self.optimizer = make_optimizer(self.model, protocol, self.rate * factor)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        soft = None
        if self.stored is not None:
            soft = self.stored.epoch(epoch)[place * self.batch : place * self.batch + len(x)]
            soft = soft.to(self.device, non_blocking=True)
        elif protocol.labels == "soft":
            with torch.no_grad(), self.precision.context(self.device):
                soft = distributed.by_rows(
                    lambda rows: self.teacher.logits_of(rows, self.augment.mean, self.augment.std), x
                )
        self.optimizer.zero_grad(set_to_none=True)
        for piece, weight in pieces(len(x), self.full_batch, protocol.accumulate, 1 if self.norms else self.parts):
            mine, part = distributed.cut(piece)  # all of it, unless several ranks train this student
            weight *= part
            with self.precision.context(self.device):
                logits = self.forward(x[mine])
                if part:
                    loss = loss_of(
                        protocol,
                        logits,
                        labels[mine],
                        None if soft is None else soft[mine],
                        None if other is None else other[mine],
                        share,
                    )
                else:
                    loss = logits.sum()  # no rows for this rank: takes part in the BatchNorm sums, adds nothing
            self.scaler.scale(loss if weight == 1.0 else loss * weight).backward()
        distributed.sum_gradients(self.model.parameters())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            decay = min(protocol.ema, (1 + step) / (10 + step))  # a young average follows fast
            with torch.no_grad():
                torch._foreach_lerp_(self.average, list(self.model.parameters()), 1 - decay)
        if step % 100 == 99 and not bool(torch.isfinite(loss)):
            raise JobError(
                f"the loss is {float(loss.detach())} at step {step + 1}",
                where=f"student {self.student}, seed {self.seed}, protocol {protocol.name}",
                hint="a smaller learning rate (protocol field lr), or --precision fp32",
            )

    # -- testing and state ------------------------------------------------------------------------------------------

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
            "scaler": self.scaler.state_dict(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average = [a.to(self.device) for a in state["average"]]

    def _result(self, curve: list[list[float]], tested: tuple, spent: float, began: float) -> Result:
        if self.average is not None:
            self._put(self.average)
            self.average = None
        (top1, top5), logits, labels = tested
        if not bool(torch.isfinite(logits).all()):
            raise JobError("the student's logits are not finite", where=f"student {self.student}, seed {self.seed}")
        best = max(curve, key=lambda row: row[1])
        scores = {
            "top1_last": top1,
            "top5_last": top5,
            "top1_best": best[1],
            "best_epoch": best[0],
            "ece": calibration_error(logits, labels),
            "right": pack(hits(logits, labels)),
        }
        resolved = {
            "epochs": self.epochs,
            "steps": self.steps,
            "batch": self.batch,
            "micro_batch": self.micro_batch,
            "lr": self.rate,
            "lr_group": self.group,
            "resolution": self.size,
            "input_size": self.input_size,
            "test_resize": self.protocol.test_resize,
        }
        cuda = torch.device(self.device).type == "cuda"
        self.model.eval()
        return Result(
            scores,
            curve,
            spent + time.perf_counter() - began,
            torch.cuda.max_memory_allocated(self.device) if cuda else 0,
            self.steps,
            self.model,
            self.stored.bytes if self.stored else 0,
            resolved,
            predict=lambda images: predict(self.model, images.to(self.device), self.augment.normalise),
            augment=self.augment,
        )


def pieces(n: int, batch: int, accumulate: int, parts: int) -> Iterator[tuple[slice, float]]:
    """How ``n`` images, at most a ``batch``, are cut, and the weight of each part's mean loss.

    A protocol's ``accumulate`` follows SRe2L: parts of ``batch / accumulate`` images weigh ``1 / accumulate`` each,
    however many images the last one has. ``parts`` (after out-of-memory) cuts these further with weights by size, so
    that the sum is the uncut mean.
    """
    size = max(batch // accumulate, 1)
    for start in range(0, n, size):
        length = min(size, n - start)
        step = -(-length // parts)
        for inner in range(start, start + length, step):
            count = min(step, start + length - inner)
            yield slice(inner, inner + count), count / length / accumulate
