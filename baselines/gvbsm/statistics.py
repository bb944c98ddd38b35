"""What a classifier's layers see of the real images, and how far a batch is from it.

Sources: G-VBSM (arXiv 2311.17950, section 3), shaoshitong/G_VBSM_Dataset_Condensation @1ed80b0, and EDC (arXiv
2404.13733), shaoshitong/EDC @80116a7; in both ``Branch_*/recover/utils.py``, ``BNFeatureHook`` and
``ConvFeatureHook``.

Every BatchNorm2d and Conv2d layer counts, in the order of the modules. What is compared is its input: per channel the
mean and the variance over images and positions, and for convolutions also the mean and the variance of each block of
4 x 4 positions over images, channels and positions (the input is first resized, bilinear, to a multiple of 4).

Of the real images a BatchNorm layer's own running statistics are used; the convolutions' are measured: the mean over
batches of 64 (randomly cropped and mirrored) of each batch's statistics. EDC adds the statistics of each class: the
mean over its images of each single image's, so variances are those inside an image. As in the authors' code the
classes' two block statistics are stored under each other's name (``swapped``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from baselines.crops import random_resized_crops, seeded
from benchmark.api import Stage, Task, Teacher, derive_seed, generator

BATCH = 64  # real images a pass: the published loaders' size, and part of the key
BLOCK = 4  # positions along a block's side
NAMES = ("mean", "var", "block_mean", "block_var")
LARGE = 128  # px from which real images are cropped instead of shifted
Stats = dict[str, torch.Tensor]
Goal = tuple[float, Stats]  # weight, statistics


def layers_of(model: nn.Module) -> list[nn.Module]:
    """BatchNorm2d and Conv2d layers in the order of the modules."""
    return [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.Conv2d))]


def precise(x: torch.Tensor) -> torch.Tensor:
    """``x``, in float32 where autocast made it bfloat16: that would round the statistics to 3 digits."""
    return x.float() if x.dtype == torch.bfloat16 else x


def blocks(x: torch.Tensor) -> torch.Tensor:
    """``[n, C, H, W]`` to ``[n, blocks, C, 4 * 4]``, resized to a multiple of 4 first."""
    n, channels, height, width = x.shape
    rows, columns = (-(-side // BLOCK) for side in (height, width))
    x = F.interpolate(x, (rows * BLOCK, columns * BLOCK), mode="bilinear", align_corners=False)
    x = x.view(n, channels, rows, BLOCK, columns, BLOCK).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(n, rows * columns, channels, BLOCK * BLOCK)


def batch_stats(x: torch.Tensor, conv: bool) -> Stats:
    """Statistics of a layer's input over the whole batch (biased variances)."""
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    found = {"mean": mean, "var": var}
    if conv:
        found["block_var"], found["block_mean"] = torch.var_mean(blocks(x), (0, 2, 3), correction=0)
    return found


def image_stats(x: torch.Tensor, conv: bool) -> Stats:
    """The same of each image alone: the first dimension is the image."""
    var, mean = torch.var_mean(x, (2, 3), correction=0)
    found = {"mean": mean, "var": var}
    if conv:
        found["block_var"], found["block_mean"] = torch.var_mean(blocks(x), (2, 3), correction=0)
    return found


# -- of the real images -----------------------------------------------------------------------------------------------


def measure(model: nn.Module, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], images: int, classes: int) -> Stats:
    """The layers' statistics of the real images.

    Args:
        batches: normalised images and their labels; ``images`` in all.

    Returns:
        ``LAYER.NAME`` and ``LAYER.class.NAME`` (``[classes, …]``), LAYER the position in :func:`layers_of`; the means
        over the whole set only of convolutions.
    """
    total: Stats = {}
    counts = torch.zeros(classes)
    labels: torch.Tensor | None = None

    def add(name: str, value: torch.Tensor) -> None:
        total[name] = total[name] + value if name in total else value

    def watch(index: int, conv: bool):
        @torch.no_grad()
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            x = precise(inputs[0])
            for name, value in batch_stats(x, conv).items() if conv else ():
                add(f"{index}.{name}", value * (len(x) / images))
            for name, value in image_stats(x, conv).items():
                rows = value.new_zeros(classes, *value.shape[1:])
                add(f"{index}.class.{name}", rows.index_add_(0, labels, value))

        return hook

    watched = enumerate(layers_of(model))
    hooks = [m.register_forward_hook(watch(i, isinstance(m, nn.Conv2d))) for i, m in watched]
    try:
        for x, labels in batches:
            counts += torch.bincount(labels, minlength=classes).cpu()
            with torch.no_grad():
                model(x)
    finally:
        for hook in hooks:
            hook.remove()
    for name in total:
        if ".class." in name:
            total[name] = total[name] / counts.clamp(min=1).to(total[name].device).view(
                -1, *[1] * (total[name].ndim - 1)
            )
    return {name: value.cpu().contiguous() for name, value in total.items()}


def moved(images: torch.Tensor, flip: bool, draw: torch.Generator) -> torch.Tensor:
    """Each image shifted by up to an eighth of its side (black comes in) and mirrored or not: ``[n, C, H, H]``."""
    n, channels, side, _ = images.shape
    reach = side // 8
    offsets = torch.randint(0, 2 * reach + 1, (n, 2), generator=draw)
    rows, columns = (offsets[:, k, None] + torch.arange(side) for k in (0, 1))
    where = torch.arange(n).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1)
    x = F.pad(images, (reach,) * 4)[(*where, rows[:, None, :, None], columns[:, None, None, :])]
    mirrored = torch.rand(n, generator=draw) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x) if flip else x


