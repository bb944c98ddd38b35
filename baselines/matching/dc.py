"""DC and DSA: images on which a network has the gradients that it has on real images of the class.

Source: DC (arXiv 2006.05929) and DSA (arXiv 2102.08259), repository VICO-UoE/DatasetCondensation, ``main.py``. An
iteration begins with a new network. ``outer`` times, for each class the gradient of the cross-entropy of 256 real
images and that of all its synthetic ones are compared (:mod:`baselines.matching.gradients`), and one SGD step on the
normalised pixels follows; in between the network is trained for ``inner`` epochs on the synthetic images. DSA augments
the real and the synthetic images of a class alike (:mod:`baselines.matching.siamese`), and what the network learns
from.

Defaults: ``main.py``'s: 1,000 iterations, rate 0.1, momentum 0.5, the network's rate 0.01; DC begins with noise, DSA
with real images (readme.md). ``outer`` and ``inner`` are those of ``get_loops`` for the nearest IPC that it has. On
``digits``, which the papers do not have: 100 iterations from real images at rate 0.001, and no mirrored digits. Some
gradients are far larger at 8 px, where the last maps have 2 x 2 pixels: a ConvNet-3 that reads 66.6 % of digits from
one real image a class reads 14.1 % after 20 steps of DSA at rate 0.1, 48.2 % at 0.01; after 30 of DC from the same
images at 0.001, 63.1 % (2 students, accuracy on a quarter of the training images).

Deviations: 8-bit images (theirs: unclipped float tensors, see ``clip``); the loop ends after 1,000 iterations, where
theirs evaluates (it saves after one more).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.matching.dm import STRATEGY, UNFLIPPED
from baselines.matching.gradients import match, weighted_layers
from baselines.matching.images import Pixels, noise, real_start, stored
from baselines.matching.method import Matching, Optimisation
from baselines.matching.networks import NETWORKS, Learner
from baselines.matching.siamese import NUMBERS, augment, dsa_program
from benchmark.api import Task, Work, generator, param

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}  # utils.py get_loops


@dataclass(frozen=True)
class DCParams:
    """``main.py``'s arguments."""

    iterations: int = param(1000, "networks that are drawn", "main.py --Iteration 1000", low=1)
    outer: int = param(0, "steps on the pixels for each network; 0: published for the IPC", "utils.py get_loops", low=0)
    inner: int = param(0, "epochs of the network between them; 0: published", "utils.py get_loops", low=0)
    lr: float = param(0.1, "SGD's rate for the pixels", "main.py --lr_img 0.1", low=0.0, tune=(0.01, 0.1, 1.0))
    momentum: float = param(0.5, "SGD's momentum for the pixels", "main.py", low=0.0, high=0.999)
    lr_net: float = param(0.01, "SGD's rate for the network, without momentum", "main.py --lr_net 0.01", low=0.0)
    batch: int = param(256, "real images a class and step", "main.py --batch_real 256", low=1)
    batch_net: int = param(256, "synthetic images a step of the network", "main.py --batch_train 256", low=1)
    start: str = param("noise", "what the images begin as", "main.py --init noise", choices=("real", "noise"))
    strategy: str = param("", "augmentations, one a class and step; empty: none", "main.py --dsa_strategy None")
    clip: str = param(
        "end",
        "when pixels are clipped to what can be stored: at the end, or after every step",
        "main.py: the images that it saves are not clipped at all",
        choices=("end", "always"),
    )
    network: str = param(
        "auto",
        "network whose gradients are matched; auto: by resolution",
        "main.py --model ConvNet",
        choices=("auto", *NETWORKS),
    )


@dataclass(frozen=True)
class DSAParams(DCParams):
    """readme.md's command for DSA."""

    start: str = param("real", "what the images begin as", "readme.md --init real", choices=("real", "noise"))
    strategy: str = param(STRATEGY, "augmentations, one a class and step; empty: none", "readme.md --dsa_strategy")


