"""DM: images whose mean features in random networks are those of the real images of their class.

Source: "Dataset Condensation with Distribution Matching" (arXiv 2110.04181), repository VICO-UoE/DatasetCondensation,
``main_DM.py``. Each step draws a new network and never trains it. For each class 256 real images and all synthetic
ones get the same augmentation (:mod:`baselines.matching.siamese`); the loss is the squared distance of the means of
their features before the classifier, summed over classes; one SGD step on the normalised pixels follows, which are
clipped only when they are stored.

Defaults: ``main_DM.py``'s (20,000 steps, rate 1, momentum 0.5, images begin as real ones); its readme takes rate 10
from IPC 100 on. On ``digits``, which the paper does not have: 1,000 steps, and no mirrored digits.

Deviations: 8-bit images (theirs: unclipped float tensors); the loop ends after 20,000 steps, where theirs evaluates
(it saves after one more); classes are optimised in groups of ``group``, which changes nothing but the order of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.matching.images import Pixels, noise, real_start, stored
from baselines.matching.method import Matching, Optimisation
from baselines.matching.networks import NETWORKS, Learner
from baselines.matching.siamese import augment, dsa_program
from benchmark.api import Task, Work, param

STRATEGY = "color_crop_cutout_flip_scale_rotate"
UNFLIPPED = "color_crop_cutout_scale_rotate"  # for digits (readme.md, MNIST and SVHN)
LARGE_IPC = 100


@dataclass(frozen=True)
class DMParams:
    """``main_DM.py``'s arguments."""

    iterations: int = param(20000, "steps, each with a new network", "main_DM.py --Iteration 20000", low=1)
    lr: float = param(
        0.0,
        "SGD's rate for the pixels; 0: published",
        "main_DM.py --lr_img 1; readme.md: 10 from IPC 100 on",
        low=0.0,
        tune=(0.1, 1.0, 10.0),
    )
    momentum: float = param(0.5, "SGD's momentum", "main_DM.py", low=0.0, high=0.999)
    batch: int = param(256, "real images a class and step", "main_DM.py --batch_real 256", low=1)
    start: str = param("real", "what the images begin as", "main_DM.py --init real", choices=("real", "noise"))
    strategy: str = param(STRATEGY, "augmentations, one a class and step; empty: none", "main_DM.py --dsa_strategy")
    network: str = param(
        "auto",
        "network whose features are matched; auto: by resolution",
        "main_DM.py --model ConvNet; ConvNet-4 for Tiny-ImageNet (arXiv 2110.04181, section 4.1)",
        choices=("auto", *NETWORKS),
    )
    group: int = param(10, "classes optimised together, a unit of work", "memory; results do not depend on it", low=1)


class Matched(Optimisation):
    """DM's optimisation."""

    def __init__(self, task: Task, classes: Sequence[int], settings: dict[str, Any]) -> None:
        super().__init__(task, classes, settings)
        first = noise(task, classes).to(task.device)
        if settings["start"] == "real":
            first = self.normalise(real_start(task, classes).to(task.device))
        self.pixels = Pixels(first, settings["lr"], settings["momentum"])
        self.learner = Learner(task, settings["network"])
        self.program = dsa_program(settings["strategy"])

    def loss(self, real: Sequence[Tensor], synthetic: Tensor, numbers: Tensor) -> Tensor:
        """The loss of normalised images, summed over classes.

        Args:
            real: ``[n, C, H, W]`` of each class; synthetic: ``[classes, ipc, C, H, W]``; numbers: of the augmentation.
        """
        with torch.no_grad():  # class by class: large batches gain nothing from being larger
            seen = [augment(x[None], self.program, numbers[k : k + 1])[0] for k, x in enumerate(real)]
            wanted = torch.stack([self.learner.embed(x).float().mean(0) for x in seen])
        shown = augment(synthetic, self.program, numbers).flatten(0, 1)
        found = self.learner.embed(shown).float().unflatten(0, synthetic.shape[:2]).mean(1)
        return (wanted - found).square().sum()

    def step(self, index: int) -> Tensor:
        self.learner.renew(index)
        generators, numbers = self.draws(index, len(self.program))
        real = [self.normalise(x) for x in self.sample(generators, self.settings["batch"])]
        values = self.pixels.values.detach().requires_grad_(True)
        with self.task.precision.context(self.task.device):
            loss = self.loss(real, values, numbers)
        self.pixels.step(torch.autograd.grad(loss, values)[0])
        return loss.detach() / len(self.classes)

    def tensors(self) -> dict[str, Tensor]:
        return self.pixels.tensors()

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.pixels.load(tensors)

    def images(self) -> Tensor:
        return stored(self.pixels.values * self.std + self.mean)


class DM(Matching):
    """Images whose mean features, in many random networks, are those of the real images of their class.

    Each step draws a network that is never trained, augments 256 real images and the synthetic ones of a class alike,
    and moves the pixels by the gradient of the squared distance of the two means. Needs nothing but the training
    images; costs 256 forward passes a class and step, 20,000 steps by default (minutes on a GPU, half a day on two CPU
    cores; fewer ``iterations`` keep most of it). Defaults are the authors' (``main_DM.py``).
    """

    Params = DMParams
    stage_name = "dm.matching"
    quick = {"iterations": 4, "batch": 5, "group": 2}

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        return {"digits": {"iterations": 1000, "strategy": UNFLIPPED}, "svhn": {"strategy": UNFLIPPED}}.get(
            dataset.partition("@")[0], {}
        )

    def groups(self, task: Task) -> list[range]:
        labels = range(len(task.dataset.classes))
        return [labels[i : i + self.params.group] for i in range(0, len(labels), self.params.group)]

    def settings(self, task: Task) -> dict[str, Any]:
        p = self.params
        return {
            "iterations": p.iterations,
            "lr": p.lr or (10.0 if task.ipc >= LARGE_IPC else 1.0),
            "momentum": p.momentum,
            "batch": p.batch,
            "start": p.start,
            "strategy": p.strategy,
            "network": self.network(task.dataset.image_size),
        }

    def work_at(self, images: int, classes: int, ipc: int, image_size: int) -> list[Work]:
        p, network = self.params, self.network(image_size)
        real = classes * min(p.batch, images // classes)
        return [
            Work("score", real, p.iterations, network=network),
            Work("recover", classes * ipc, p.iterations, network=network),
        ]

    def steps(self, task: Task) -> int:
        return self.params.iterations

    def optimisation(self, task: Task, classes: Sequence[int]) -> Matched:
        return Matched(task, classes, self.settings(task))
