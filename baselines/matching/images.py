"""The two kinds of images: real ones by class, and the synthetic ones with their momentum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from baselines.rded import stitch
from benchmark.api import Task, generator

HELD_BYTES = 8 << 30  # of 8-bit images that are kept on the device; of a larger split each batch is read anew

# Where the papers' constants differ from the data's (CIFAR-10's deviations are means over images of theirs). Steps on
# normalised pixels are larger or smaller with them.
CONSTANTS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "tinyimagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def constants(task: Task) -> tuple[Tensor, Tensor]:
    """Mean and deviation of pixel values in 0..1, ``[C, 1, 1]``, as the papers' code has them (DC ``utils.py``)."""
    mean, std = CONSTANTS.get(task.dataset.name.partition("@")[0], (task.dataset.mean, task.dataset.std))
    return torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)


class Real:
    """Real images on the task's device, pixel values in 0..1."""

    def __init__(self, task: Task, rows: Sequence[int]) -> None:
        self.device, self.split, self.rows = task.device, task.train, torch.as_tensor(rows)
        size = len(rows) * task.dataset.channels * task.dataset.image_size**2
        self.held = self.split.images(self.rows.tolist()).to(self.device) if size <= HELD_BYTES else None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: Tensor) -> Tensor:
        """float ``[n, C, H, W]``; positions among ``rows``, int64 on the CPU."""
        if self.held is None:
            chosen = self.split.images(self.rows[positions].tolist()).to(self.device, non_blocking=True)
        else:
            chosen = self.held[positions.to(self.device, non_blocking=True)]
        return chosen / 255


class Pixels:
    """The synthetic images of some classes, moved by SGD with momentum.

    Attributes:
        values: float ``[classes, ipc, C, H, W]`` on the device; velocity: the same shape.
    """

    def __init__(self, start: Tensor, lr: float, momentum: float) -> None:
        self.values, self.velocity, self.lr, self.momentum = start, torch.zeros_like(start), lr, momentum

    def step(self, slope: Tensor) -> None:
        """One step of ``torch.optim.SGD``."""
        self.velocity.mul_(self.momentum).add_(slope)
        self.values.sub_(self.velocity, alpha=self.lr)

    def coast(self, steps: Tensor) -> None:
        """``steps`` steps without a gradient, a number a class: int64 ``[classes]``, on the CPU.

        What is left of the momentum after k steps is ``momentum**k``, and they moved the images by the sum of it.
        """
        left = (self.momentum ** steps.double()).view(-1, 1, 1, 1, 1)
        moved = self.lr * self.momentum * (1 - left) / (1 - self.momentum)
        left, moved = (x.float().to(self.values.device, non_blocking=True) for x in (left, moved))
        self.values.sub_(self.velocity * moved)
        self.velocity.mul_(left)

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"pixels": self.values, "velocity": self.velocity}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of :meth:`tensors`."""
        self.values.copy_(tensors["pixels"])
        self.velocity.copy_(tensors["velocity"])


def noise(task: Task, classes: Sequence[int]) -> Tensor:
    """Standard normal numbers of (seed, method, class, index): ``[classes, ipc, C, H, W]``, on the CPU."""
    shape = task.dataset.channels, task.dataset.image_size, task.dataset.image_size
    rows = [[torch.randn(shape, generator=task.generator(c, i, "noise")) for i in range(task.ipc)] for c in classes]
    return torch.stack([torch.stack(row) for row in rows])


def real_start(task: Task, classes: Sequence[int], factor: int = 1) -> Tensor:
    """Random real images, those of the method ``random``; with a factor > 1 mosaics of factor x factor shrunken ones.

    Returns:
        ``[classes, ipc, C, H, W]`` in 0..1, on the CPU.
    """
    found = []
    for c in classes:
        rows = task.train.by_class[c]
        order = torch.randperm(len(rows), generator=generator(task.seed, "random", c))
        count = math.ceil(task.ipc * factor**2 / len(rows))  # a class may be smaller than what the mosaics take
        chosen = order.repeat(count)[: task.ipc * factor**2].tolist()
        images = task.train.images([int(rows[i]) for i in chosen]).float() / 255
        found.append(stitch(images, factor, images.shape[-1]))
    return torch.stack(found)


def stored(values: Tensor) -> Tensor:
    """Pixel values in 0..1, clipped and rounded: uint8 ``[n, C, H, W]`` on the CPU, class by class."""
    return values.flatten(0, 1).mul(255).round().clamp(0, 255).byte().cpu()