class Matched(Optimisation):
    """DC's optimisation; a step is one step on the pixels and what the network learns after it."""

    def __init__(self, task: Task, classes: Sequence[int], settings: dict[str, Any]) -> None:
        super().__init__(task, classes, settings)
        first = noise(task, classes).to(task.device)
        if settings["start"] == "real":
            first = self.normalise(real_start(task, classes).to(task.device))
        self.pixels = Pixels(first, settings["lr"], settings["momentum"])
        self.learner = Learner(task, settings["network"], lr=settings["lr_net"])
        self.layers = weighted_layers(self.learner.net, classifier=True)
        self.program = dsa_program(settings["strategy"])
        self.labels = torch.tensor(self.classes).repeat_interleave(task.ipc).to(task.device)
        self.low, self.high = -self.mean / self.std, (1 - self.mean) / self.std

    def match(self, real: Sequence[Tensor], numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The distance of the gradients, summed over classes, and its gradient on the pixels.

        Args:
            real: normalised ``[n, C, H, W]`` of each class; numbers: of the augmentation.
        """
        real = [augment(x[None], self.program, numbers[k : k + 1])[0] for k, x in enumerate(real)]
        values = self.pixels.values.detach().requires_grad_(True)
        shown = augment(values, self.program, numbers)
        with self.task.precision.context(self.task.device):
            loss, slope = match(self.learner.net, self.layers, real, shown, self.classes, "cosine")
        if shown is not values:
            (slope,) = torch.autograd.grad(shown, values, slope)
        return loss, slope

    def learn(self, index: int) -> None:
        """Train the network on the synthetic images for ``inner`` epochs."""
        images, size = self.pixels.values.flatten(0, 1), self.settings["batch_net"]
        draw = generator(self.task.seed, self.task.method, "network", index)
        for _ in range(self.settings["inner"]):
            order = torch.randperm(len(images), generator=draw) if len(images) > size else None
            for begin in range(0, len(images), size):
                x, labels = images, self.labels
                if order is not None:
                    some = order[begin : begin + size].to(images.device, non_blocking=True)
                    x, labels = images[some], self.labels[some]
                if self.program:
                    numbers = torch.rand(len(x), len(self.program), NUMBERS, generator=draw)
                    x = augment(x[:, None], self.program, numbers, same_choice=True)[:, 0]
                with self.task.precision.context(self.task.device):
                    self.learner.train(x, labels)

    def step(self, index: int) -> Tensor:
        iteration, place = divmod(index, self.settings["outer"])
        if place == 0:
            self.learner.renew(iteration)
        generators, numbers = self.draws(index, len(self.program))
        real = [self.normalise(x) for x in self.sample(generators, self.settings["batch"])]
        loss, slope = self.match(real, numbers)
        self.pixels.step(slope)
        if self.settings["clip"] == "always":
            self.pixels.values.clamp_(self.low, self.high)
        if place < self.settings["outer"] - 1:
            self.learn(index)
        return loss / len(self.classes)

    def tensors(self) -> dict[str, Tensor]:
        return self.pixels.tensors() | self.learner.tensors()

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.pixels.load(tensors)
        self.learner.load(tensors)

    def images(self) -> Tensor:
        return stored(self.pixels.values * self.std + self.mean)


class DC(Matching):
    """Images, begun as noise, on which networks have the gradients that they have on real images of the class.

    Again and again a new network learns from the synthetic images, and each time before it does the pixels follow the
    cosine distance of its gradients on 256 real and on the synthetic images of each class. Needs nothing but the
    training images; costs 1,000 networks, at IPC 1 one gradient of 256 real images a class each (a minute on a GPU, two
    hours on two CPU cores), at IPC 10 ten, and 450 epochs on the synthetic images. Defaults are the authors'
    (``main.py``).
    """

    Params = DCParams
    stage_name = "dc.matching"
    quick = {"iterations": 2, "outer": 2, "inner": 2, "batch": 5}

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        known = {"digits": {"iterations": 100, "start": "real", "lr": 0.001}}
        return known.get(dataset.partition("@")[0], {})

    def loops(self, ipc: int) -> tuple[int, int]:
        """Steps on the pixels for each network, and epochs of the network between them."""
        nearest = min(LOOPS, key=lambda known: abs(known - ipc))
        return self.params.outer or LOOPS[nearest][0], self.params.inner or LOOPS[nearest][1]

    def settings(self, task: Task) -> dict[str, Any]:
        p = self.params
        names = ("iterations", "lr", "momentum", "lr_net", "batch", "batch_net", "start", "strategy", "clip")
        outer, inner = self.loops(task.ipc)
        network = self.network(task.dataset.image_size)
        return {name: getattr(p, name) for name in names} | {"outer": outer, "inner": inner, "network": network}

    def work_at(self, images: int, classes: int, ipc: int, image_size: int) -> list[Work]:
        p, (outer, inner), network = self.params, self.loops(ipc), self.network(image_size)
        real = classes * min(p.batch, images // classes)
        found = [
            Work("recover", real, p.iterations * outer, network=network),
            Work("match", classes * ipc, p.iterations * outer, network=network),
        ]
        learnt = p.iterations * (outer - 1) * inner  # epochs of the networks
        return found + [Work("recover", classes * ipc, learnt, network=network)] * bool(learnt)

    def steps(self, task: Task) -> int:
        return self.params.iterations * self.loops(task.ipc)[0]

    def optimisation(self, task: Task, classes: Sequence[int]) -> Matched:
        return Matched(task, classes, self.settings(task))


class DSA(DC):
    """DC, begun as real images, with the same random augmentation of the real and the synthetic images of a class.

    What is matched are gradients on augmented images, so the set is worth more to students that are trained with the
    same augmentation (protocol ``dc-dsa``). Needs nothing but the training images; costs what DC costs. Defaults are
    the authors' (``readme.md``, ``ParamDiffAug``).
    """

    Params = DSAParams

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        name = dataset.partition("@")[0]
        return super().defaults(dataset) | ({"strategy": UNFLIPPED} if name in ("digits", "svhn", "mnist") else {})
