"""Tasks on random images with a tiny random backbone."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from tiny_backbone import tiny_backbone

from benchmark.core.store import Store
from benchmark.data.base import ArraySplit, Dataset
from benchmark.methods import Task, make_params
from d3hr_plugin import diagnostics
from d3hr_plugin import method as plugin
from d3hr_plugin.method import D3HR

os.environ["DDBENCH_PROGRESS"] = "0"
torch.set_num_threads(1)


@pytest.fixture
def backbone():
    return tiny_backbone()


@pytest.fixture
def make_task(tmp_path, monkeypatch):
    """A task on random images, and the latents that the fake cache gives for each class."""
    latents = {c: torch.randn(n, 4, 4, 4, generator=torch.Generator().manual_seed(c)) for c, n in enumerate([13, 7, 3])}

    def fake_latents(task, class_index, sample, chunk=64, resize="bicubic"):
        yield from latents[class_index].split(chunk)

    for module in (diagnostics, plugin):
        monkeypatch.setattr(module, "class_latents", fake_latents)
    labels = np.repeat(np.arange(3), [13, 7, 3])
    split = ArraySplit(np.zeros((23, 4, 4), np.uint8), labels)
    dataset = Dataset("toy", ("a", "b", "c"), ("a", "b", "c"), 4, 1, split, split, "toy-digest", (0.5,), (0.5,))

    def make(ipc: int = 4, seed: int = 0, backbone=None, store: str = "store", **params):
        bone = backbone or tiny_backbone(3)
        task = Task("d3hr", dataset, ipc, seed, Store(tmp_path / store))
        task.load_backbone, task.backbone_key = (lambda: bone), bone.key
        given = {"steps": 10, "depth": 6, "m": 50, "invert_batch": 4, **params}
        return task, D3HR(make_params(D3HR, "d3hr", "toy", given))

    make.latents = latents
    return make
