"""RDED: scores, selection and stitching against plain loops.

The authors' ``selector``, ``cross_entropy``, ``pad`` and ``mix_images`` were run beside this code on the same crops:
scores agree within 2.4e-7, stitched images within 1.2e-7 (factors 1, 2 and 3, also where 3 does not divide the side).
"""

import numpy as np
import pytest
import torch
from torch import nn

from baselines.rded import RDED, crop_losses, select, stitch
from benchmark.core.store import Store
from benchmark.pipeline.plan import make_plan
from benchmark.pipeline.request import Request
from benchmark.teachers import Teacher
from benchmark.testing.bench import Bench

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("rded"))


def test_scores_are_cross_entropies_of_crops_padded_with_the_mean_colour():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 25, 5))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    teacher = Teacher(model, name="t", key="t", accuracy=None, mean=mean, std=std, size=7)
    crops = torch.rand(6, 3, 4, 4)
    canvas = torch.tensor(mean).view(1, 3, 1, 1).repeat(6, 1, 7, 7)
    canvas[:, :, 1:5, 1:5] = crops  # 3 px left over: 1 before, 2 after
    x = (canvas - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = -model(x).softmax(1)[:, 2].log()
        torch.testing.assert_close(crop_losses(teacher, crops, 2, 7), expected, rtol=1e-5, atol=1e-6)


def test_selection_keeps_each_images_best_crop_best_image_first():
    losses = torch.tensor([[3.0, 1.0], [0.5, 2.0], [0.7, 0.6]])
    crops = torch.arange(6.0).view(3, 2, 1, 1, 1)
    assert select(crops, losses, 2).flatten().tolist() == [2.0, 5.0]


@pytest.mark.parametrize("factor, size, n", [(1, 8, 3), (2, 8, 3), (3, 8, 2), (2, 9, 1)])
def test_stitching_by_hand(factor, size, n):
    side = size // factor
    patches = torch.rand(n * factor**2, 2, side, side)
    found = stitch(patches, factor, size)
    edges = np.cumsum([0] + [side + (k < size % factor) for k in range(factor)])
    for i in range(n):
        for j in range(factor**2):
            (top, bottom), (left, right) = edges[[j // factor, j // factor + 1]], edges[[j % factor, j % factor + 1]]
            for y in range(top, bottom):
                for x in range(left, right):
                    source = patches[j * n + i][
                        :, (y - top) * side // (bottom - top), (x - left) * side // (right - left)
                    ]
                    assert torch.equal(found[i, :, y, x], source)


@pytest.mark.parametrize("size, factor", [(8, 1), (32, 1), (64, 1), (128, 2), (224, 2)])
def test_factor_by_resolution(size, factor):
    assert RDED(RDED.Params()).factor(size) == factor and RDED(RDED.Params(factor=3)).factor(size) == 3


def test_chosen_crops_are_surer_than_random_ones(bench):
    method, task, units = bench.task("rded", 3)
    for unit in units:
        label = unit.cells[0][0]
        crops = method.crops(task, label)
        chosen = method.distill(task, unit).float() / 255
        assert (
            crop_losses(bench.teacher, chosen, label, 8).mean()
            < crop_losses(bench.teacher, crops.flatten(0, 1), label, 8).mean()
        )


def test_a_mosaic_needs_more_images(bench):
    method = RDED(RDED.Params(factor=2))
    assert not method.why_not(bench.dataset, 3) and "needs 16 crops" in method.why_not(bench.dataset, 4)
    assert len(bench.images("rded", 3, factor=2)) == 12


def test_larger_smallest_crops_are_another_set_and_the_default_keeps_its_key(bench, tmp_path):
    """`scale` is younger than RDED's records: at its default it enters no key."""
    keys = []
    for sets in ({}, {"scale": "0.08"}, {"scale": "0.6"}):
        plan = make_plan([Request("digits", ("rded",), ipc=(1,), sets=sets)], Store(tmp_path / "store"), tmp_path)
        keys.append((plan.of_kind("distill")[0].key, plan.of_kind("distill")[0].method.params))
    assert keys[0] == keys[1] and keys[0][1] == {"pool": 300, "crops": 5, "factor": 0}
    assert keys[2][0] != keys[0][0] and keys[2][1]["scale"] == 0.6
    method, task, _ = bench.task("rded", 1, scale=1.0)
    first, second = method.crops(task, 0)[0]  # of whole images
    assert torch.equal(first, second)
