"""What every registered method must keep, built in or not."""

from __future__ import annotations

import json

import pytest
import torch

from benchmark.pipeline.jobs.distill import shared_seconds
from benchmark.plugins import registry
from benchmark.testing import check_method
from benchmark.testing.bench import Bench

torch.set_num_threads(1)
METHODS = registry().names("method")
KEYED = {"d4m", "herding", "kmeans", "sre2l++"}  # whose stages' keys are tried here; those of all take 95 s
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
def test_every_rule_of_the_contract_is_kept(bench, name):
    """As `ddbench check` says to authors of methods outside this repository."""
    left_out = () if name in KEYED else ("keys",)
    assert not any(check_method(bench, name, left_out=left_out).values())


@pytest.mark.parametrize("name", [m for m in METHODS if m not in PICKY])
def test_seeds_differ(bench, name):
    first, second = (bench.images(name, 2, seed=seed, store=f"{name}-seeds") for seed in (0, 1))
    assert not equal(first, second)


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
