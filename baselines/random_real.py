"""Random real images: the floor that every method has to beat.

Source: the "random selection" row of every paper of the field. The draw is one permutation a (seed, class), so the
images of a smaller IPC are the first ones of a larger IPC, and no image comes twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.api import Method, Task, Unit, UsageError, generator

if TYPE_CHECKING:
    import torch

    from benchmark.api import Dataset


def too_few(dataset: Dataset, ipc: int) -> str:
    """Why ``ipc`` distinct real images a class cannot be had; empty if they can."""
    for name, rows in zip(dataset.classes, dataset.train.by_class, strict=True):
        if ipc > len(rows):
            return f"IPC {ipc} is larger than class {name!r}, which has {len(rows)} training images"
    return ""


def draw(task: Task, class_index: int) -> list[int]:
    """``task.ipc`` distinct positions in the training split, drawn by (seed, class) alone.

    Every method that starts from random real images draws here, so that they can be compared image by image.
    """
    import torch

    reason = too_few(task.dataset, task.ipc)
    if reason:
        raise UsageError(reason, where=f"--ipc {task.ipc}", allowed="at most the smallest class")
    rows = task.train.by_class[class_index]
    order = torch.randperm(len(rows), generator=generator(task.seed, "random", class_index))
    return [int(rows[i]) for i in order[: task.ipc]]


def drawn(task: Task, unit: Unit) -> list[int]:
    """The drawn positions of a unit's cells, in order."""
    rows = {c: draw(task, c) for c in sorted({c for c, _ in unit.cells})}
    return [rows[c][i] for c, i in unit.cells]


class Random(Method):
    """Real images, drawn without replacement.

    Each class's training images are permuted at random and the first are taken, so a smaller IPC is the beginning
    of a larger one. Needs nothing but the training images; costs nothing. Defaults: it has no settings, and is the
    floor that every paper of the field has.
    """

    def why_not(self, dataset: Dataset, ipc: int) -> str:
        return too_few(dataset, ipc)

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        return task.train.images(drawn(task, unit))
