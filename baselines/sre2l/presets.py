"""DWA, DELT, SRe2L++ and FADRM: SRe2L with other first images, schedules and weights.

Sources, all read at the commits named: DWA (arXiv 2409.17612), AngusDujw/Diversity-Driven-Synthesis c5b125f,
``distillation/`` and ``scripts/``; DELT (arXiv 2411.19946), VILA-Lab/DELT f2f81ca, ``data_selection.py``,
``recover/recover.py`` and ``scripts/``; SRe2L++, the baseline of CV-DD (arXiv 2501.07575), Jiacheng8/CV-DD 24097e9,
``recover/scripts/*/recover_sre2l_ipc50.sh``; FADRM (arXiv 2506.24125), Jiacheng8/FADRM f445e38, ``recover/``.

Published settings (Adam's rate, weight of the BatchNorm term, steps, jitter; crops):

========  ==============================  ==============================  =====================================
method    below 64 px                     64 px                           from 128 px
========  ==============================  ==============================  =====================================
dwa       0.25, 0.01, 1000, 4; none       0.1, 0.01, 2000, 4; 8 to 100 %  0.25, 0.01, 2000, 32; 8 to 100 %
          (CIFAR-100; variances x 11,     (variances x 11, 12 ascents)    (variances x 2, 15 ascents)
          12 ascents)
delt      0.25, 0.01, 4000, 0; CDA's curriculum (ImageNet-1K's scripts, the only ones; ``conv4`` at 64 px)
sre2l++   0.25, 0.01, 4000, 4; 8 to 100 %  as below                       0.25, 0.01, 4000, 32; 8 to 100 %
fadrm     0.25, 0.01, 4 x 500, 4          0.01, 0.01, 2 x 500, 4          0.25, 0.01, 4 x 500, 32 (sides 200 and
                                                                          224 px in turn); 8 to 100 % throughout
========  ==============================  ==============================  =====================================

Defaults: the scripts' values; ``ascent_gradients`` because DWA's code adds the gradients that the images get in the
ascents to those of their first step (the paper does not have them).

Deviations (beside SRe2L's: :mod:`baselines.sre2l.method`): DWA's code goes on from the moved weights where one index
has several batches (ImageNet-1K); here each batch moves the classifier's own weights, so that batches can be made in
any order. DELT's script for IPC 1 has one round; so has this at IPC 1. FADRM's code works in mixed precision; here
the precision is the run's, and no gradients are scaled. The first images of SRe2L++ and FADRM: see
:mod:`baselines.sre2l.starts`. None of the four mirrors digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from baselines.sre2l.method import SRe2L, SRe2LParams
from baselines.sre2l.recover import Settings, constant_crop, curriculum_crop
from baselines.sre2l.starts import DIFFICULTIES, mosaics, mosaics_stage, random_rows, ranked, scores, scores_stage
from benchmark.api import TEACHER, Stage, Task, Teacher, Unit, UsageError, Work, param

LR = (0.05, 0.1, 0.25)
R_BN = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Published:
    """Published values at one resolution."""

    lr: float
    iterations: int
    jitter: int
    crops: bool = True
    r_bn: float = 0.01


def by_size(size: int, small: Published, middle: Published, large: Published) -> Published:
    """The values for images of ``size`` pixels; below 32 px the jitter is an eighth of the side at most."""
    chosen = large if size >= 128 else middle if size >= 64 else small
    return replace(chosen, jitter=min(chosen.jitter, size // 8))


@dataclass(frozen=True)
class StartParams(SRe2LParams):
    """SRe2L's, and what images begin as."""

    lr: float = param(0.0, "Adam's rate; 0: published", "see the module", low=0.0, tune=LR)
    r_bn: float = param(-1.0, "weight of the BatchNorm term; -1: published", "0.01 in every script", tune=R_BN)
    jitter: int = param(-1, "largest shift, px; -1: published", "see the module", low=-1)
    crop: str = param("auto", "crop and flip at each step", "see the module", choices=("auto", "on", "off"))
    iterations: int = param(0, "optimisation steps; 0: published", "see the module", low=0)
    difficulty: str = param(
        "medium",
        "which images by the classifier's certainty, where the method ranks its first images",
        "DELT --selection-criteria medium; CV-DD, FADRM --patch-diff medium",
        choices=DIFFICULTIES,
    )
    squeeze: str = param(
        "",
        "classifier to recover from, or several that take turns, joined by +; empty: the run's teacher",
        "FADRM+ --teacher-model-list ResNet18 Densenet121 ShuffleNetV2 MobileNetV2",
    )


