"""G-VBSM and EDC: images recovered from several classifiers by the statistics of all their layers.

Sources: G-VBSM, "Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching" (arXiv
2311.17950), shaoshitong/G_VBSM_Dataset_Condensation @1ed80b0, ``Branch_*/recover/``; EDC, "Elucidating the Design Space
of Dataset Condensation" (arXiv 2404.13733), shaoshitong/EDC @80116a7, ``Branch_*/recover/``. *Squeeze* is the training
of the classifiers by the harness's recipe, *relabel* the student's protocol (theirs: the mean of the classifiers'
logits: ``--teacher a+b+c``).

Published settings (``recover.sh`` of each branch; rate, steps, images together):

======  ===============================================  ===========================================================
gvbsm   0.05, 4000, 100; ImageNet-1K 0.1, 4000, 80       noise; shifts by an eighth (from 128 px on crops of 8 % to
                                                         100 %), flips, circular shifts of 32 px; convolutions drop
                                                         out with 0.4; 0.01 x statistics + spread
edc     0.05, 2000, 100; 10 classes 75 below 128 px,     real images (from 128 px on RDED's mosaics); crops of 8 %
        50 from there on; ImageNet-1K 1000 and           (from 128 px on 50 %) to 100 %, flips; the classes' own
        statistics x 0.1                                 statistics count half; 0.01 x statistics
======  ===============================================  ===========================================================

Defaults: these. Smoothing of statistics 0.8 (EDC's ImageNet-10: 0), first layer x 10. EDC's flatness term is off as
in every script (the paper's weight is 0.25 with decay 0.99, ``flatness=0.25``; the code's own default is 1). Of the
published classifiers those that are students here: resnet18, convnet3_in, mobilenetv2, shufflenetv2 (x1.0 for x0.5);
WRN-16-2 and EDC's ConvNets of one and two blocks or width 32 are missing. From 128 px on efficientnet_b0 in place of
the ConvNet, and torchvision's weights on ImageNet-1K. Digits (8 px) take three ConvNets and no flips.

Quirks kept, each an option: smoothed statistics begin with zeros (``warm``); EDC's classes have block means and
variances under each other's name (``swapped``). Deviations: batches are independent (theirs keep the smoothed
statistics from batch to batch, and every 100 steps show the last network the images, which moves its statistics);
the loaders' random order and shifts are drawn once, from one seed; EDC's first images are drawn without repetition
and are not mirrored; PNG, and 8 bits rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from baselines.gvbsm.recover import Settings, recover
from baselines.gvbsm.statistics import LARGE, goals, statistics, statistics_stage
from baselines.sre2l.starts import mosaics, mosaics_stage, random_rows
from benchmark.api import Enlarged, Method, Stage, Task, Unit, UsageError, Work, derive_seed, param

if TYPE_CHECKING:
    from benchmark.api import Dataset, Teacher

SMALL = "resnet18+convnet3_in+mobilenetv2+shufflenetv2"
BIG = "resnet18+mobilenetv2+efficientnet_b0+shufflenetv2"
IMAGENET = "+".join(f"torchvision:{n}" for n in ("resnet18", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x0_5"))
DIGITS = "convnet3_bn+convnet3_in+convnet4_bn"  # at 8 px


@dataclass(frozen=True)
class GVBSMParams:
    """G-VBSM's."""

    squeeze: str = param("", "classifiers, joined by +; empty: see the module", "recover.sh, aux_teacher")
    iterations: int = param(0, "optimisation steps; 0: published", "--iteration 4000", low=0)
    lr: float = param(0.0, "Adam's rate; 0: published", "--lr 0.05, ImageNet-1K 0.1", low=0.0, tune=(0.02, 0.05, 0.1))
    r_loss: float = param(
        0.0, "weight of the statistics; 0: published", "--r-loss 0.01", low=0.0, tune=(0.01, 0.1, 1.0)
    )
    first: float = param(10.0, "multiplier of the first layer", "--first-multiplier 10", low=0.0)
    diversity: float = param(1.0, "weight of the spread of each class's eigenvalues", "--nuc-norm 1", low=0.0)
    momentum: float = param(0.8, "smoothing of statistics over steps", "--training-momentum 0.8", low=0.0, high=1.0)
    warm: bool = param(False, "smoothing begins with the first statistics, not with zeros", "utils.py: with zeros")
    drop: float = param(
        0.4, "probability with which a convolution is left out", "--drop-rate 0.4", low=0.0, high=1.0, tune=(0.0, 0.4)
    )
    jitter: int = param(32, "largest circular shift, px; at most the side", "--jitter 32", low=0)
    flip: bool = param(True, "mirror at random", "RandomHorizontalFlip in every script")
    batch: int = param(100, "images optimised together, class by class", "--batch-size 100; ImageNet-1K 80", low=1)


