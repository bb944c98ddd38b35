"""Class models beside the Gaussian, selection by features, and the method d3hr-modes."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from benchmark.backbones.stages import latents_stage
from benchmark.core.errors import UsageError
from benchmark.data.base import ArraySplit, Dataset
from benchmark.methods import make_params
from benchmark.pipeline import plan
from d3hr_plugin import models, selection
from d3hr_plugin.method import D3HR
from d3hr_plugin.modes import D3HRModes
from d3hr_plugin.params import Params

CENTRES = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 9.0]])
OWNER = torch.tensor([1] * 12 + [0] * 8 + [2] * 5)
BLOBS = CENTRES[OWNER] + torch.randn(25, 3, generator=torch.Generator().manual_seed(0))

# What keys and records of d3hr have held since its version 3; a parameter that is added must be `late`.
RECORDED = {
    "domain", "steps", "depth", "invert_guidance", "invert_solver", "invert_stride", "invert_images", "invert_batch",
    "sample_posterior", "sampler", "m", "score", "weight_mean", "weight_std", "lambda_skew", "spread", "start_step",
    "ending", "decode_guidance", "decode_batch",
}  # fmt: skip


def test_k_means_finds_the_modes_the_largest_first():
    found = models.k_means(BLOBS, 3, ("a",))
    assert found.sizes.tolist() == [12, 8, 5]
    assert torch.equal(found.owner, torch.tensor([0] * 12 + [1] * 8 + [2] * 5))
    torch.testing.assert_close(found.centres[0], BLOBS[:12].mean(0))
    medoids = found.medoids(BLOBS)
    assert [int(found.owner[m]) for m in medoids] == [0, 1, 2]
    wanted = (BLOBS[:12] - BLOBS[:12].mean(0)).norm(dim=1).argmin()
    assert medoids[0] == wanted


def test_k_means_is_as_good_as_scikit_learns_and_repeats():
    rows = torch.randn(300, 20, generator=torch.Generator().manual_seed(1)) + 100  # far from 0: digits must not be lost
    found = models.k_means(rows, 8, ("b",))
    cost = float((rows - found.centres[found.owner]).square().sum())
    assert cost < 1.03 * KMeans(8, n_init=4, random_state=0).fit(rows.numpy()).inertia_
    assert torch.equal(found.owner, models.k_means(rows, 8, ("b",)).owner)
    assert not torch.equal(found.owner, models.k_means(rows, 8, ("c",)).owner)


def test_no_mode_is_empty_where_images_repeat():
    rows = torch.cat([torch.zeros(6, 3), torch.ones(1, 3)])
    assert models.k_means(rows, 4, ("a",)).sizes.min() >= 1
    assert models.k_means(rows, 7, ("a",)).sizes.tolist() == [1] * 7


def drawn(model: str, count: int, spread: float, modes: int = 3) -> torch.Tensor:
    return models.draw(model, BLOBS, BLOBS, count, modes, spread=spread, rank=2, seed=("a",))


def test_mixture_and_medoids_stand_at_their_anchors_and_spread_as_their_modes():
    means = torch.stack([BLOBS[:12].mean(0), BLOBS[12:20].mean(0), BLOBS[20:].mean(0)])
    torch.testing.assert_close(drawn("mixture", 5, 0.0), means[[0, 1, 2, 0, 1]])
    assert all(any(torch.equal(z, x) for x in BLOBS) for z in drawn("medoids", 3, 0.0))
    many = drawn("mixture", 3000, 0.5) - means.repeat(1000, 1)
    within = (sum(((BLOBS[o == OWNER] - BLOBS[o == OWNER].mean(0)) ** 2).sum(0) for o in range(3)) / 22).sqrt()
    torch.testing.assert_close(many.std(0), 0.5 * within, rtol=0.06, atol=0)
    assert torch.equal(drawn("mixture", 6, 1.0)[:3], drawn("mixture", 3, 1.0))  # draw i does not depend on their number


@pytest.mark.parametrize("shape", [(200, 12), (9, 12)])
def test_low_rank_has_the_variances_and_the_largest_components(shape):
    g = torch.Generator().manual_seed(3)
    rows = torch.randn(shape[0], 2, generator=g) @ torch.randn(2, shape[1], generator=g) * 3
    rows += 0.1 * torch.randn(shape, generator=g)
    mean, factors, rest = models.low_rank(rows, 2)
    covariance = factors.T @ factors + torch.diag(rest**2)
    torch.testing.assert_close(mean, rows.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(covariance.diagonal(), rows.var(0), rtol=1e-3, atol=1e-3)
    assert (covariance - rows.T.cov()).abs().max() < 0.05 * rows.var(0).max()
    made = models.draw("low-rank", rows, rows, 4000, 1, spread=1.0, rank=2, seed=("a",))
    assert (made.T.cov() - covariance).abs().max() < 0.1 * rows.var(0).max()


def test_selection_takes_one_candidate_a_mode():
    candidates = torch.tensor([[9.5, 0, 0], [0.1, 0, 0], [9.1, 0, 0], [5, 5, 5], [0, 9, 8.8]])
    assert set(selection.representative(candidates, BLOBS, 3, ("a",))) <= {0, 1, 2, 4}
    assert len(set(selection.representative(candidates, BLOBS, 3, ("a",)))) == 3
    assert 3 not in selection.representative(candidates, BLOBS, 3, ("a",))


# -- the method -------------------------------------------------------------------------------------------------------


@pytest.fixture
def make_modes(make_task):
    def make(**given):
        task_options = {k: given.pop(k) for k in ("ipc", "seed", "backbone", "store") if k in given}
        task, _ = make_task(**{"ipc": 2, **task_options})
        wanted = {"steps": 10, "depth": 6, "invert_batch": 4, "decode_guidance": 1.0, **given}
        return task, D3HRModes(make_params(D3HRModes, "d3hr-modes", "toy", wanted))

    make.latents = make_task.latents
    return make


def images(task, method):
    return torch.cat([method.distill(task, unit) for unit in method.units(task)])


def test_one_pass_serves_every_ipc_seed_model_and_spread(make_modes):
    task, method = make_modes()
    images(task, method)
    inverting = 6 * (4 + 2 + 1)  # depth x chunks of the three classes
    decoding = 6 * 3
    assert len(task.backbone.calls) == inverting + decoding
    for changed in ({"ipc": 3}, {"seed": 1}, {"model": "medoids"}, {"spread": 0.0}, {"modes_in": "vae"}):
        before = len(task.backbone.calls)
        images(*make_modes(backbone=task.backbone, **changed))
        assert len(task.backbone.calls) - before == decoding, changed


def test_depth_zero_is_k_means_of_the_vaes_latents(make_modes):
    task, method = make_modes(depth=0, spread=0.0)
    found = method.draw(task, 0, 2)
    rows = make_modes.latents[0].flatten(1)
    modes = models.k_means(rows.half().float(), 2, (0, "d3hr", "toy-digest", 0))
    torch.testing.assert_close(found, modes.centres)
    images(task, method)
    assert not task.backbone.calls


def test_forward_noise_up_to_a_level(make_modes):
    """Up to the depth's level it is forward noise alone; up to a level below, the rest is inverted."""
    task, method = make_modes(noise_until=600)
    all_noise = method.latents(task, 0)
    assert not task.backbone.calls
    half, method = make_modes(noise_until=300, backbone=task.backbone)
    inverted = method.latents(half, 0)
    assert len(task.backbone.calls) == 3 * 4 and not torch.equal(inverted, all_noise)
    assert method.params.invert_calls == 3
    alpha_bar = float(task.backbone.scheduler.alphas_cumprod[600])
    noise = (all_noise - alpha_bar**0.5 * make_modes.latents[0].flatten(1)) / (1 - alpha_bar) ** 0.5
    assert noise.std() == pytest.approx(1.0, abs=0.05) and abs(float(noise.mean())) < 0.1


