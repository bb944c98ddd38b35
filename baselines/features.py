"""Feature vectors of the real images of one class: the space in which coreset methods select."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from baselines.random_real import too_few
from benchmark.api import Method, Needs, Stage, Task, Unit, param

CHUNK = 256  # images a forward pass; part of the key


@dataclass(frozen=True)
class SpaceParams:
    """Parameters of the methods that select real images."""

    features: str = param(
        "teacher",
        "space to select in: the teacher's penultimate features, or pixel values in 0..1",
        "issue 4; DC (arXiv 2006.05929) and iCaRL select in a network's features",
        choices=("teacher", "pixels"),
        tune=("teacher", "pixels"),
    )


def features_stage(task: Task, space: str, class_index: int) -> Stage:
    """The stage of :func:`class_features`."""
    return task.stage(
        "baselines.features", 1, chunk=CHUNK, class_index=class_index, space=space, size=task.dataset.image_size
    )


def class_features(task: Task, space: str, class_index: int) -> torch.Tensor:
    """Features of the class's training images in the order of ``task.train.by_class``.

    Returns:
        float32 ``[n, d]``. Cached in the store: one artifact serves every seed, IPC and method.
    """
    stage = features_stage(task, space, class_index)

    def make(folder: Path) -> None:
        rows = task.train.by_class[class_index]
        parts = []
        for start in range(0, len(rows), CHUNK):
            images = task.train.images(rows[start : start + CHUNK])
            parts.append(
                images.flatten(1).float() / 255 if space == "pixels" else task.teacher.features(images).float().cpu()
            )
        save_file({"features": torch.cat(parts).contiguous()}, folder / "features.safetensors")

    return load_file(task.artifact(stage, make) / "features.safetensors")["features"]


class Selection(Method):
    """A method that selects real images class by class: subclasses define :meth:`choose`."""

    Params = SpaceParams

    def needs(self) -> Needs:
        return Needs(teacher=self.params.features == "teacher")

    def why_not(self, dataset, ipc: int) -> str:
        return too_few(dataset, ipc)

    def stages(self, task: Task) -> list[Stage]:
        return [features_stage(task, self.params.features, c) for c in range(len(task.dataset.classes))]

    def choose(self, task: Task, features: torch.Tensor, class_index: int) -> list[int]:
        """Rows of ``features`` ``[n, d]`` to keep: ``task.ipc`` distinct ones, in order."""
        raise NotImplementedError

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        chosen = {}
        for c in sorted({c for c, _ in unit.cells}):
            rows = task.train.by_class[c]
            chosen[c] = [int(rows[i]) for i in self.choose(task, class_features(task, self.params.features, c), c)]
        return task.train.images([chosen[c][i] for c, i in unit.cells])
