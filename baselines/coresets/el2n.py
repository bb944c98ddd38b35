"""EL2N: images whose predictions are off by little, or by much, early in training.

Source: "Deep Learning on a Data Diet" (arXiv 2107.07075, definition 2.2 and section 3): the score of an image is the
Euclidean length of softmax(logits) minus its one-hot label, after a few epochs of training, averaged over networks.

Defaults: the paper's 10 networks and 10 epochs (it shows epochs 1 to 20); on Fashion-MNIST, CIFAR and SVHN 2 networks
and 2 epochs, so that a CPU takes half an hour.

Deviations: the easiest images are kept (``keep``); training is DeepCore's (:mod:`baselines.coresets.dynamics`) with the
harness's ConvNets (paper: ResNet-18).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.coresets.dynamics import Dynamics, DynamicsParams, Watching
from benchmark.api import Task, param

CHUNK = 256  # images a forward pass
SHORT = ("fashionmnist", "cifar10", "cifar100", "svhn")


@dataclass(frozen=True)
class EL2NParams(DynamicsParams):
    """The paper's settings."""

    epochs: int = param(10, "epochs a network is trained before it is asked", "arXiv 2107.07075, section 3", low=1)
    networks: int = param(10, "networks whose scores are averaged", "arXiv 2107.07075, section 3", low=1)


class Asked(Watching):
    """Networks trained one after another, each asked about every image when it is done."""

    def __init__(self, task: Task, settings: dict[str, Any]) -> None:
        super().__init__(task, settings)
        self.total = torch.zeros(len(self.real), device=task.device)
        self.length = settings["epochs"] * self.each

    def step(self, index: int) -> Tensor:
        number, place = divmod(index, self.length)
        if place == 0:
            self.learner.renew(number)
        _, labels, logits = self.learn(self.rows(index))
        if place == self.length - 1:
            self._ask()
        return F.cross_entropy(logits, labels)

    @torch.no_grad()
    def _ask(self) -> None:
        parts = []
        for rows in torch.arange(len(self.real)).split(CHUNK):
            labels = self.labels[rows.to(self.task.device, non_blocking=True)]
            parts.append(distances(self.learner.net(self.images(rows)).float(), labels))
        self.total += torch.cat(parts)

    def notes(self) -> dict[str, Tensor]:
        return {"total": self.total}

    def scores(self) -> Tensor:
        return self.total / self.settings["networks"]


def distances(logits: Tensor, labels: Tensor) -> Tensor:
    """Length of softmax minus one-hot label, ``[n]``."""
    return (logits.softmax(1) - F.one_hot(labels, logits.shape[1])).norm(dim=1)


class EL2N(Dynamics):
    """Real images that networks early in training are surest of (or, with ``keep=hard``, least sure of).

    Several networks learn the training split for a few epochs; an image's score is the length of softmax minus one-hot
    label, averaged over them, and each class gives its images with the lowest scores. Needs nothing but the training
    images; costs ``networks`` times ``epochs`` epochs of training, once for every seed and IPC. Defaults are the
    paper's (10 and 10; on Fashion-MNIST, CIFAR and SVHN 2 and 2), training is DeepCore's.
    """

    Params = EL2NParams
    stage_name = "el2n.scores"
    quick = {"epochs": 2, "networks": 2, "batch": 20}

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        return {"networks": 2, "epochs": 2} if dataset.partition("@")[0] in SHORT else {}

    def networks(self) -> int:
        return self.params.networks

    def settings(self, task: Task) -> dict[str, Any]:
        return super().settings(task) | {"networks": self.params.networks}

    def watching(self, task: Task) -> Asked:
        return Asked(task, self.settings(task))