CALLS = [
    {},
    {"depth": 0},
    {"start_step": 2, "ending": "released"},
    {"invert_stride": 3, "invert_solver": "ab2"},
    {"invert_solver": "dpm2m", "invert_evaluations": 4, "decode_solver": "dpm2m", "decode_evaluations": 5},
    {"noise_until": 250, "invert_evaluations": 3},
    {"domain": "ddpm"},
    {"model": "gaussian"},
]


@pytest.mark.parametrize("given", CALLS, ids=str)
def test_the_forecast_counts_what_is_evaluated(make_modes, given):
    task, method = make_modes(**given)
    unit = method.units(task)[0]
    method.distill(task, unit)
    work = {w.stage: w for w in method.work(23, 3, 2)}
    chunks = 4  # of class 0
    assert len(task.backbone.calls) == chunks * work["invert"].steps + work["sample"].steps


def test_what_cannot_be_made_is_said_before_any_work(make_modes, make_task):
    task, method = make_modes()
    dataset = task.dataset
    assert method.why_not(dataset, 3) == "" and "class 'c' has 3 images" in method.why_not(dataset, 4)
    d3hr = make_task()[1]
    assert d3hr.why_not(dataset, 100) == ""
    single = type("Single", (), {"classes": ("a", "b"), "train": type("T", (), {"by_class": [[0, 1], [2]]})})
    assert "class 'b' has a single image" in d3hr.why_not(single, 2) and d3hr.why_not(single, 1) == ""


