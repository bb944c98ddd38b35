"""CIM: mosaics of the surest real images, corrected until a classifier sees the originals in their tiles.

Source: "Condensing Large-Scale Datasets Directly with Minimal Information Loss" (ECCV 2026, RDED's authors),
repository LINs-lab/CIM @ea71377, ``condense/condense.py``, ``condense/utils.py``, ``data/utils/transforms.py`` and
``scripts/``. A class's images are made alone:

1. of its first ``pool`` training images the ``IPC * factor**2`` with the lowest cross-entropy are kept, surest first;
2. they become mosaics as RDED's crops do (:func:`baselines.rded.stitch`: image j * IPC + i is tile j of mosaic i);
3. a correction of the mosaics, zero at first, is optimised (AdamW): each tile is enlarged to the full side (bilinear)
   and must give the features of the real image that it shows, both augmented by one common draw (flip, shift with
   zeros, cutout); the loss is the mean absolute difference of the features, summed over the images.

Defaults: the scripts' and ``argument.py``'s values; AdamW's weight decay is PyTorch's, which the code leaves alone.
``layer`` 0 is what the scripts match: what enters the classifier, but from 128 px on the input of a ResNet's third
stage.

Quirks kept: the paper's squared difference is the code's absolute one; a side that does not divide by ``factor`` is
tiled as RDED tiles it and cut as if padded at the end. Deviations: the corrected mosaics are clipped to 0..255 and
stored as PNG (theirs are tensors that are never clipped); the pool is the whole class where a class is smaller, and
grows where ``IPC * factor**2`` is larger; digits are not mirrored. Of the images everything but the draws of the
augmentation is the same for every seed. Students train on the enlarged tiles of each mosaic (`Method.tiles`; theirs
see the whole mosaic once in four times); the rest of the student's protocol (the mean squared difference from the
teacher's logits) is not part of the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from baselines.crops import seeded
from baselines.rded import BATCH, LARGE, stitch
from benchmark.api import TEACHER, Enlarged, Method, Task, Unit, UsageError, Work, decode, derive_seed, param

if TYPE_CHECKING:
    from benchmark.api import Dataset, Teacher

SHIFT, CUTOUT = 0.125, 0.5  # of the side: ratio_crop_pad and ratio_cutout


@dataclass(frozen=True)
class CIMParams:
    """What CIM's scripts set."""

    pool: int = param(
        0, "first images a class to choose from; 0: published", "--mipc 300; IPC 100: 500, IPC 200: 1000", low=0
    )
    factor: int = param(2, "tiles along a mosaic's side", "argument.py --factor 2", low=1, high=8, tune=(1, 2))
    iterations: int = param(200, "steps of the correction", "argument.py --niter 200", low=0, tune=(50, 200))
    lr: float = param(0.01, "AdamW's rate", "condense.py", low=0.0, tune=(0.003, 0.01, 0.03))
    weight_decay: float = param(0.01, "AdamW's weight decay", "PyTorch's default", low=0.0)
    layer: int = param(
        0,
        "child of the network whose input is matched, counted from the end (-1: the classifier); 0: published",
        "scripts: --depth -1, ImageNet's ResNet-18 -4 (its third stage), ConvNets the last block",
        high=0,
    )
    flip: bool = param(True, "mirror in the common augmentation", "--dsa_strategy crop_cutout_flip")


def surest(teacher: Teacher, images: torch.Tensor, label: int, keep: int) -> torch.Tensor:
    """Positions of the ``keep`` images (uint8 ``[n, C, H, W]``) of lowest cross-entropy for ``label``, lowest first."""
    logits = teacher.logits(images, BATCH)
    losses = F.cross_entropy(logits, torch.full((len(logits),), label, device=logits.device), reduction="none")
    return losses.argsort(stable=True)[:keep].cpu()


