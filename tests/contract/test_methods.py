"""What every registered method must keep, built in or not."""

from __future__ import annotations

import json

import pytest
import torch
from method_bench import CLASSES, Bench

from benchmark.core.store import Store
from benchmark.data.withheld import WithheldError
from benchmark.methods import Method
from benchmark.pipeline.outcomes import shared_seconds
from benchmark.plugins import registry

torch.set_num_threads(1)
METHODS = registry().names("method")
PICKY = {"cim", "el2n", "herding", "kmeans"}  # choose real images; every seed may choose the same ones


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("methods"))


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_all_the_promised_methods_are_registered():
    promised = {"d3hr", "sre2l", "cda", "d4m", "minimax", "rded"}
    floors = {"random", "kmeans", "herding", "dit", "recon", "noise"}
    assert promised | floors <= set(METHODS) and not registry().broken


@pytest.mark.parametrize("name", METHODS)
def test_class_attributes_mean_what_the_contract_says(name):
    """A subclass that takes one of these names for something of its own breaks `--preset` or `plan`."""
    cls = registry().get("method", name).load()
    for attribute in ("Params", "requires", "presets", "trains"):
        assert isinstance(getattr(cls, attribute), type(getattr(Method, attribute))), attribute


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("ipc", [1, 10])
def test_right_images_in_right_numbers(bench, name, ipc):
    _, _, units = bench.task(name, ipc)
    cells = [cell for unit in units for cell in unit.cells]
    assert sorted(cells) == [(c, i) for c in range(CLASSES) for i in range(ipc)]
    made = bench.images(name, ipc, store=f"{name}-{ipc}")
    assert all(image.dtype == torch.uint8 and image.shape == (1, 8, 8) for image in made.values())


@pytest.mark.parametrize("name", METHODS)
def test_order_of_units_and_repetition_change_nothing(bench, name):
    first = bench.images(name, 10, store=f"{name}-10")
    assert equal(first, bench.images(name, 10, store=f"{name}-10"))  # from what the store kept
    assert equal(first, bench.images(name, 10, store=f"{name}-backwards", turn=-1))  # made anew, last unit first


@pytest.mark.parametrize("name", [m for m in METHODS if m not in PICKY])
def test_seeds_differ(bench, name):
    first, second = (bench.images(name, 2, seed=seed, store=f"{name}-seeds") for seed in (0, 1))
    assert not equal(first, second)


def test_these_checks_can_fail(bench, monkeypatch):
    """A method that draws from torch's global state depends on the order of units; one that looks at the test split
    is stopped."""
    from baselines.noise import Noise

    def careless(self, task, unit):
        return torch.randint(0, 256, (len(unit.cells), 1, 8, 8), dtype=torch.uint8)

    monkeypatch.setattr(Noise, "distill", careless)
    torch.manual_seed(0)
    first = bench.images("noise", 2)
    torch.manual_seed(0)
    assert not equal(first, bench.images("noise", 2, turn=-1))
    for look in (lambda test: test.labels, lambda test: test.images([0]), lambda test: test.pil(0), len):
        with pytest.raises(WithheldError, match="a method never sees the test split"):
            look(bench.dataset.test)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("name", METHODS)
def test_a_killed_distillation_resumes_to_the_same_images(bench, name, monkeypatch):
    whole = bench.images(name, 2, store=f"{name}-whole")
    forward, calls = torch.nn.Conv2d.forward, [0]

    def dying(self, x):
        calls[0] += 1
        if calls[0] in limits:
            raise Killed
        return forward(self, x)

    limits: set[int] = set()
    monkeypatch.setattr(torch.nn.Conv2d, "forward", dying)
    bench.images(name, 2, store=f"{name}-counted")
    limits = {calls[0] // 4, calls[0] // 2}  # the second one counts from where the first one ended
    calls[0], kills = 0, 0
    while True:
        try:
            resumed = bench.images(name, 2, store=f"{name}-killed")
            break
        except Killed:
            kills += 1
    assert equal(whole, resumed)
    assert kills or not limits - {0}


@pytest.mark.parametrize("name", METHODS)
def test_declared_stages_are_those_that_are_built(bench, name):
    method, task, units = bench.task(name, 2, store=f"{name}-stages")
    declared = method.stages(task)
    for unit in units:
        method.distill(task, unit)
    assert all(Store(bench.root / f"{name}-stages").has(stage) for stage in declared)


@pytest.mark.parametrize("name", METHODS)
def test_whatever_a_set_takes_from_the_store_is_counted(bench, name):
    """The VAE's latents of the training split too, which no method declares as a stage of its own."""
    method, task, units = bench.task(name, 2, store=f"{name}-seconds")
    for unit in units:
        method.distill(task, unit)
    made = [json.loads(p.read_text()) for p in task.store.root.glob("artifacts/*/*/artifact.json")]
    encoded = [m["seconds"] for m in made if m["stage"]["stage"] == "backbone.latents"]
    latent = ("d3hr", "d3hr-modes", "d4m", "mgd3", "minimax")
    assert len(encoded) == (len(task.dataset.classes) if name in latent else 0)
    assert shared_seconds(method, task) == pytest.approx(sum(m["seconds"] for m in made))
    assert not encoded or sum(encoded) > 0


@pytest.mark.parametrize("changed", [{"invert_batch": 5}, {"decode_batch": 3}])
def test_another_chunk_size_agrees_within_one_grey_level(bench, changed):
    """Chunk sizes are in the key because sums round differently; the images may not differ to the eye."""
    first = bench.images("d3hr", 10, store="d3hr-10")
    other = bench.images("d3hr", 10, store=f"d3hr-{next(iter(changed))}", **changed)
    assert max(int((first[cell].int() - other[cell].int()).abs().max()) for cell in first) <= 1
