"""A tiny data set, a tiny backbone folder and a tiny teacher on which every registered method can run in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel
from sklearn.datasets import load_digits

from benchmark.backbones import load_backbone
from benchmark.backbones.dit import make_scheduler
from benchmark.core.compute import Precision
from benchmark.core.errors import UsageError
from benchmark.core.store import Store
from benchmark.data.base import ArraySplit, Dataset
from benchmark.data.withheld import Withheld
from benchmark.methods import Method, Task, make_params
from benchmark.plugins import registry
from benchmark.students import build_student
from benchmark.teachers import Teacher

CLASSES = 4
EACH = 14


def make_dataset() -> Dataset:
    """Four classes of handwritten digits, 14 images each, without a test split."""
    bunch = load_digits()
    rows = np.concatenate([np.flatnonzero(bunch.target == c)[:EACH] for c in range(CLASSES)])
    images = np.rint(bunch.images[rows] * (255 / 16)).astype(np.uint8)
    names = tuple("0123"[:CLASSES])
    train = ArraySplit(images, bunch.target[rows])
    return Dataset("four-digits", names, names, 8, 1, train, Withheld(), "four-digits", (0.3,), (0.37,))


def write_backbone(path: Path, classes: int = CLASSES) -> None:
    """A random DiTPipeline of 2x4x4 latents, with weights in the layers that start at zero."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        latent_channels=2,
        sample_size=8,
        scaling_factor=0.5,
    )
    dit = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=2,
        out_channels=4,
        num_layers=2,
        sample_size=4,
        num_embeds_ada_norm=classes,
    )
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    DiTPipeline(dit, vae, make_scheduler()).save_pretrained(path)


def make_teacher(dataset: Dataset, student: str = "convnet3_bn", name: str = "", device: str = "cpu") -> Teacher:
    """An untrained network with BatchNorm."""
    model = build_student(student, CLASSES, dataset.channels, dataset.image_size, 0)
    known = {"name": name or student, "key": f"{name or student}-teacher", "accuracy": 50.0, "device": device}
    return Teacher(model, mean=dataset.mean, std=dataset.std, size=dataset.image_size, **known)


class Bench:
    """Makes tasks on stores below ``root``; everything else is shared.

    ``classes`` holds methods that are not registered, by name.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.dataset = root, make_dataset()
        self.classes: dict[str, type[Method]] = {}
        write_backbone(root / "backbone")
        self.backbone = load_backbone(root / "backbone", self.dataset, "cpu", Precision(), "tiny-backbone")
        self.teacher = make_teacher(self.dataset, name="tiny")

    def task(self, name: str, ipc: int, seed: int = 0, store: str = "store", **params):
        """(method, task, units) as the pipeline makes them, with the method's `quick` parameters and ``params``.

        Raises:
            UsageError: no such method or parameter, or the method cannot make this IPC.
        """
        cls = self.classes.get(name) or registry().get("method", name).load()
        method = cls(make_params(cls, name, self.dataset.name, {**cls.quick, **params}))
        reason = method.why_not(self.dataset, ipc)
        if reason:
            raise UsageError(f"{name} cannot make IPC {ipc} of {self.dataset.name}: {reason}", where="why_not")
        task = Task(name, self.dataset, ipc, seed, Store(self.root / store))
        if method.needs().backbone:
            task.load_backbone, task.backbone_key = (lambda: self.backbone), self.backbone.key
        if method.needs().teacher:
            task.load_teacher, task.teacher_key = (lambda: self.teacher), self.teacher.key
        if named := method.classifiers(self.dataset):
            task.load_classifiers = lambda label: [
                make_teacher(self.dataset, n, device=task.device) for n in named[label].split("+")
            ]
        return method, task, method.units(task)

    def images(self, name: str, ipc: int, seed: int = 0, store: str = "store", turn: int = 1, **params) -> dict:
        """All images by (class, index), the units made in order (``turn`` 1) or backwards (-1)."""
        method, task, units = self.task(name, ipc, seed, store, **params)
        found = {}
        for unit in units[::turn]:
            found.update(zip(unit.cells, method.distill(task, unit), strict=True))
        return found
