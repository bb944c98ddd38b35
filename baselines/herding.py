"""Herding: the k-th image is the one that brings the mean of the first k closest to the class mean.

The form of iCaRL (arXiv 1611.07725, algorithm 4), which the coreset rows of DC, DSA and DM cite: features have unit
length, an image is taken once. Nothing is random: every seed gives the same images.
"""

from __future__ import annotations

import torch

from baselines.features import Selection
from benchmark.api import Task


def herd(features: torch.Tensor, count: int) -> list[int]:
    """Rows of ``features`` ``[n, d]`` in the order in which herding takes them."""
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    mean, total = unit.mean(0), torch.zeros(unit.shape[1], dtype=torch.float64)
    chosen: list[int] = []
    for k in range(1, count + 1):
        distance = (mean - (total + unit) / k).norm(dim=1)
        distance[chosen] = torch.inf
        chosen.append(int(distance.argmin()))
        total = total + unit[chosen[-1]]
    return chosen


class Herding(Selection):
    """Real images in herding order.

    Images are taken one by one so that the mean of what is taken stays closest to the class mean. Needs the
    teacher (``features=pixels``: nothing but the training images); costs a forward pass an image, once, and a
    moment. Defaults are iCaRL's algorithm 4, which the rows of DC, DSA and DM cite.
    """

    def choose(self, task: Task, features: torch.Tensor, class_index: int) -> list[int]:
        return herd(features, task.ipc)
