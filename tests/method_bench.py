"""A tiny data set, a tiny backbone folder and a tiny teacher on which every registered method can run in a moment."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel
from sklearn.datasets import load_digits

from benchmark.backbones import load_backbone
from benchmark.backbones.dit import make_scheduler
from benchmark.core.compute import Precision
from benchmark.core.store import Store
from benchmark.data.base import ArraySplit, Dataset
from benchmark.data.withheld import Withheld
from benchmark.methods import Task, make_params
from benchmark.plugins import registry
from benchmark.students import build_student
from benchmark.teachers import Teacher

CLASSES = 4
EACH = 14

# Settings that make a method quick; a method that is not named runs with its defaults.
QUICK = {
    "sre2l": {"iterations": 3},
    "cda": {"iterations": 3},
    "dwa": {"iterations": 3, "ascents": 2},
    "delt": {"iterations": 8},
    "sre2l++": {"iterations": 3},
    "fadrm": {"iterations": 4},
    "cim": {"iterations": 3, "factor": 1},
    "gvbsm": {"iterations": 4, "squeeze": "convnet3_bn+convnet3_in"},
    "edc": {"iterations": 4, "squeeze": "convnet3_bn+convnet3_in", "flatness": 0.25},
    "minimax": {"steps": 5, "phase": 2, "memory": 3, "sampling_steps": 3},
    "d4m": {"steps": 4},
    "mgd3": {"steps": 4, "stop": 1, "scale": 1.0},
    "cao2": {"steps": 4, "candidates": 2, "refine_steps": 2, "refine_levels": 2, "refine_lr": 0.05},
    "dit": {"steps": 3},
    "d3hr": {"steps": 4, "depth": 2, "m": 20, "invert_batch": 4, "decode_batch": 4, "start_step": 2},
    "d3hr-modes": {"steps": 4, "depth": 2, "invert_batch": 4, "decode_batch": 4},
    "dm": {"iterations": 4, "batch": 5, "group": 2},
    "dc": {"iterations": 2, "outer": 2, "inner": 2, "batch": 5},
    "dsa": {"iterations": 2, "outer": 2, "inner": 2, "batch": 5},
    "idc": {"iterations": 2, "inner": 2, "batch": 5, "images_net": 6, "batch_net": 4},
    "el2n": {"epochs": 2, "networks": 2, "batch": 20},
    "forgetting": {"epochs": 2, "batch": 20},
    "rded": {"pool": 12, "crops": 2},
}


def make_dataset() -> Dataset:
    """Four classes of handwritten digits, 14 images each, without a test split."""
    bunch = load_digits()
    rows = np.concatenate([np.flatnonzero(bunch.target == c)[:EACH] for c in range(CLASSES)])
    images = np.rint(bunch.images[rows] * (255 / 16)).astype(np.uint8)
    names = tuple("0123"[:CLASSES])
    train = ArraySplit(images, bunch.target[rows])
    return Dataset("four-digits", names, names, 8, 1, train, Withheld(), "four-digits", (0.3,), (0.37,))


def write_backbone(path) -> None:
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
        num_embeds_ada_norm=CLASSES,
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
    """Makes tasks on stores below ``root``; everything else is shared."""

    def __init__(self, root) -> None:
        self.root, self.dataset = root, make_dataset()
        write_backbone(root / "backbone")
        self.backbone = load_backbone(root / "backbone", self.dataset, "cpu", Precision(), "tiny-backbone")
        self.teacher = make_teacher(self.dataset, name="tiny")

    def task(self, name: str, ipc: int, seed: int = 0, store: str = "store", **params):
        """(method, task, units) as the pipeline makes them."""
        cls = registry().get("method", name).load()
        method = cls(make_params(cls, name, self.dataset.name, {**QUICK.get(name, {}), **params}))
        reason = method.supports(self.dataset, ipc)
        assert not reason, reason
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
