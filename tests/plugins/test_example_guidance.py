"""A paper that steers the sampler is a package of its own of at most 60 lines: particle guidance."""

import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch

from benchmark.core.store import Store
from benchmark.methods import Task, make_params
from benchmark.plugins import Registry
from benchmark.testing.bench import Bench

torch.set_num_threads(1)
PACKAGE = Path(__file__).parents[1] / "example_guidance"


@pytest.fixture
def method(monkeypatch):
    monkeypatch.syspath_prepend(str(PACKAGE))
    registry = Registry()
    registry.add(__import__("ddbench_particles"), "particles", "ddbench-particles 0.1")
    yield registry.get("method", "particles").load()
    sys.modules.pop("ddbench_particles")


def test_it_is_short_and_the_page_shows_it():
    code = (PACKAGE / "ddbench_particles.py").read_text()
    assert len(code.splitlines()) <= 60
    assert code[code.index("from dataclasses") :] in (PACKAGE.parents[1] / "docs" / "own-method.md").read_text()


def test_its_images_lie_further_apart_than_plain_samples(method, tmp_path, monkeypatch):
    """On the exact noise prediction of standard normal latents, handed over undecoded."""
    bench = Bench(tmp_path)
    power = bench.backbone.scheduler.alphas_cumprod
    monkeypatch.setattr(bench.backbone, "predict", lambda x, t, *_: ((1 - power[t]).sqrt() * x, None))
    monkeypatch.setattr(bench.backbone, "decode", lambda latents, size, channels: latents)

    def nearest(push: float) -> float:
        made = method(make_params(method, "particles", "four-digits", {"push": push}))
        task = Task("particles", bench.dataset, 4, 0, Store(tmp_path / "store"))
        task.load_backbone, task.backbone_key = (lambda: bench.backbone), bench.backbone.key
        latents = made.distill(task, made.units(task)[0])
        assert latents.shape == (4, *bench.backbone.latent_shape)
        return min(float((a - b).norm()) for a, b in combinations(latents, 2))

    assert nearest(1.0) > 1.1 * nearest(0.0)
