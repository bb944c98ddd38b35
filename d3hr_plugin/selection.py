"""Selection of a group by a classifier's features: of many decoded candidates those that cover the real images best."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from scipy.optimize import linear_sum_assignment

from benchmark.api import Stage, Task
from d3hr_plugin.models import k_means

CHUNK = 256  # images a forward pass; part of the key


def features_stage(task: Task, class_index: int) -> Stage:
    """The stage of a class's features."""
    return task.stage("d3hr.features", 1, chunk=CHUNK, class_index=class_index, size=task.dataset.image_size)


def class_features(task: Task, class_index: int) -> torch.Tensor:
    """The teacher's penultimate features of the class's training images in order, float32 ``[n, f]``, on the device."""

    def make(folder: Path) -> None:
        rows = task.train.by_class[class_index]
        parts = [
            task.teacher.features(task.train.images(rows[first : first + CHUNK])).float().cpu()
            for first in range(0, len(rows), CHUNK)
        ]
        save_file({"features": torch.cat(parts).contiguous()}, folder / "features.safetensors")

    path = task.artifact(features_stage(task, class_index), make)
    return load_file(path / "features.safetensors")["features"].to(task.device)


def representative(candidates: torch.Tensor, real: torch.Tensor, count: int, seed: tuple) -> list[int]:
    """Positions of the ``count`` candidates that stand nearest to the modes of the real images, one for each mode.

    Args:
        candidates: features ``[P, f]``, P at least ``count``.
        real: features ``[n, f]`` of the class's training images; their modes are k-means' with ``count`` centres.

    The assignment with the least sum of squared distances (Hungarian method), in the modes' order, the largest first.
    """
    centres = k_means(real, min(count, len(real)), (*seed, "features")).centres
    cost = torch.cdist(centres.cpu().double(), candidates.cpu().double()).square()
    return linear_sum_assignment(cost.numpy())[1].tolist()
