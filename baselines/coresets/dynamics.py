"""Networks that learn the training split while somebody watches each image: scores by which coresets select.

Settings of the training: repository PatrickZH/DeepCore, ``main.py`` and ``deepcore/methods/earlytrain.py``: SGD with
rate 0.1 throughout, Nesterov momentum 0.9, weight decay 5e-4, batches of 128, no augmentation.

One training serves every seed and IPC (as with Minimax): what differs between seeds is which of equal images are taken.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from baselines.matching.images import Real
from baselines.matching.networks import NETWORKS, Learner, published
from baselines.random_real import too_few
from benchmark.api import Method, Stage, Task, Unit, Work, generator, param, student_version, train

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}  # DeepCore main.py, selection_*


@dataclass(frozen=True)
class DynamicsParams:
    """What is trained, and which end of the scores is kept."""

    epochs: int = param(10, "epochs a network is trained", "", low=1)
    batch: int = param(128, "images a step", "DeepCore main.py --selection_batch 128", low=1)
    keep: str = param(
        "easy",
        "images to keep: those with the lowest scores, or with the highest",
        "the papers keep the hard ones, of tens of per cent of the data; of a few images a class those are mislabelled",
        choices=("easy", "hard"),
        tune=("easy", "hard"),
    )
    network: str = param(
        "auto", "network that is watched; auto: by resolution", "DC's ConvNets", choices=("auto", *NETWORKS)
    )


class Watching(abc.ABC):
    """A training whose every step is noted: the state that :func:`benchmark.api.train` runs and keeps."""

    def __init__(self, task: Task, settings: dict[str, Any]) -> None:
        self.task, self.settings, self.name = task, settings, task.method
        self.learner = Learner(task, settings["network"], seed=(self.name,), **SGD)
        self.real = Real(task, range(len(task.train)))
        self.labels = torch.tensor(task.train.labels).to(task.device)
        self.mean, self.std = (
            torch.tensor(x).view(-1, 1, 1).to(task.device) for x in (task.dataset.mean, task.dataset.std)
        )
        self.each = -(-len(self.real) // settings["batch"])  # steps an epoch

    def rows(self, index: int) -> Tensor:
        """Positions of the images of step ``index``: each epoch all of them, in a new order."""
        epoch, place = divmod(index, self.each)
        order = torch.randperm(len(self.real), generator=generator(self.name, "epoch", epoch))
        return order[place * self.settings["batch"] : (place + 1) * self.settings["batch"]]

    def images(self, rows: Tensor) -> Tensor:
        """Normalised, on the device."""
        return (self.real.take(rows) - self.mean) / self.std

    def learn(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of SGD; returns (positions and labels on the device, logits before the step)."""
        there = rows.to(self.task.device, non_blocking=True)
        labels = self.labels[there]
        return there, labels, self.learner.train(self.images(rows), labels)

    @abc.abstractmethod
    def step(self, index: int) -> Tensor:
        """One step; returns a number to show."""

    @abc.abstractmethod
    def notes(self) -> dict[str, Tensor]:
        """The tensors in which is noted what was seen; :meth:`step` changes them in place."""

    @abc.abstractmethod
    def scores(self) -> Tensor:
        """A number an image, low for easy ones: ``[n]`` in the order of the training split."""

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return self.learner.tensors() | {f"note/{name}": value for name, value in self.notes().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of :meth:`tensors`."""
        self.learner.load(tensors)
        for name, value in self.notes().items():
            value.copy_(tensors[f"note/{name}"])


class Dynamics(Method):
    """Base of the methods; subclasses say what is watched and for how long."""

    trains = True
    stage_name = ""

    def why_not(self, dataset, ipc: int) -> str:
        return too_few(dataset, ipc)

    def settings(self, task: Task) -> dict[str, Any]:
        """What the scores depend on, besides the data."""
        p = self.params
        return {"epochs": p.epochs, "batch": p.batch, "network": self.network(task.dataset.image_size)}

    def network(self, size: int) -> str:
        """The network for images of ``size`` pixels."""
        return published(size) if self.params.network == "auto" else self.params.network

    def work_at(self, images: int, classes: int, ipc: int, image_size: int) -> list[Work]:
        steps = self.networks() * self.params.epochs
        return [Work("recover", images, steps, network=self.network(image_size), shared=True)]

    def networks(self) -> int:
        """How many networks are trained."""
        return 1

    def watching(self, task: Task) -> Watching:
        """The training at its start."""
        raise NotImplementedError

    def stage(self, task: Task) -> Stage:
        """The stage of the scores."""
        settings = self.settings(task)
        return task.stage(self.stage_name, 1, **settings, **student_version(settings["network"]))

    def stages(self, task: Task) -> list[Stage]:
        return [self.stage(task)]

    def scores(self, task: Task) -> Tensor:
        """A number an image of the training split, low for easy ones, from the store."""
        stage = self.stage(task)

        def make(folder: Path) -> None:
            state = self.watching(task)
            steps = self.networks() * self.params.epochs * state.each
            train(task.store, stage, f"{task.method} watching", steps, state, state.step)
            save_file({"scores": state.scores().float().cpu().contiguous()}, folder / "scores.safetensors")

        return load_file(task.artifact(stage, make) / "scores.safetensors")["scores"]

    def distill(self, task: Task, unit: Unit) -> Tensor:
        scores, chosen = self.scores(task), {}
        for c in sorted({c for c, _ in unit.cells}):
            rows = torch.as_tensor(task.train.by_class[c])
            rows = rows[torch.randperm(len(rows), generator=task.generator(c, 0))]  # of equal images a random one
            order = scores[rows].sort(stable=True, descending=self.params.keep == "hard").indices
            chosen[c] = rows[order[: task.ipc]].tolist()
        return task.train.images([chosen[c][i] for c, i in unit.cells])