def test_parameters_that_came_later_leave_old_keys_alone():
    document, _ = plan._params_documents(Params())
    assert set(document) == RECORDED
    changed, _ = plan._params_documents(Params(model="mixture"))
    assert set(changed) == RECORDED | {"model"}
    own, _ = plan._params_documents(D3HRModes.Params())
    assert {"model", "spread", "select"} <= set(own)
    assert {f.name for f in fields(Params)} == {f.name for f in fields(D3HRModes.Params)}


def test_old_and_new_name_of_the_papers_search_are_one_key():
    old, new = ({"sampler": "search-by-draws"}, {"sampler": "search", "search_by": "draws"})
    documents = [plan._params_documents(make_params(D3HR, "d3hr", "toy", given))[0] for given in (old, new)]
    assert documents[0] == documents[1] and documents[0]["sampler"] == "search-by-draws"
    assert plan._params_documents(make_params(D3HR, "d3hr", "toy", {}))[0]["sampler"] == "search"


# -- presets ----------------------------------------------------------------------------------------------------------


def test_presets_are_allowed_and_the_user_goes_first():
    from benchmark.cli.run import preset_sets

    for cls, name in ((D3HR, "d3hr"), (D3HRModes, "d3hr-modes")):
        for values in cls.presets.values():
            make_params(cls, name, "digits", values)
    released = make_params(D3HR, "d3hr", "imagenet1k", D3HR.presets["released"])
    assert (released.first_step, released.ending, released.encode_resize) == (18, "released", "bilinear")
    assert released.group_score.form == "released" and released.group_score.skew == 0.1
    fast = make_params(D3HR, "d3hr", "imagenet1k", D3HR.presets["fast"])
    assert fast.invert_calls == 10 and fast.decode_calls == 10 and Params().invert_calls == 30
    sets = preset_sets("fast", ("d3hr", "dit"))
    assert set(sets) == {f"d3hr.{key}" for key in D3HR.presets["fast"]}
    with pytest.raises(UsageError, match="dit has no preset 'fast'"):
        preset_sets("fast", ("dit",))
    with pytest.raises(UsageError) as error:
        preset_sets("quick", ("d3hr",))
    assert error.value.allowed == "fast, paper, released"


def test_the_authors_resizing_has_latents_of_its_own(tmp_path):
    """Another filter gives other pixels and other keys, in the VAE's latents and in what is made from them."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16), dtype=np.uint8)
    split = ArraySplit(pixels, np.zeros(4, np.int64))
    assert torch.equal(split.images([0, 1], 8), split.images([0, 1], 8, resize="bicubic"))
    assert not torch.equal(split.images([0, 1], 8), split.images([0, 1], 8, resize="bilinear"))
    dataset = Dataset("toy", ("a",), ("a",), 16, 1, split, split, "toy", (0.5,), (0.5,))
    keys = [latents_stage(dataset, 0, "vae", 8, 0, {}, *resize).key for resize in ((), ("bicubic",), ("bilinear",))]
    assert keys[0] == keys[1] != keys[2]


def test_the_statistics_know_how_images_were_resized(make_task):
    stages = [make_task(encode_resize=r) for r in ("bicubic", "bilinear")]
    keys = [method.statistics_stage(task, 0, 6).key for task, method in stages]
    assert keys[0] == make_task()[1].statistics_stage(make_task()[0], 0, 6).key != keys[1]
