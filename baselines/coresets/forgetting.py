"""Forgetting: images that a network, once it knows them, never forgets while it learns, or those that it often forgets.

Source: "An Empirical Study of Example Forgetting during Deep Neural Network Learning" (arXiv 1812.05159, section 3): an
image is forgotten when it was classified correctly the last time it was in a batch and is not now. An image that was
never classified correctly counts as forgotten more often than any other.

Defaults: 200 epochs (the paper's ResNet-18 on CIFAR-10, DeepCore); on Fashion-MNIST, CIFAR and SVHN 5, so that a CPU
takes half an hour; on ``digits`` 30.

Deviations: the images forgotten least are kept (``keep``), of equal ones random ones; training is DeepCore's
(:mod:`baselines.coresets.dynamics`) with the harness's ConvNets. DeepCore counts an image that was never learned as
never forgotten, the paper does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.coresets.dynamics import Dynamics, DynamicsParams, Watching
from baselines.coresets.el2n import SHORT
from benchmark.api import Task, param


@dataclass(frozen=True)
class ForgettingParams(DynamicsParams):
    """The paper's settings."""

    epochs: int = param(
        200, "epochs that are watched", "arXiv 1812.05159, section 4; DeepCore --selection_epochs", low=1
    )


class Counted(Watching):
    """One network; for each image how often it was forgotten, whether it was known last time, and whether ever."""

    def __init__(self, task: Task, settings: dict[str, Any]) -> None:
        super().__init__(task, settings)
        self.forgotten, self.known, self.ever = torch.zeros(3, len(self.real), device=task.device)
        self.learner.renew(0)

    def step(self, index: int) -> Tensor:
        there, labels, logits = self.learn(self.rows(index))
        self.note(there, (logits.argmax(1) == labels).float())
        return F.cross_entropy(logits, labels)

    def note(self, rows: Tensor, correct: Tensor) -> None:
        """What a batch showed: positions, and 1 where the image was classified correctly, else 0."""
        self.forgotten[rows] += self.known[rows] * (1 - correct)
        self.known[rows] = correct
        self.ever[rows] = torch.maximum(self.ever[rows], correct)

    def notes(self) -> dict[str, Tensor]:
        return {"forgotten": self.forgotten, "known": self.known, "ever": self.ever}

    def scores(self) -> Tensor:
        return torch.where(self.ever > 0, self.forgotten, float(self.settings["epochs"]))


class Forgetting(Dynamics):
    """Real images that a network, once it knows them, never forgets (or, with ``keep=hard``, often forgets).

    A network learns the training split, and each time that an image comes up it is noted whether it was known the last
    time and is not now; each class gives its images forgotten least, of equal ones random ones. Needs nothing but the
    training images; costs ``epochs`` epochs of training, once for every seed and IPC. Defaults are the paper's 200 (on
    Fashion-MNIST, CIFAR and SVHN 5, on digits 30), training is DeepCore's.
    """

    Params = ForgettingParams
    stage_name = "forgetting.scores"
    quick = {"epochs": 2, "batch": 20}

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        name = dataset.partition("@")[0]
        return {"epochs": 5} if name in SHORT else {"epochs": 30} if name == "digits" else {}

    def watching(self, task: Task) -> Counted:
        return Counted(task, self.settings(task))