class Descendant(SRe2L):
    """What the four share: published values by size, real first images, several classifiers."""

    Params = StartParams
    several = True
    begins = "random"  # real images; "ranked": in order of difficulty; "mosaics": of crops in order of difficulty
    published: tuple[Published, Published, Published]  # below 64 px, below 128 px, from there on
    curriculum = False

    def settings(self, size: int) -> Settings:
        p, own = self.params, by_size(size, *self.published)
        crops = p.crop == "on" or (p.crop == "auto" and own.crops)
        return Settings(
            iterations=p.iterations or own.iterations,
            lr=p.lr or own.lr,
            r_bn=own.r_bn if p.r_bn < 0 else p.r_bn,
            first_bn=p.first_bn,
            jitter=own.jitter if p.jitter < 0 else p.jitter,
            flip=p.flip,
            smallest_crop=(curriculum_crop if self.curriculum else constant_crop) if crops else None,
        )

    def judge(self) -> str:
        """Name of the classifier that ranks, as a stage's input; empty: the run's teacher."""
        return self.params.squeeze.split("+")[0]

    def stages(self, task: Task) -> list[Stage]:
        labels = range(len(task.dataset.classes))
        if self.begins == "ranked":
            return [scores_stage(task, self.judge(), c) for c in labels]
        if self.begins == "mosaics":
            return [mosaics_stage(task, self.judge(), c, self.params.difficulty) for c in labels]
        return []

    def why_not(self, dataset, ipc: int) -> str:
        if self.begins == "mosaics":
            from baselines.rded import RDED, RDEDParams

            return RDED(RDEDParams()).why_not(dataset, ipc)
        for name, rows in zip(dataset.classes, dataset.train.by_class, strict=True):
            if ipc > len(rows):
                return f"IPC {ipc} needs as many images to begin with; class {name!r} has {len(rows)}"
        return super().why_not(dataset, ipc)

    def work_at(self, images: int, classes: int, ipc: int, image_size: int) -> list[Work]:
        from baselines.rded import RDEDParams

        network, found = self.judge() or TEACHER, super().work_at(images, classes, ipc, image_size)
        if self.begins == "ranked":
            found.append(Work("score", images, network=network, shared=True))
        if self.begins == "mosaics":
            crops = RDEDParams()
            found.append(Work("score", min(images, classes * crops.pool) * crops.crops, network=network))
        return found

    def start(self, task: Task, unit: Unit, teacher: Teacher) -> torch.Tensor:
        pixels = {}
        for label in sorted({c for c, _ in unit.cells}):
            if self.begins == "mosaics":
                pixels[label] = mosaics(task, teacher, self.judge(), label, self.params.difficulty)
                continue
            if self.begins == "ranked":
                order = ranked(scores(task, teacher, self.judge(), label), self.params.difficulty)[: task.ipc]
                rows = [int(task.train.by_class[label][i]) for i in order.tolist()]
            else:
                rows = random_rows(task, label, task.ipc)
            pixels[label] = task.train.images(rows)
        chosen = torch.stack([pixels[c][i] for c, i in unit.cells]).float() / 255
        return (chosen - teacher.mean.cpu()) / teacher.std.cpu()


@dataclass(frozen=True)
class DWAParams(StartParams):
    """DWA's."""

    radius: float = param(0.015, "length of all ascents together", "scripts/*.sh --rho 15e-3", low=0.0)
    ascents: int = param(0, "ascents on the weights; 0: published", "--steps 12, ImageNet-1K 15", low=0)
    r_var: float = param(0.0, "weight of the variances; 0: published", "--r-var 11, ImageNet-1K 2", low=0.0)
    ascent_gradients: bool = param(
        True, "the first step also follows the gradients of the ascents", "distillation_cifar.py adds them up"
    )


class DWA(Descendant):
    """Real images recovered from a classifier whose weights were first moved for each batch.

    Before a batch is optimised, the weights climb the cross-entropy of its first images, so each index is recovered
    from a network of its own; variances weigh more than means. Needs the run's teacher and training images; costs
    SRe2L's passes below 64 px and half of them from there on, and 12 or 15 backward passes a batch. Defaults are those
    of the authors' scripts.
    """

    Params = DWAParams
    published = (Published(0.25, 1000, 4, crops=False), Published(0.1, 2000, 4), Published(0.25, 2000, 32))
    quick = {"iterations": 3, "ascents": 2}

    def settings(self, size: int) -> Settings:
        p, large = self.params, size >= 128
        return replace(
            super().settings(size),
            radius=p.radius,
            ascents=p.ascents or (15 if large else 12),
            r_var=p.r_var or (2.0 if large else 11.0),
            ascent_gradients=p.ascent_gradients,
        )


@dataclass(frozen=True)
class DELTParams(StartParams):
    """DELT's."""

    rounds: int = param(8, "rounds; images enter evenly over them", "4000 steps, --round-iterations 500", low=1)
    batch: int = param(100, "images optimised together, class by class", "--batch-size 100", low=1)


