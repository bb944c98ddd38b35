"""SRe2L and its variant CDA: squeeze the data into a classifier, recover images from it.

Source: SRe2L (arXiv 2306.13092) and CDA (arXiv 2311.18838), repository VILA-Lab/SRe2L. *Squeeze* is the teacher of
the run (a BatchNorm classifier trained by the harness's recipe, or torchvision's weights on ImageNet-1K), *recover* is
:mod:`baselines.sre2l.recover`, *relabel* is the student's protocol: the ``fkd`` protocol stores soft labels.

Published settings (Adam's rate, weight of the BatchNorm term, iterations, jitter):

====================  =====================================  ====================================================
from 128 px           0.25, 0.01, 4000, 32, multi-crop       ``recover.sh``; CDA: the same (``CDA/README.md``)
64 px                 0.1, 1, 4000, 4, multi-crop            ``recover_tiny.sh``; CDA: 0.4, 0.05, 4000, 4
below                 0.25, 0.01, 1000, 4, no crops          ``recover_cifar.sh``; CDA has none for this size
====================  =====================================  ====================================================

A unit is a batch of ``batch`` classes at one index (theirs: 100 classes), because the BatchNorm term couples the
images of a batch.

Deviations: PNG instead of JPEG, rounded instead of truncated to 8 bits; below 32 px the jitter is an eighth of the
side (4 of 32 px, as published); Tiny-ImageNet's jitter is one-sided as everywhere else; normalisation is the teacher's;
CDA below 64 px is SRe2L's recipe for CIFAR with CDA's crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from baselines.sre2l.recover import Settings, constant_crop, curriculum_crop, recover
from benchmark.api import TEACHER, Enlarged, Method, Needs, Task, Unit, UsageError, Work, derive_seed, param

if TYPE_CHECKING:
    from benchmark.api import Dataset, Teacher


@dataclass(frozen=True)
class SRe2LParams:
    """Recovery; 0 (or -1, or ``auto``) takes the published value for the resolution."""

    iterations: int = param(0, "optimisation steps; 0: published", "recover.sh 4000, recover_cifar.sh 1000", low=0)
    lr: float = param(
        0.0, "Adam's rate; 0: published", "recover.sh 0.25, recover_tiny.sh 0.1", low=0.0, tune=(0.05, 0.1, 0.25)
    )
    r_bn: float = param(
        -1.0,
        "weight of the BatchNorm term; -1: published",
        "recover.sh 0.01, recover_tiny.sh 1",
        tune=(0.01, 0.1, 1.0, 10.0),
    )
    first_bn: float = param(10.0, "multiplier of the first BatchNorm layer", "--first-bn-multiplier 10")
    jitter: int = param(-1, "largest shift, px; -1: published", "--jitter 32 (ImageNet), 4 (CIFAR, Tiny)", low=-1)
    crop: str = param(
        "auto", "crop and flip at each step", "from 64 px on in SRe2L; always in CDA", choices=("auto", "on", "off")
    )
    flip: bool = param(True, "flip where it crops", "RandomHorizontalFlip in recover/data_synthesis.py")
    batch: int = param(100, "classes optimised together", "recover.sh --batch-size 100", low=1)
    squeeze: str = param("", "classifier to recover from; empty: the run's teacher", "arXiv 2306.13092, section 3.1")


class SRe2L(Method):
    """Noise optimised until a classifier calls it its class and sees the real images' BatchNorm statistics.

    Images of all classes at one index are optimised together by cross-entropy and the distance of each BatchNorm
    layer's statistics from its running ones. Needs the run's teacher, with BatchNorm, and no training images; costs a
    forward and a backward pass an image and step, 1000 steps below 64 px and 4000 from there on. Defaults are those of
    the authors' scripts at each resolution.
    """

    Params = SRe2LParams
    trains = True
    curriculum = False
    several = False  # whether several classifiers take turns
    quick = {"iterations": 3}

    def needs(self) -> Needs:
        return Needs(teacher=not self.params.squeeze)  # else it squeezes a classifier of its own

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        return {"flip": False} if dataset.partition("@")[0] == "digits" else {}  # a mirrored digit is none

    def why_not(self, dataset: Dataset, ipc: int) -> str:
        if "+" in self.params.squeeze and not self.several:
            return (
                f"squeeze={self.params.squeeze} names several classifiers; it recovers from one (fadrm takes several)"
            )
        return ""

    def classifiers(self, dataset: Dataset) -> dict[str, str]:
        return {"squeeze": self.params.squeeze} if self.params.squeeze else {}

    def resolved(self, image_size: int) -> dict[str, Any]:
        """The parameters with the published values in place of 0, -1 and ``auto``."""
        settings = self.settings(image_size)
        acting = {f.name: getattr(settings, f.name) for f in fields(settings) if hasattr(self.params, f.name)}
        return {**asdict(self.params), **acting, "crop": "off" if settings.smallest_crop is None else "on"}

    def work_at(self, images: int, classes: int, ipc: int, image_size: int) -> list[Work]:
        network = self.params.squeeze.split("+")[0] or TEACHER
        return [Work("recover", classes * ipc, self.settings(image_size).iterations, network=network)]

    def units(self, task: Task) -> list[Unit]:
        labels = range(len(task.dataset.classes))
        batches = [labels[i : i + self.params.batch] for i in range(0, len(labels), self.params.batch)]
        return [
            Unit(f"index {index}, classes {b[0]} to {b[-1]}", tuple((c, index) for c in b))
            for index in range(task.ipc)
            for b in batches
        ]

    def settings(self, size: int) -> Settings:
        """The parameters with published values filled in for images of ``size`` pixels."""
        p = self.params
        if size >= 128:
            iterations, lr, r_bn, jitter = 4000, 0.25, 0.01, 32
        elif size >= 64:
            iterations, lr, r_bn, jitter = (4000, 0.4, 0.05, 4) if self.curriculum else (4000, 0.1, 1.0, 4)
        else:
            iterations, lr, r_bn, jitter = 1000, 0.25, 0.01, min(4, size // 8)
        crops = p.crop == "on" or (p.crop == "auto" and (size >= 64 or self.curriculum))
        return Settings(
            iterations=p.iterations or iterations,
            lr=p.lr or lr,
            r_bn=r_bn if p.r_bn < 0 else p.r_bn,
            first_bn=p.first_bn,
            jitter=jitter if p.jitter < 0 else p.jitter,
            flip=p.flip,
            smallest_crop=(curriculum_crop if self.curriculum else constant_crop) if crops else None,
        )

    def teachers(self, task: Task) -> list[Teacher]:
        """The squeezed classifiers: one, or those that take turns.

        Raises:
            UsageError: one has no BatchNorm2d layer, so there are no statistics to recover.
        """
        found = task.classifiers("squeeze") if self.params.squeeze else [task.teacher]
        for teacher in found:
            if not any(isinstance(m, nn.BatchNorm2d) for m in teacher.model.modules()):
                raise UsageError(
                    f"{task.method} recovers BatchNorm statistics, and the classifier {teacher.name} has no "
                    "BatchNorm2d",
                    where="--teacher",
                    allowed="a network with BatchNorm2d: convnet3_bn, resnet18, mobilenetv2 …",
                    hint=f"ddbench run --method {task.method} --set squeeze=resnet18",
                )
        return found

    def start(self, task: Task, unit: Unit, teacher: Teacher) -> torch.Tensor:
        """What the unit's images begin as: normalised float ``[n, C, H, W]`` on the CPU; here standard normal noise."""
        size, channels = task.dataset.image_size, task.dataset.channels
        return torch.stack([torch.randn(channels, size, size, generator=task.generator(c, i)) for c, i in unit.cells])

    def enters(self, task: Task, unit: Unit) -> tuple[Sequence[int], int]:
        """(step at which each image joins, or empty: all from the first on; steps in all)."""
        return (), self.settings(task.dataset.image_size).iterations

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        size = task.dataset.image_size
        teachers = self.teachers(task)
        teacher = teachers[0]
        start = self.start(task, unit, teacher)
        models = [t.model if t.size == size else Enlarged(t.model, t.size) for t in teachers]
        targets = torch.tensor([c for c, _ in unit.cells], device=task.device)
        seed = derive_seed(task.seed, task.method, unit.cells[0], "augment")
        enters, iterations = self.enters(task, unit)
        settings = replace(self.settings(size), iterations=iterations)
        with task.precision.context(task.device):
            x = recover(models, start.to(task.device), targets, teacher.mean, teacher.std, settings, seed, enters)
        return (x * teacher.std + teacher.mean).mul(255).round().clamp(0, 255).byte().cpu()


class CDA(SRe2L):
    """SRe2L with crops that begin as the whole image and shrink.

    Early steps see nearly whole images, late ones crops of down to 8 % of the area, on a cosine. Needs and costs what
    SRe2L does. Defaults are the authors' from 64 px on and SRe2L's below, where they publish none.
    """

    curriculum = True
