"""k-center: each image taken is the one that is farthest from all images taken before.

Source: "Active Learning for Convolutional Neural Networks: A Core-Set Approach" (arXiv 1708.00489, algorithm 1), the
``k-center`` rows of DC's tables; repository PatrickZH/DeepCore, ``deepcore/methods/kcentergreedy.py``. Distances are
Euclidean in the chosen features, within a class.

Defaults: DeepCore's: the first image of a class is drawn at random. With ``start=mean`` it is the one nearest the class
mean.

Deviations: features are those of the harness's teacher (DeepCore: a ResNet-18 of torchvision on enlarged images);
images come in the order in which they are taken (DeepCore: in the order of the data).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from baselines.features import Selection, SpaceParams
from benchmark.api import Task, param


@dataclass(frozen=True)
class KCenterParams(SpaceParams):
    """Features and the first image."""

    start: str = param(
        "random",
        "a class's first image: drawn at random, or the one nearest the class mean",
        "kcentergreedy.py: np.random.randint",
        choices=("random", "mean"),
        tune=("random", "mean"),
    )


def farthest_first(features: torch.Tensor, count: int, first: int) -> list[int]:
    """``count`` distinct rows of ``features`` ``[n, d]``, each the farthest from those before it; ``first`` begins."""
    points = features.double()
    chosen, nearest = [first], (points - points[first]).norm(dim=1)
    while len(chosen) < count:
        nearest[chosen] = -1.0  # copies of an image that was taken are as far as it: 0
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).norm(dim=1))
    return chosen


class KCenter(Selection):
    """Real images that cover their class: each is the one farthest from those taken before.

    Distances are Euclidean, in the teacher's features or in pixels. Needs the teacher (``features=pixels``: nothing but
    the training images); costs a forward pass an image, once, and a moment. Defaults are DeepCore's.
    """

    Params = KCenterParams

    def choose(self, task: Task, features: torch.Tensor, class_index: int) -> list[int]:
        if self.params.start == "mean":
            first = int((features - features.mean(0)).norm(dim=1).argmin())
        else:
            first = int(torch.randint(len(features), (), generator=task.generator(class_index, 0)))
        return farthest_first(features, task.ipc, first)
