"""IDC: several training images in one stored image, matched by the gradients of networks trained on real images.

Source: "Dataset Condensation via Efficient Synthetic-Data Parameterization" (arXiv 2205.14959), repository
snu-mllab/Efficient-Dataset-Condensation, ``condense.py`` with ``--reproduce`` (``misc/reproduce.py``,
``argument.py``). An iteration begins with a new network and clipped pixels. ``inner`` times each class's images are
decoded (:mod:`benchmark.training.formation`), augmented together with 64 real ones (colour, then shift, then cutout:
:mod:`baselines.matching.siamese`), compared by the gradients on the convolutions, and moved by one step of SGD; then
the network learns from some batches of real images, half of them mixed by CutMix. Factor 1 is the paper's IDC-I.

Defaults, by dataset and resolution:

=====================  ==================================================================  ===========================
CIFAR, other 32 px     mse, rate 5e-3, 2,000 real images for the network, factor 2         ``reproduce.py``
SVHN                   mse, rate 5e-3, 500                                                 ``reproduce.py``
Fashion-MNIST, 1 chan  l1, rate 1e-4, 500                                                  ``reproduce.py``
from 128 px            l1, rate 3e-3, 500 iterations, factor 3, ResNetAP-10                ``reproduce.py``
=====================  ==================================================================  ===========================

The rate is multiplied by IPC / 10 and by the number of pixels over that of a reference (32 px; 224 px from 128 px on;
``argument.py``, ``tune_lr_img``). On ``digits``, which the paper does not have: 5 iterations.

Quirk kept, ``drift``: theirs makes the optimizer step once a class, and every step moves the images of all classes by
what is left of their momentum: with ten classes a gradient moves an image by nearly twice the rate before the next.

Deviations: 8-bit images; images begin as random real ones (theirs: the first ones of the class); batches of real images
for the network run on over the end of an epoch; 10 epochs of training before an ImageNet network is used (``--early
10``) are left out.

Students are trained on the decoded images under every protocol (`Method.tiles`); the protocol ``idc`` is the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.matching.gradients import match, weighted_layers
from baselines.matching.images import Pixels, Real, noise, real_start, stored
from baselines.matching.method import Matching, Optimisation
from baselines.matching.networks import NETWORKS, Learner
from baselines.matching.siamese import NUMBERS, augment, idc_program
from benchmark.api import Dataset, Task, Work, batches, decode, generator, mix, param

LARGE = 128  # px from which the settings are those for ImageNet
REFERENCE_IPC = 10  # argument.py tune_lr_img


@dataclass(frozen=True)
class IDCParams:
    """``argument.py``'s arguments; 0, -1 and ``auto`` take the published value for the data."""

    factor: int = param(
        0, "tiles along an image's side; 0: 2 below 128 px, else 3; 1: IDC-I", "README.md -f 2, -f 3", low=0, high=8
    )
    iterations: int = param(0, "networks that are drawn; 0: published", "reproduce.py niter 2000; ImageNet 500", low=0)
    inner: int = param(100, "steps for each network", "argument.py --inner_loop 100", low=1)
    metric: str = param(
        "auto", "distance of gradients", "reproduce.py: mse, l1", choices=("auto", "mse", "l1", "cosine")
    )
    lr: float = param(
        0.0, "SGD's rate for the pixels before it is scaled; 0: published", "reproduce.py lr_img", low=0.0
    )
    scale_lr: bool = param(True, "multiply the rate by IPC / 10 and by the pixels", "argument.py tune_lr_img")
    momentum: float = param(0.5, "SGD's momentum for the pixels", "argument.py --mom_img 0.5", low=0.0, high=0.999)
    drift: bool = param(
        True, "momentum moves a class's images in the other classes' steps too", "condense.py: optim_img.step()"
    )
    batch: int = param(64, "real images a class and step", "argument.py --batch_real 64", low=1)
    batch_synthetic: int = param(128, "most decoded images a class and step", "argument.py --batch_syn_max", low=1)
    images_net: int = param(-1, "real images for the network a step; -1: published", "reproduce.py n_data", low=-1)
    batch_net: int = param(64, "real images a step of the network", "argument.py --batch_size 64", low=1)
    lr_net: float = param(0.01, "SGD's rate for the network", "argument.py --lr 0.01", low=0.0)
    strategy: str = param("color_crop_cutout", "augmentations", "argument.py --aug_type")
    cutmix: bool = param(True, "mix half of the network's batches", "argument.py --mixup_net cut, mix_p 0.5")
    start: str = param("real", "what the images begin as", "argument.py --init mix, random", choices=("real", "noise"))
    network: str = param(
        "auto", "network whose gradients are matched; auto: by resolution", "reproduce.py", choices=("auto", *NETWORKS)
    )


