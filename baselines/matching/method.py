"""What the matching methods share: one resumable optimisation for the classes that are optimised together."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from baselines.matching.images import Real, constants
from baselines.matching.networks import published
from baselines.matching.siamese import NUMBERS
from baselines.random_real import too_few
from benchmark.api import Method, Stage, Task, Unit, student_version, train


class Optimisation(abc.ABC):
    """The state of one optimisation; :meth:`step` draws everything random from the step's number.

    Args:
        settings: those of :meth:`Matching.settings`.
    """

    def __init__(self, task: Task, classes: Sequence[int], settings: dict[str, Any]) -> None:
        self.task, self.classes, self.settings = task, list(classes), settings
        self.mean, self.std = (x.to(task.device) for x in constants(task))
        self.real = [Real(task, task.train.by_class[c]) for c in self.classes]

    @abc.abstractmethod
    def step(self, index: int) -> Tensor:
        """One step; returns the loss a class."""

    @abc.abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, for a checkpoint."""

    @abc.abstractmethod
    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of :meth:`tensors`."""

    @abc.abstractmethod
    def images(self) -> Tensor:
        """The images now: uint8 ``[classes * ipc, C, H, W]``, on the CPU."""

    def draws(self, index: int, places: int) -> tuple[list[torch.Generator], Tensor]:
        """Each class's generator for step ``index``, and its numbers for an augmentation with so many places."""
        generators = [self.task.generator(c, 0, "step", index) for c in self.classes]
        return generators, torch.stack([torch.rand(places, NUMBERS, generator=g) for g in generators])

    def normalise(self, x: Tensor) -> Tensor:
        """From 0..1."""
        return (x - self.mean) / self.std

    def sample(self, generators: Sequence[torch.Generator], batch: int) -> list[Tensor]:
        """``batch`` real images of each class without repetition, in 0..1."""
        pairs = zip(self.real, generators, strict=True)
        return [real.take(torch.randperm(len(real), generator=g)[:batch]) for real, g in pairs]


class Matching(Method):
    """Base of the methods; subclasses say what an :class:`Optimisation` is and which classes it couples."""

    trains = True
    stage_name = ""
    version = 1  # of the stage

    def why_not(self, dataset, ipc: int) -> str:
        return too_few(dataset, ipc)

    def network(self, size: int) -> str:
        """The network for images of ``size`` pixels."""
        return published(size) if self.params.network == "auto" else self.params.network

    def settings(self, task: Task) -> dict[str, Any]:
        """The parameters with published values filled in: what the images depend on, besides dataset, IPC and seed."""
        raise NotImplementedError

    def steps(self, task: Task) -> int:
        """Steps of an optimisation."""
        raise NotImplementedError

    def optimisation(self, task: Task, classes: Sequence[int]) -> Optimisation:
        """The optimisation of some classes at its start."""
        raise NotImplementedError

    def groups(self, task: Task) -> list[range]:
        """The classes of each optimisation: all, unless overridden."""
        return [range(len(task.dataset.classes))]

    def units(self, task: Task) -> list[Unit]:
        return [
            Unit(f"classes {g[0]} to {g[-1]}", tuple((c, i) for c in g for i in range(task.ipc)))
            for g in self.groups(task)
        ]

    def stage(self, task: Task, classes: range) -> Stage:
        """The stage of an optimisation, whose artifact is the images."""
        settings = self.settings(task)
        settings |= {"first": classes[0], "last": classes[-1], "ipc": task.ipc, "method": task.method}
        settings |= student_version(settings["network"])
        return task.stage(self.stage_name, self.version, seeded=True, **settings)

    def stages(self, task: Task) -> list[Stage]:
        return [self.stage(task, group) for group in self.groups(task)]

    def distill(self, task: Task, unit: Unit) -> Tensor:
        labels = [c for c, _ in unit.cells]
        classes = range(labels[0], labels[-1] + 1)
        stage = self.stage(task, classes)

        def make(folder: Path) -> None:
            state = self.optimisation(task, classes)
            label = f"{task.method} classes {classes[0]}-{classes[-1]} matching"
            train(task.store, stage, label, self.steps(task), state, state.step)
            save_file({"images": state.images()}, folder / "images.safetensors")

        return load_file(task.artifact(stage, make) / "images.safetensors")["images"]