class GVBSM(Method):
    """Noise that several classifiers call its class and whose statistics in every layer are the real images'.

    Four classifiers take turns, a step each; beside BatchNorm's means and variances those of every convolution count,
    also by blocks of positions, and a term keeps a class's images apart. Needs training images and trains its own
    classifiers; costs a pass of the images through each for the statistics, then 4000 steps whatever their number.
    Defaults are those of the authors' scripts.
    """

    Params = GVBSMParams
    quick = {"iterations": 4, "squeeze": "convnet3_bn+convnet3_in"}
    trains = True
    by_class = False

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        return {"flip": False, "squeeze": DIGITS} if dataset.partition("@")[0] == "digits" else {}

    def named(self, name: str, image_size: int) -> str:
        """The classifiers for a dataset of this name and side."""
        if self.params.squeeze:
            return self.params.squeeze
        if name.partition("@")[0] == "imagenet1k" and image_size >= LARGE:
            return IMAGENET
        return BIG if image_size >= LARGE else SMALL

    def classifiers(self, dataset: Dataset) -> dict[str, str]:
        return {"squeeze": self.named(dataset.name, dataset.image_size)}

    def names(self, task: Task) -> list[str]:
        """Of the classifiers, in the order of their turns."""
        return self.classifiers(task.dataset)["squeeze"].split("+")

    def published(self, image_size: int, classes: int) -> tuple[int, float, float]:
        """(steps, rate, weight of the statistics) of the authors' script."""
        return 4000, (0.1 if image_size >= LARGE else 0.05), 0.01

    def settings(self, image_size: int, classes: int) -> Settings:
        """The parameters with published values filled in."""
        p = self.params
        iterations, lr, r_loss = self.published(image_size, classes)
        return Settings(
            iterations=p.iterations or iterations,
            lr=p.lr or lr,
            r_loss=p.r_loss or r_loss,
            first=p.first,
            diversity=p.diversity,
            flatness=0.0,
            smoothing=0.0,
            momentum=p.momentum,
            drop=p.drop,
            warm=p.warm,
            pad=0 if image_size >= LARGE else max(1, image_size // 8),
            smallest_crop=0.08,
            flip=p.flip,
            jitter=min(p.jitter, image_size),
        )

    def resolved(self, image_size: int) -> dict[str, Any]:
        """The rate and the weight of the statistics, in place of 0; of many classes."""
        acting = self.settings(image_size, 1000)
        return {**super().resolved(image_size), "lr": acting.lr, "r_loss": acting.r_loss}

    def units(self, task: Task) -> list[Unit]:
        """Batches of images, class by class: the spread of a class is over its images in the batch."""
        cells = [(c, i) for c in range(len(task.dataset.classes)) for i in range(task.ipc)]
        return [
            Unit(f"class {b[0][0]}, index {b[0][1]} to class {b[-1][0]}, index {b[-1][1]}", tuple(b))
            for b in (cells[k : k + self.params.batch] for k in range(0, len(cells), self.params.batch))
        ]

    def stages(self, task: Task) -> list[Stage]:
        return [statistics_stage(task, name, self.params.flip) for name in self.names(task)]

    def work_at(self, images: int, classes: int, ipc: int, image_size: int) -> list[Work]:
        names = self.named("", image_size).split("+")  # ImageNet-1K's are as large
        steps = self.settings(image_size, classes).iterations
        shared = [Work("score", images, network=n, shared=True) for n in names]
        return shared + [Work("recover", classes * ipc, -(-steps // len(names)), network=n) for n in names]

    def start(self, task: Task, unit: Unit, teacher: Teacher) -> torch.Tensor:
        """What the unit's images begin as: normalised float ``[n, C, H, W]`` on the CPU; here standard normal noise."""
        size, channels = task.dataset.image_size, task.dataset.channels
        return torch.stack([torch.randn(channels, size, size, generator=task.generator(c, i)) for c, i in unit.cells])

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        size, labels = task.dataset.image_size, [c for c, _ in unit.cells]
        teachers = task.classifiers("squeeze")
        mean, std = teachers[0].mean, teachers[0].std
        if not all(torch.equal(t.mean, mean) and torch.equal(t.std, std) for t in teachers):
            raise UsageError(
                f"the classifiers {', '.join(t.name for t in teachers)} take differently normalised images",
                where=f"--set {task.method}.squeeze=…",
                allowed="classifiers that were trained with one normalisation",
            )
        models = [t.model if t.size == size else Enlarged(t.model, t.size) for t in teachers]
        targets = []
        for name, teacher, model in zip(self.names(task), teachers, models, strict=True):
            real = statistics(task, teacher, model, name, self.params.flip)
            swapped = getattr(self.params, "swapped", False)
            targets.append(goals(model, real, labels, self.by_class, swapped))
        groups = [[i for i, c in enumerate(labels) if c == label] for label in dict.fromkeys(labels)]
        with task.precision.context(task.device):
            x = recover(
                models,
                targets,
                self.start(task, unit, teachers[0]).to(task.device),
                torch.tensor(labels).to(task.device),
                groups=[torch.tensor(rows).to(task.device) for rows in groups],
                mean=mean,
                std=std,
                settings=self.settings(size, len(task.dataset.classes)),
                seed=derive_seed(task.seed, task.method, unit.cells[0], "augment"),
            )
        return (x * std + mean).mul(255).round().clamp(0, 255).byte().cpu()


@dataclass(frozen=True)
class EDCParams(GVBSMParams):
    """EDC's."""

    iterations: int = param(0, "optimisation steps; 0: published", "--iteration 75 (CIFAR-10) to 2000", low=0)
    lr: float = param(0.0, "Adam's rate; 0: published", "--lr 0.05", low=0.0, tune=(0.02, 0.05, 0.1))
    diversity: float = param(0.0, "weight of the spread of each class's eigenvalues", "EDC leaves it out", low=0.0)
    drop: float = param(0.0, "probability with which a convolution is left out", "--drop-rate 0", low=0.0, high=1.0)
    jitter: int = param(0, "largest circular shift, px; at most the side", "recover.py has none", low=0)
    momentum: float = param(
        0.8, "smoothing of statistics over steps", "--training-momentum 0.8; ImageNet-10 0", low=0.0, high=1.0
    )
    flatness: float = param(
        0.0, "weight of the divergence from smoothed images", "off in every recover.sh; paper 0.25", low=0.0
    )
    smoothing: float = param(0.99, "decay of the smoothed images", "--ema_alpha 0.99", low=0.0, high=1.0)
    swapped: bool = param(
        True, "classes' block means and variances stand for each other", "utils.py saves them under swapped names"
    )


class EDC(GVBSM):
    """G-VBSM from real images, half of its goals those of the batch's classes, and few steps.

    Real images are moved until every layer's statistics in four classifiers are between the whole set's and those of
    the batch's classes. Needs training images and trains its own classifiers; costs a pass of the images through each
    for the statistics, then 75 steps for ten classes and 2000 for more. Defaults are those of the authors' scripts.
    """

    Params = EDCParams
    quick = {"iterations": 4, "squeeze": "convnet3_bn+convnet3_in", "flatness": 0.25}
    by_class = True

    def published(self, image_size: int, classes: int) -> tuple[int, float, float]:
        large, few = image_size >= LARGE, classes <= 10
        steps = (50 if large else 75) if few else (1000 if large else 2000)
        return steps, 0.05, 0.1 if large and not few else 0.01

    def settings(self, image_size: int, classes: int) -> Settings:
        p = self.params
        return replace(
            super().settings(image_size, classes),
            flatness=p.flatness,
            smoothing=p.smoothing,
            pad=0,
            smallest_crop=0.5 if image_size >= LARGE else 0.08,
        )

    def why_not(self, dataset: Dataset, ipc: int) -> str:
        if dataset.image_size >= LARGE:
            from baselines.rded import RDED, RDEDParams

            return RDED(RDEDParams()).why_not(dataset, ipc)
        for name, rows in zip(dataset.classes, dataset.train.by_class, strict=True):
            if ipc > len(rows):
                return f"IPC {ipc} needs as many images to begin with; class {name!r} has {len(rows)}"
        return ""

    def stages(self, task: Task) -> list[Stage]:
        judge, found = self.names(task)[0], super().stages(task)
        if task.dataset.image_size >= LARGE:
            found += [mosaics_stage(task, judge, c, "easy") for c in range(len(task.dataset.classes))]
        return found

    def start(self, task: Task, unit: Unit, teacher: Teacher) -> torch.Tensor:
        pixels = {}
        for label in sorted({c for c, _ in unit.cells}):
            if task.dataset.image_size >= LARGE:
                pixels[label] = mosaics(task, teacher, self.names(task)[0], label, "easy")
            else:
                pixels[label] = task.train.images(random_rows(task, label, task.ipc))
        chosen = torch.stack([pixels[c][i] for c, i in unit.cells]).float() / 255
        return (chosen - teacher.mean.cpu()) / teacher.std.cpu()