class DELT(Descendant):
    """Real images of middling certainty, of which the first are optimised long and the last only briefly.

    A class's images enter over eight rounds, so the first get all steps and the last an eighth of them; crops shrink
    as in CDA. Needs the run's teacher and training images, which the teacher ranks once; costs about 0.6 of CDA's
    passes at the same number of steps from IPC 8 on. Defaults are those of the authors' scripts for ImageNet-1K.
    """

    Params = DELTParams
    quick = {"iterations": 8}
    begins, curriculum = "ranked", True
    published = (Published(0.25, 4000, 0), Published(0.25, 4000, 0), Published(0.25, 4000, 0))

    def units(self, task: Task) -> list[Unit]:
        """Batches of images, class by class: the images of a class share its rounds."""
        cells = [(c, i) for c in range(len(task.dataset.classes)) for i in range(task.ipc)]
        return [
            Unit(f"class {b[0][0]}, index {b[0][1]} to class {b[-1][0]}, index {b[-1][1]}", tuple(b))
            for b in (cells[k : k + self.params.batch] for k in range(0, len(cells), self.params.batch))
        ]

    def rounds(self, ipc: int) -> list[int]:
        """The round in which each of a class's images enters."""
        rounds = min(self.params.rounds, ipc)
        counts = [ipc // rounds + (r < ipc % rounds) for r in range(rounds)]
        return [r for r, count in enumerate(counts) for _ in range(count)]

    def enters(self, task: Task, unit: Unit) -> tuple[Sequence[int], int]:
        """Rounds before the batch's first image enters are left out, as the authors' code does."""
        steps = self.settings(task.dataset.image_size).iterations
        each, entry = max(1, steps // self.params.rounds), self.rounds(task.ipc)
        rounds = [entry[i] for _, i in unit.cells]
        first = min(rounds)
        return [each * (r - first) for r in rounds], steps - each * first

    def work_at(self, images: int, classes: int, ipc: int, image_size: int) -> list[Work]:
        steps = self.settings(image_size).iterations
        each = max(1, steps // self.params.rounds)
        recover, *others = super().work_at(images, classes, ipc, image_size)
        return [replace(recover, images=classes, steps=sum(steps - each * r for r in self.rounds(ipc))), *others]


class SRe2LPlusPlus(Descendant):
    """SRe2L from mosaics of real crops, with crops at each step at every resolution: CV-DD's baseline.

    Images begin as mosaics of crops that the classifier is moderately sure of and are optimised as in SRe2L. Needs the
    run's teacher and training images; costs what SRe2L costs at its ImageNet setting (4000 steps), four times that at
    32 px. Defaults are those of CV-DD's ``recover_sre2l_ipc50.sh``.
    """

    begins = "mosaics"
    published = (Published(0.25, 4000, 4), Published(0.25, 4000, 4), Published(0.25, 4000, 32))


@dataclass(frozen=True)
class FADRMParams(StartParams):
    """FADRM's."""

    kept: float = param(0.5, "share of the images that a segment takes over", "--alpha 0.5", low=0.0, high=1.0)
    segments: int = param(0, "segments; 0: published", "--optimization-budgets 500 500 500 500; Tiny 500 500", low=0)
    shrink: bool = param(True, "every other segment at 200/224 of the side, from 128 px on", "--input-size-lis")


class FADRM(Descendant):
    """SRe2L++ in segments: after each, half of the first mosaic is mixed in again, and sizes alternate.

    Between segments the image becomes the mean of itself and of the mosaic that it began as, which keeps real detail.
    Needs the run's teacher (or several in turn: ``squeeze=a+b``, FADRM+) and training images; costs half of SRe2L++.
    Defaults are those of the authors' ``recover_fadrm_ipc50.sh``.
    """

    Params = FADRMParams
    begins = "mosaics"
    published = (Published(0.25, 2000, 4), Published(0.01, 1000, 4), Published(0.25, 2000, 32))
    quick = {"iterations": 4}

    def settings(self, size: int) -> Settings:
        p, own = self.params, super().settings(size)
        count = min(own.iterations, p.segments or (2 if 64 <= size < 128 else 4))
        small = size * 200 // 224 if p.shrink and size >= 128 else size
        sizes = tuple(size if (count - k) % 2 else small for k in range(count))  # the last has the images' size
        return replace(own, kept=p.kept, sizes=sizes)

    def teachers(self, task: Task) -> list[Teacher]:
        """As in SRe2L.

        Raises:
            UsageError: one takes images of one size only, and segments have several.
        """
        found, channels = super().teachers(task), task.dataset.channels
        size = task.dataset.image_size
        for teacher in found:
            for side in sorted({*self.settings(size).sizes} - {size}):
                try:
                    teacher.model(torch.zeros(1, channels, side, side, device=task.device))
                except RuntimeError as error:
                    raise UsageError(
                        f"the classifier {teacher.name} takes no images of {side} px, at which {task.method} begins",
                        where="--teacher",
                        allowed="a network that pools to one position: resnet18, mobilenetv2 …",
                        hint=f"--set {task.method}.shrink=false keeps all segments at {size} px",
                    ) from error
        return found
