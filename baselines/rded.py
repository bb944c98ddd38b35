"""RDED: the most convincing crops of real images, stitched into mosaics.

Source: "On the Diversity and Realism of Distilled Dataset" (arXiv 2312.03526), repository LINs-lab/RDED,
``synthesize/main.py`` and ``synthesize/utils.py``. A class's images are made alone:

1. ``pool`` training images at random (theirs: ``--mipc 300``), ``crops`` square crops of each (``--num-crop 5``,
   area 8 % to 100 % of the image, antialiased bilinear) at 1/``factor`` of the resolution;
2. every crop, normalised and padded with zeros to the full resolution, gets the teacher's cross-entropy for its class;
3. each image keeps its best crop; the ``IPC * factor**2`` best images stay, best first;
4. patch j of mosaic i is the crop of rank ``j * IPC + i``.

Defaults: every script in ``scripts/`` uses mipc 300 and 5 crops, factor 1 at 32 and 64 px, 2 at 128 and 224 px.

Deviations: PNG instead of JPEG; rounded instead of truncated to 8 bits; the pool is the whole class where a class is
smaller than 300 images and grows where IPC * factor**2 is larger than 300; draws depend on (seed, class) alone.
The student's protocol (``rded-paper``) is not part of the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from baselines.crops import random_resized_crops, seeded
from benchmark.api import Method, Task, Unit, derive_seed, param

if TYPE_CHECKING:
    from benchmark.api import Dataset, Teacher

BATCH = 300  # crops a forward pass (theirs: one crop of each pooled image)
LARGE = 128  # px from which images are mosaics of 2 x 2


@dataclass(frozen=True)
class RDEDParams:
    """What RDED's scripts set."""

    pool: int = param(
        300, "training images a class to crop from", "RDED scripts/*.sh --mipc 300", low=1, tune=(100, 300)
    )
    crops: int = param(5, "crops an image", "RDED scripts/*_cr5.sh --num-crop 5", low=1, tune=(1, 5, 10))
    factor: int = param(
        0,
        "patches along a mosaic's side; 0: 1 below 128 px, else 2",
        "RDED scripts: 1 for CIFAR (32 px) and Tiny-ImageNet (64 px), 2 at 128 and 224 px",
        low=0,
        high=8,
    )
    scale: float = param(
        0.08,
        "smallest crop as a share of the image's area (low-resolution images may want larger ones: 0.6 of digits)",
        "synthesize/main.py: RandomResizedCrop's default",
        low=0.001,
        high=1.0,
        late=True,
        tune=(0.08, 0.3, 0.6),
    )


def crop_losses(teacher: Teacher, crops: torch.Tensor, label: int, size: int) -> torch.Tensor:
    """The teacher's cross-entropy for ``label`` of crops padded with the mean colour to ``size`` pixels.

    Args:
        crops: float ``[n, C, h, w]`` in 0..1.

    Returns:
        float ``[n]``.
    """
    space = size - crops.shape[-1]
    before, after = space // 2, space - space // 2
    losses = []
    for part in crops.split(BATCH):
        x = (part.to(teacher.device) - teacher.mean) / teacher.std
        padded = F.pad(x, (before, after, before, after))  # with zeros: the mean colour, as x is normalised
        logits = teacher.logits_of(padded, teacher.mean, teacher.std).float()
        target = torch.full((len(part),), label, device=logits.device)
        losses.append(F.cross_entropy(logits, target, reduction="none").cpu())
    return torch.cat(losses)


def select(crops: torch.Tensor, losses: torch.Tensor, keep: int) -> torch.Tensor:
    """Each image's best crop, then the ``keep`` best images, best first.

    Args:
        crops: ``[images, crops, C, h, w]``; losses: ``[images, crops]``.

    Returns:
        ``[keep, C, h, w]``.
    """
    best, index = losses.min(1)
    order = best.argsort(stable=True)[:keep]
    return crops[order, index[order]]


def stitch(patches: torch.Tensor, factor: int, size: int) -> torch.Tensor:
    """Mosaics of ``factor`` x ``factor`` patches; patch j (row by row) of mosaic i is ``patches[j * n + i]``.

    Args:
        patches: ``[n * factor**2, C, h, w]``. The first rows and columns are one pixel larger where ``size`` does not
            divide by ``factor``.

    Returns:
        ``[n, C, size, size]``.
    """
    sides = [size // factor + (k < size % factor) for k in range(factor)]
    groups = iter(patches.chunk(factor**2))
    rows = [torch.cat([F.interpolate(next(groups), (height, width)) for width in sides], dim=3) for height in sides]
    return torch.cat(rows, dim=2)


class RDED(Method):
    """Mosaics of the crops that the teacher is surest of.

    Five random crops of each of 300 images are scored by the teacher, and the best crops of different images are
    stitched (below 128 px they are left whole). Needs the run's teacher and training images; costs 1,500 forward
    passes a class. Defaults are those of all the authors' scripts.
    """

    Params = RDEDParams
    requires = frozenset({"teacher"})
    quick = {"pool": 12, "crops": 2}

    def factor(self, size: int) -> int:
        """Patches along a mosaic's side at this resolution."""
        return self.params.factor or (2 if size >= LARGE else 1)

    def why_not(self, dataset: Dataset, ipc: int) -> str:
        need = ipc * self.factor(dataset.image_size) ** 2
        for name, rows in zip(dataset.classes, dataset.train.by_class, strict=True):
            if need > len(rows):
                return f"IPC {ipc} needs {need} crops, each of another image; class {name!r} has {len(rows)} images"
        return ""

    def crops(self, task: Task, class_index: int) -> torch.Tensor:
        """The class's candidate crops, pixel values in 0..1: float ``[pool, crops, C, h, h]``."""
        size, factor = task.dataset.image_size, self.factor(task.dataset.image_size)
        rows = task.train.by_class[class_index]
        pool = min(len(rows), max(self.params.pool, task.ipc * factor**2))
        chosen = torch.randperm(len(rows), generator=task.generator(class_index, 0, "pool"))[:pool].tolist()
        mode = "L" if task.dataset.channels == 1 else "RGB"
        crops = []
        with seeded(derive_seed(task.seed, task.method, class_index, "crops")):
            for row in chosen:
                pixels = np.array(task.train.pil(int(rows[row])).convert(mode), dtype=np.float32) / 255
                image = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
                crops.append(
                    random_resized_crops(image, size // factor, self.params.crops, (self.params.scale, 1.0), (1.0, 1.0))
                )
        return torch.stack(crops)

    @torch.no_grad()
    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        size, factor = task.dataset.image_size, self.factor(task.dataset.image_size)
        ((label, _), *_) = unit.cells
        crops = self.crops(task, label)
        losses = crop_losses(task.teacher, crops.flatten(0, 1), label, size).view(crops.shape[:2])
        mosaics = stitch(select(crops, losses, task.ipc * factor**2), factor, size)
        return mosaics.mul(255).round().clamp(0, 255).byte()