class Matched(Optimisation):
    """IDC's optimisation; a step is one step on every class's pixels and what the network learns after it."""

    def __init__(self, task: Task, classes: Sequence[int], settings: dict[str, Any]) -> None:
        super().__init__(task, classes, settings)
        first = (noise(task, classes) / 4 + 0.5).clamp(0, 1)
        if settings["start"] == "real":
            first = real_start(task, classes, settings["factor"])
        self.pixels = Pixels(first.to(task.device), settings["lr"], settings["momentum"])
        self.learner = Learner(task, settings["network"], lr=settings["lr_net"], momentum=0.9, weight_decay=5e-4)
        self.layers = weighted_layers(self.learner.net, classifier=False)
        self.program = idc_program(settings["strategy"])
        left_out = "cutout" if settings["cutmix"] else ""
        names = [name for name in settings["strategy"].split("_") if name and name != left_out]
        self.net_program = idc_program("_".join(names))
        self.everything = Real(task, range(len(task.train)))
        self.labels = torch.tensor(task.train.labels).to(task.device)

    def match(self, real: Sequence[Tensor], numbers: Tensor, generators: Sequence[torch.Generator]) -> tuple:
        """The distance of the gradients, summed over classes, and its gradient on the pixels.

        Args:
            real: ``[n, C, H, W]`` in 0..1 of each class; numbers: of the augmentation.
        """
        real = [augment(self.normalise(x)[None], self.program, numbers[k : k + 1])[0] for k, x in enumerate(real)]
        values = self.pixels.values.detach().requires_grad_(True)
        shown, most = decode(values, self.settings["factor"]), self.settings["batch_synthetic"]
        if shown.shape[1] > most:
            some = [torch.randperm(shown.shape[1], generator=g)[:most] for g in generators]
            shown = torch.stack([x[i.to(x.device, non_blocking=True)] for x, i in zip(shown, some, strict=True)])
        shown = augment(self.normalise(shown), self.program, numbers)
        with self.task.precision.context(self.task.device):
            loss, slope = match(self.learner.net, self.layers, real, shown, self.classes, self.settings["metric"])
        return loss, torch.autograd.grad(shown, values, slope)[0]

    def move(self, real: Sequence[Tensor], numbers: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """One step on every class's pixels; returns the loss.

        Theirs go class by class. As a class's gradient depends on its own images alone, all gradients are taken
        together, after the steps that the momentum makes before a class's turn.
        """
        turn = torch.arange(len(self.classes))
        if self.settings["drift"]:
            self.pixels.coast(turn)
        loss, slope = self.match(real, numbers, generators)
        self.pixels.step(slope)
        if self.settings["drift"]:
            self.pixels.coast(turn.flip(0))
        return loss

    def learn(self, index: int) -> None:
        """Train the network on ``images_net`` real images, rounded up to whole batches."""
        size = self.settings["batch_net"]
        count = -(-self.settings["images_net"] // size)
        device, name = self.task.device, (self.task.seed, self.task.method, "network")
        for number in range(index * count, (index + 1) * count):
            rows, draw = batches(len(self.everything), size, number, *name), generator(*name, number)
            x, labels = self.normalise(self.everything.take(rows)), self.labels[rows.to(device, non_blocking=True)]
            numbers = torch.rand(len(x), len(self.net_program), NUMBERS, generator=draw)
            x, others, share = augment(x[:, None], self.net_program, numbers, same_choice=True)[:, 0], None, 1.0
            if self.settings["cutmix"] and float(torch.rand((), generator=draw)) < 0.5:
                x, partner, share = mix(x, "cutmix", 1.0, draw)
                others = labels[partner.to(device, non_blocking=True)]
            with self.task.precision.context(device):
                self.learner.train(x, labels, others, share)

    def batch(self, index: int) -> list[Tensor]:
        """The real images of step ``index``: a class's go by in random order, then in another one (the rest of an
        order that fills no batch is left out)."""
        found = []
        for c, real in zip(self.classes, self.real, strict=True):
            size = min(self.settings["batch"], len(real))
            epoch, place = divmod(index, len(real) // size)
            order = torch.randperm(len(real), generator=self.task.generator(c, 0, "order", epoch))
            found.append(real.take(order[place * size : (place + 1) * size]))
        return found

    def step(self, index: int) -> Tensor:
        iteration, place = divmod(index, self.settings["inner"])
        if place == 0:
            self.learner.renew(iteration)
            self.pixels.values.clamp_(0, 1)
        generators, numbers = self.draws(index, len(self.program))
        loss = self.move(self.batch(index), numbers, generators)
        if place < self.settings["inner"] - 1:  # the next step draws another network
            self.learn(index)
        return loss / len(self.classes)

    def tensors(self) -> dict[str, Tensor]:
        return self.pixels.tensors() | self.learner.tensors()

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.pixels.load(tensors)
        self.learner.load(tensors)

    def images(self) -> Tensor:
        return stored(self.pixels.values)


class IDC(Matching):
    """Several training images in one stored image, matched by the gradients of networks that learn from real images.

    Each stored image is cut into 2 x 2 tiles that are enlarged to training images; their gradients on the convolutions
    of a network are drawn to those of 64 real images of the class while the network learns from real images. Needs
    nothing but the training images, and students that decode the tiles; costs 2,000 networks of 100 steps (an hour on a
    GPU, days on two CPU cores; fewer ``iterations`` shorten it). Defaults are the authors' (``reproduce.py``); factor 1
    is their IDC-I.
    """

    Params = IDCParams
    stage_name = "idc.matching"
    quick = {"iterations": 2, "inner": 2, "batch": 5, "images_net": 6, "batch_net": 4}

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        grey, few = {"metric": "l1", "lr": 1e-4, "images_net": 500}, {"metric": "mse", "lr": 5e-3, "images_net": 500}
        cifar = few | {"images_net": 2000}
        known = {"fashionmnist": grey, "svhn": few, "cifar10": cifar, "cifar100": cifar}
        return (known | {"digits": grey | {"iterations": 5}}).get(dataset.partition("@")[0], {})

    def tiles(self, dataset: Dataset) -> int:
        return self.params.factor or (3 if dataset.image_size >= LARGE else 2)

    def settings(self, task: Task) -> dict[str, Any]:
        p, dataset = self.params, task.dataset
        size = dataset.image_size
        large, absolute = size >= LARGE, size >= LARGE or dataset.channels == 1
        rate = p.lr or (3e-3 if large else 1e-4 if absolute else 5e-3)
        if p.scale_lr:
            rate *= task.ipc / REFERENCE_IPC * (size / (224 if large else 32)) ** 2
        names = ("inner", "momentum", "drift", "batch", "batch_synthetic", "batch_net", "lr_net", "strategy", "cutmix")
        return {name: getattr(p, name) for name in (*names, "start")} | {
            "factor": self.tiles(dataset),
            "iterations": p.iterations or (500 if large else 2000),
            "metric": p.metric if p.metric != "auto" else "l1" if absolute else "mse",
            "lr": rate,
            "images_net": p.images_net if p.images_net >= 0 else 500 if absolute else 2000,
            "network": self.network(size),
        }

    def work_at(self, images: int, classes: int, ipc: int, image_size: int) -> list[Work]:
        p, network, large = self.params, self.network(image_size), image_size >= LARGE
        steps, factor = (p.iterations or (500 if large else 2000)) * p.inner, p.factor or (3 if large else 2)
        real = classes * min(p.batch, images // classes)
        real += p.images_net if p.images_net >= 0 else 500 if large else 2000
        decoded = classes * min(p.batch_synthetic, ipc * factor**2)
        return [Work("recover", real, steps, network=network), Work("match", decoded, steps, network=network)]

    def steps(self, task: Task) -> int:
        settings = self.settings(task)
        return settings["iterations"] * settings["inner"]

    def optimisation(self, task: Task, classes: Sequence[int]) -> Matched:
        return Matched(task, classes, self.settings(task))