def augment(x: torch.Tensor, flip: bool) -> torch.Tensor:
    """One flip, one shift filled with zeros and one cutout for the whole batch, from torch's global generator.

    DSA's operations (``DiffAug`` with ``batch=True``) on normalised images ``[n, C, H, H]``.
    """
    side = x.shape[-1]
    if flip and torch.rand(1) < 0.5:
        x = x.flip(3)
    reach = int(side * SHIFT + 0.5)
    down, right = (int(torch.randint(-reach, reach + 1, (1,))) for _ in range(2))
    padded = F.pad(x, (reach,) * 4)
    x = padded[:, :, reach + down : reach + down + side, reach + right : reach + right + side]
    hole = int(side * CUTOUT + 0.5)
    top, left = (int(torch.randint(0, side + 1 - hole % 2, (1,))) - hole // 2 for _ in range(2))
    mask = torch.ones(side, side)
    mask[max(0, top) : max(0, top + hole), max(0, left) : max(0, left + hole)] = 0
    return x * mask.to(x.device, x.dtype, non_blocking=True)


def matched_layer(model: nn.Module, layer: int, side: int) -> nn.Module:
    """The module whose input is matched; see `CIMParams.layer`.

    Raises:
        UsageError: the network has not so many children.
    """
    model = model.model if isinstance(model, Enlarged) else model
    children = dict(model.named_children())
    if layer == 0 and side >= LARGE and "layer3" in children:
        return children["layer3"]
    if layer in (0, -1):
        return [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    if -layer > len(children):
        raise UsageError(
            f"the classifier has no child {layer} to match",
            where=f"--set cim.layer={layer}",
            allowed=f"-1 to -{len(children)} ({', '.join(reversed(children))}), or 0",
        )
    return list(children.values())[layer]


def features(model: nn.Module, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What enters ``layer`` when ``model`` sees ``x``: ``[n, d]``."""
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].flatten(1)))
    try:
        model(x)
    finally:
        hook.remove()
    return seen[0]


def difference(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Sum over images of the mean absolute difference of their features ``[n, d]``."""
    return (found - wanted).abs().mean(1).sum()


def correct(
    model: nn.Module,
    layer: nn.Module,
    real: torch.Tensor,
    mosaics: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    params: CIMParams,
    seed: int,
) -> torch.Tensor:
    """The mosaics, optimised.

    Args:
        real: float ``[factor**2 * n, C, H, H]``, pixels in 0..1; image j * n + i is tile j of mosaic i.
        mosaics: float ``[n, C, H, H]``.

    Returns:
        ``[n, C, H, H]``, not clipped.
    """
    delta = torch.zeros_like(mosaics).requires_grad_(True)
    optimizer = torch.optim.AdamW([delta], params.lr, weight_decay=params.weight_decay)
    with seeded(seed):
        for _ in range(params.iterations):
            both = torch.cat([real, decode(mosaics + delta, params.factor)])
            seen = features(model, layer, augment((both - mean) / std, params.flip))
            (delta.grad,) = torch.autograd.grad(difference(*seen.chunk(2)), delta)
            optimizer.step()
    return (mosaics + delta).detach()


class CIM(Method):
    """Mosaics of the real images that the teacher is surest of, corrected to give the originals' features.

    The surest real images of a class are shrunk into mosaics, and 200 steps change the mosaics until the teacher's
    features of each enlarged tile are those of the image it shows. Needs the run's teacher and training images; costs
    200 forward and backward passes over two images a tile. Defaults are those of the authors' scripts.
    """

    Params = CIMParams
    requires = frozenset({"teacher"})
    trains = True
    quick = {"iterations": 3, "factor": 1}

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        return {"flip": False} if dataset.partition("@")[0] == "digits" else {}  # a mirrored digit is none

    def pool(self, ipc: int) -> int:
        """Images a class to choose from at this IPC."""
        return self.params.pool or (1000 if ipc >= 200 else 500 if ipc >= 100 else 300)

    def why_not(self, dataset: Dataset, ipc: int) -> str:
        need = ipc * self.params.factor**2
        for name, rows in zip(dataset.classes, dataset.train.by_class, strict=True):
            if need > len(rows):
                return f"IPC {ipc} needs {need} images; class {name!r} has {len(rows)}"
        return ""

    def tiles(self, dataset: Dataset) -> int:
        return self.params.factor

    def work(self, images: int, classes: int, ipc: int) -> list[Work]:
        pairs = 2 * classes * ipc * self.params.factor**2
        scored = Work("score", min(images, classes * self.pool(ipc)), network=TEACHER)
        return [scored, Work("recover", pairs, self.params.iterations, network=TEACHER)]

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        p, teacher, size = self.params, task.teacher, task.dataset.image_size
        ((label, _), *_) = unit.cells
        keep = task.ipc * p.factor**2
        pool = task.train.images(task.train.by_class[label][: max(self.pool(task.ipc), keep)])
        chosen = pool[surest(teacher, pool, label, keep)].float() / 255
        mosaics = stitch(chosen, p.factor, size).to(task.device)
        model = teacher.model if teacher.size == size else Enlarged(teacher.model, teacher.size)
        layer = matched_layer(model, p.layer, size)
        seed = derive_seed(task.seed, task.method, label, "augment")
        with task.precision.context(task.device):
            x = correct(model, layer, chosen.to(task.device), mosaics, teacher.mean, teacher.std, p, seed)
        return x.mul(255).round().clamp(0, 255).byte().cpu()
