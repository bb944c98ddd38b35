"""What recovered images begin as: real images or mosaics of crops, drawn at random or by how sure a classifier is.

Sources: DWA (``readme.md``: images sampled at random), DELT (``data_selection.py``: images in the order of the
classifier's probability for their class, from the middle outwards), CV-DD and FADRM (``--initialisation-method
Patches --patch-diff medium``). The patches of the last two are a download, and neither repository has the script that
made them; here they are RDED's mosaics, of the crops in the middle of the order instead of the surest ones.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from baselines.rded import RDED, RDEDParams, crop_losses, stitch
from benchmark.api import Stage, Task, Teacher

DIFFICULTIES = ("easy", "medium", "hard")


def ranked(scores: torch.Tensor, difficulty: str) -> torch.Tensor:
    """Positions of ``scores`` ``[n]`` (higher is surer) in the order in which images are taken.

    ``easy``: the surest first; ``hard``: the least sure first; ``medium``: from the middle of the ascending order
    outwards: m, m + 1, m - 1, m + 2 … with m = ⌈n / 2⌉ (positions count from 0, as the authors' do).
    """
    ascending = scores.argsort(stable=True)
    if difficulty == "hard":
        return ascending
    if difficulty == "easy":
        return (-scores).argsort(stable=True)
    n = len(scores)
    middle = (n + 1) // 2
    walk = [middle + (step + 1) // 2 * (1 if step % 2 else -1) for step in range(2 * n + 2)]
    return ascending[[p for p in walk if 0 <= p < n]]


def scores_stage(task: Task, classifier: str, label: int) -> Stage:
    """The stage of :func:`scores`."""
    return task.stage("sre2l.scores", 1, class_index=label, classifier=classifier)


def scores(task: Task, teacher: Teacher, classifier: str, label: int) -> torch.Tensor:
    """The teacher's probability of their class for the class's training images, float32 ``[n]``, from the store."""

    def make(folder: Path) -> None:
        rows, parts = task.train.by_class[label], []
        for first in range(0, len(rows), 500):
            logits = teacher.logits(task.train.images(rows[first : first + 500]))
            parts.append(logits.softmax(1)[:, label].cpu())
        save_file({"scores": torch.cat(parts)}, folder / "scores.safetensors")

    return load_file(task.artifact(scores_stage(task, classifier, label), make) / "scores.safetensors")["scores"]


def mosaics_stage(task: Task, classifier: str, label: int, difficulty: str) -> Stage:
    """The stage of :func:`mosaics`."""
    settings = {"difficulty": difficulty, "ipc": task.ipc, "method": task.method, "cls": label}
    return task.stage("sre2l.mosaics", 1, seeded=True, classifier=classifier, **settings)


def mosaics(task: Task, teacher: Teacher, classifier: str, label: int, difficulty: str) -> torch.Tensor:
    """The class's mosaics of RDED's crops (its defaults) of the given difficulty: uint8 ``[ipc, C, H, W]``.

    The crop of each image is the one that the teacher is surest of; images are taken by ``ranked``.
    """

    def make(folder: Path) -> None:
        size, source = task.dataset.image_size, RDED(RDEDParams())
        factor = source.factor(size)
        crops = source.crops(task, label)
        losses = crop_losses(teacher, crops.flatten(0, 1), label, size).view(crops.shape[:2])
        best, index = losses.min(1)
        order = ranked(-best, difficulty)[: task.ipc * factor**2]
        made = stitch(crops[order, index[order]], factor, size)
        images = made.mul(255).round().clamp(0, 255).byte()
        save_file({"images": images.contiguous()}, folder / "images.safetensors")

    stage = mosaics_stage(task, classifier, label, difficulty)
    with torch.no_grad():
        return load_file(task.artifact(stage, make) / "images.safetensors")["images"]


def random_rows(task: Task, label: int, count: int) -> list[int]:
    """Positions in the training split of ``count`` of the class's images, drawn without repetition where it has so
    many."""
    rows = task.train.by_class[label]
    order = torch.randperm(len(rows), generator=task.generator(label, 0, "start"))
    return [int(rows[order[i % len(rows)]]) for i in range(count)]