def cropped(images: torch.Tensor, flip: bool, seed: int) -> torch.Tensor:
    """A crop of each image, 8 % to 100 % of its area, at its size, mirrored or not: ``[n, C, H, H]``."""
    made = []
    with seeded(seed):
        for image in images:
            (x,) = random_resized_crops(image, image.shape[-1], 1, (0.08, 1.0), (3 / 4, 4 / 3))
            made.append(x.flip(2) if flip and torch.rand(1) < 0.5 else x)
    return torch.stack(made)


def real_batches(task: Task, teacher: Teacher, flip: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The training images in random order with their labels, normalised, as the published loaders move them.

    Below 128 px that is ``RandomCrop(32, padding=4)``, from there on ``RandomResizedCrop(224)``; then a flip.
    """
    order = torch.randperm(len(task.train), generator=generator("gvbsm", "order")).tolist()
    for number, first in enumerate(range(0, len(order), BATCH)):
        rows = order[first : first + BATCH]
        images = task.train.images(rows).float() / 255
        if images.shape[-1] < LARGE:
            images = moved(images, flip, generator("gvbsm", "batch", number))
        else:
            images = cropped(images, flip, derive_seed("gvbsm", "batch", number))
        labels = torch.as_tensor(task.train.labels[rows]).long().to(task.device)
        yield (images.to(task.device) - teacher.mean) / teacher.std, labels


def statistics_stage(task: Task, name: str, flip: bool) -> Stage:
    """The stage of :func:`statistics`: one a classifier."""
    return task.stage("gvbsm.statistics", 1, chunk=BATCH, classifier=name, flip=flip)


def statistics(task: Task, teacher: Teacher, model: nn.Module, name: str, flip: bool) -> Stats:
    """:func:`measure` of the training images, from the store, on the task's device."""

    def make(folder: Path) -> None:
        found = measure(model, real_batches(task, teacher, flip), len(task.train), len(task.dataset.classes))
        save_file(found, folder / "statistics.safetensors")

    found = load_file(task.artifact(statistics_stage(task, name, flip), make) / "statistics.safetensors")
    return {name: value.to(task.device) for name, value in found.items()}


def goals(model: nn.Module, real: Stats, labels: Sequence[int], by_class: bool, swapped: bool) -> list[list[Goal]]:
    """What each layer's statistics should be, as weighted alternatives.

    Args:
        labels: of the batch. by_class: half the weight on the classes of the batch (EDC), else none (G-VBSM).
        swapped: the classes' block means and variances stand for each other (EDC's code).
    """
    found = []
    for index, layer in enumerate(layers_of(model)):
        conv = isinstance(layer, nn.Conv2d)
        names = NAMES if conv else NAMES[:2]
        whole = {n: real[f"{index}.{n}"] for n in names} if conv else {}
        if not conv:
            whole = {"mean": layer.running_mean, "var": layer.running_var}
        if not by_class:
            found.append([(1.0, whole)])
            continue
        rows = torch.tensor(labels).to(next(iter(real.values())).device)
        other = {"block_mean": "block_var", "block_var": "block_mean"} if swapped else {}
        own = {n: real[f"{index}.class.{other.get(n, n)}"][rows].mean(0) for n in names}
        found.append([(0.5, whole), (0.5, own)])
    return found


# -- of the images that are made --------------------------------------------------------------------------------------


class Distances:
    """While watched, each forward pass of the model fills `values`: a distance a layer, in module order.

    A layer's statistics are smoothed over passes, ``momentum`` × before + (1 - momentum) × now, the gradient that of
    the present ones; the distance is the sum of the 2-norms of their differences from the layer's goals. A
    convolution counts 0 in a pass with probability ``drop``, drawn from torch's global generator, and its smoothed
    statistics then stay.

    Args:
        warm: smoothing begins with the first statistics instead of with zeros (the authors' code begins with zeros).
    """

    def __init__(
        self, model: nn.Module, targets: list[list[Goal]], momentum: float, drop: float, warm: bool = False
    ) -> None:
        self.model, self.targets, self.momentum, self.drop, self.warm = model, targets, momentum, drop, warm
        self.values: list[torch.Tensor] = [torch.empty(0)] * len(targets)
        self.smooth: list[Stats] = [{} for _ in targets]
        self.watching = True

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The hooks are there inside."""
        layers = enumerate(layers_of(self.model))
        hooks = [m.register_forward_hook(self._hook(i, isinstance(m, nn.Conv2d))) for i, m in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def blind(self) -> Iterator[None]:
        """Passes inside change nothing."""
        self.watching = False
        try:
            yield
        finally:
            self.watching = True

    def _hook(self, index: int, conv: bool):
        def measure(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if not self.watching:
                return
            x = inputs[0]
            if conv and self.drop and float(torch.rand(1)) > 1 - self.drop:
                self.values[index] = torch.zeros((), device=x.device)
                return
            now = batch_stats(precise(x), conv)
            before = self.smooth[index]
            seen = {}
            for name, value in now.items():
                fixed = value.detach()
                old = before.get(name, fixed if self.warm else torch.zeros_like(fixed))
                before[name] = self.momentum * old + (1 - self.momentum) * fixed
                seen[name] = before[name] + value - fixed
            self.values[index] = sum(
                weight * sum((goal[name] - seen[name]).norm() for name in seen) for weight, goal in self.targets[index]
            )

        return measure
