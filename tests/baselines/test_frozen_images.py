"""Frozen figures of every baseline's images: a change of output needs a new version number in ``baselines/plugin.py``.

The figures are (version, mean of all images, mean of the second one, standard deviation), in grey levels, of IPC 2 on
the tiny bench. When a method changes on purpose: raise its version there, then freeze the new figures here.
"""

import pytest
import torch

from benchmark.plugins import registry
from benchmark.testing.bench import Bench

torch.set_num_threads(1)
FIGURES = {
    "cao2": (1, 109.35, 116.36, 31.45),
    "cda": (1, 88.03, 113.66, 93.51),
    "cim": (2, 75.41, 92.42, 95.64),
    "d4m": (1, 110.25, 111.23, 44.83),
    "dc": (1, 93.36, 95.72, 94.97),
    "delt": (1, 77.50, 74.75, 113.96),
    "dit": (1, 110.19, 112.09, 34.53),
    "dm": (1, 75.14, 77.84, 95.57),
    "dsa": (1, 98.13, 105.03, 104.47),
    "dwa": (1, 81.91, 90.42, 109.49),
    "edc": (1, 75.60, 87.91, 95.97),
    "el2n": (1, 73.24, 84.73, 93.84),
    "fadrm": (1, 94.86, 104.02, 90.23),
    "forgetting": (1, 80.29, 86.41, 99.42),
    "gvbsm": (1, 82.75, 77.73, 78.26),
    "herding": (1, 75.31, 83.91, 95.68),
    "idc": (1, 76.99, 81.17, 97.64),
    "kcenter": (1, 78.27, 73.23, 97.61),
    "kmeans": (1, 77.19, 92.67, 96.82),
    "mgd3": (1, 110.90, 106.41, 29.66),
    "minimax": (1, 109.39, 104.45, 34.11),
    "noise": (1, 125.59, 129.19, 72.90),
    "random": (1, 74.94, 77.50, 95.83),
    "rded": (1, 107.78, 142.73, 93.54),
    "recon": (1, 111.18, 111.58, 41.18),
    "sre2l": (1, 90.64, 94.17, 100.83),
    "sre2l++": (1, 97.10, 120.48, 99.76),
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("frozen"))


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_images_are_those_of_this_version(bench, name):
    made = bench.images(name, 2, store=name)
    images = torch.stack([made[cell] for cell in sorted(made)]).double()
    version, *figures = FIGURES[name]
    assert registry().get("method", name).version == version, "freeze the figures of the new version"
    found = [float(v) for v in (images.mean(), images[1].mean(), images.std())]
    assert found == pytest.approx(figures, abs=0.3), "the output changed: raise the method's version"
