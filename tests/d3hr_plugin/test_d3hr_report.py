"""The diagnostics: numbers on data whose answer is known, and the whole report on a tiny backbone."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from d3hr_plugin import diagnostics
from d3hr_plugin.command import examine, tables


def test_normality_tells_normal_from_uniform():
    classes = np.repeat([0, 1], 200)
    g = torch.Generator().manual_seed(0)
    shift = torch.from_numpy(classes)[:, None] * 5.0  # classes differ; each is looked at by itself
    normal = diagnostics.normality(torch.randn(400, 60, generator=g) + shift, classes)
    uniform = diagnostics.normality(torch.rand(400, 60, generator=g) + shift, classes)
    skewed = diagnostics.normality(torch.randn(400, 60, generator=g).exp() + shift, classes)
    assert normal["rejected"] == pytest.approx(0.05, abs=0.05) and normal["skewness"] < 0.2
    assert uniform["rejected"] > 0.9 and uniform["excess_kurtosis"] > 1 and uniform["skewness"] < 0.2
    assert skewed["skewness"] > 1
    assert diagnostics.gaussian_floor((400, 60), classes)["rejected"] == pytest.approx(0.05, abs=0.05)


def test_report_on_a_tiny_backbone(make_task, tmp_path):
    task, method = make_task(ipc=3)
    found = examine(task, method, [0, 1], 7, tmp_path)
    for name in ("normality", "quantiles", "reconstruction", "score", "sheet"):
        assert Image.open(tmp_path / f"{name}.png").size[0] > 300
    json.dumps(found)
    assert {r["guidance"] for r in found["normality"]} == {1.0, 4.0}
    assert found["score"]["search"][0] > found["score"]["search"][-1]
    assert "released pair" in "\n".join(tables(found))


def test_command_is_registered_and_light():
    code = "import sys; from benchmark.cli import cli; cli.get_command(None, 'd3hr-report').get_help; "
    code += "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
