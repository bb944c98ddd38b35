"""The plug-in as the harness calls it."""

from __future__ import annotations

import time

import pytest
import torch
from tiny_backbone import tiny_backbone

from benchmark.core.errors import JobError, UsageError
from benchmark.plugins import registry
from d3hr_plugin.groups import SAMPLERS, Draw
from d3hr_plugin.inversion import invert
from d3hr_plugin.method import STATISTICS_VERSION
from d3hr_plugin.plugin import METHODS

FROZEN = {
    "version": (2, 3),
    "mean": [-0.7869, -0.5824, -0.7656],
    "variance": [0.0432, 0.0118, 0.0593],
    "search": [0.2213, -1.0736],
    "search-by-draws": [-0.0576, -0.0213],
    "gaussian": [-0.018, 0.102],
    "moments": [-0.3483, -1.1607],
    "matched": [-0.5624, -1.2247],
    "latin": [0.6912, 0.2742],
    "sobol": [0.0895, 0.0226],
}


def images(task, method):
    return torch.cat([method.distill(task, unit) for unit in method.units(task)])


def test_registered_through_the_public_door():
    assert registry().get("method", "d3hr").load().__name__ == "D3HR"


def test_distils_uint8_images_of_the_dataset_size(make_task):
    task, method = make_task()
    made = images(task, method)
    assert made.shape == (12, 1, 4, 4) and made.dtype == torch.uint8


def test_statistics_are_those_of_the_inverted_latents(make_task):
    task, method = make_task()
    moments = method.statistics(task, 0)
    inverted = invert(
        task.backbone, make_task.latents[0], torch.zeros(13, dtype=torch.long), steps=10, depths=[6], guidance=4.0
    )[6].flatten(1)
    torch.testing.assert_close(moments.mean, inverted.double().mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moments.variance, inverted.double().var(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9, 12, 50])
def test_statistics_of_the_first_images_of_a_class(make_task, count):
    """Of 13 images in chunks of 4: no image beyond the first ``invert_images`` is looked at."""
    task, method = make_task(invert_images=count, invert_batch=4)
    moments = method.statistics(task, 0)
    assert moments.count == min(count, 13)
    first = make_task.latents[0][:count]
    labels = torch.zeros(len(first), dtype=torch.long)
    inverted = invert(task.backbone, first, labels, steps=10, depths=[6], guidance=4.0)[6].flatten(1)
    torch.testing.assert_close(moments.mean, inverted.double().mean(0), rtol=1e-5, atol=1e-5)


def test_one_pass_serves_every_ipc_seed_sampler_and_start(make_task):
    task, method = make_task(ipc=2)
    images(task, method)
    calls = len(task.backbone.calls)
    inversion_calls = 6 * (4 + 2 + 1)  # depth x chunks of the three classes
    for changed in ({"ipc": 3}, {"seed": 1}, {"sampler": "gaussian"}, {"start_step": 2}, {"decode_guidance": 1.0}):
        other, again = make_task(backbone=task.backbone, **changed)
        before = len(task.backbone.calls)
        images(other, again)
        assert len(task.backbone.calls) - before < calls - inversion_calls + 10, changed


def test_keep_depths_are_published_by_one_pass_and_change_nothing(make_task):
    task, method = make_task(keep_depths=(2, 9))
    kept = method.statistics(task, 0)
    before = len(task.backbone.calls)
    assert before == 9 * 4
    for depth in (2, 9):
        other, again = make_task(depth=depth, backbone=task.backbone)
        again.statistics(other, 0)
    assert len(task.backbone.calls) == before
    alone, method = make_task(store="elsewhere")
    assert torch.equal(method.statistics(alone, 0).mean, kept.mean)


def test_every_depth_of_a_pass_counts_the_passs_seconds(make_task, monkeypatch):
    task, method = make_task(keep_depths=(2, 9))
    noised = method._noised
    monkeypatch.setattr(method, "_noised", lambda *given: time.sleep(0.05) or noised(*given))
    method.statistics(task, 0)
    seconds = [task.store.info(method.statistics_stage(task, 0, depth))["seconds"] for depth in (2, 6, 9)]
    assert min(seconds) >= 4 * 0.05 and max(seconds) < 2 * min(seconds)  # four chunks


def test_a_kill_costs_one_chunk(make_task, monkeypatch):
    task, method = make_task()
    whole = method.statistics(task, 0)
    killed, method = make_task(store="other")
    bone, calls = killed.backbone, []
    eps = bone.eps

    def dying(*args):
        calls.append(1)
        if len(calls) == 15:  # in the third of four chunks
            raise KeyboardInterrupt
        return eps(*args)

    bone.eps = dying
    with pytest.raises(KeyboardInterrupt):
        method.statistics(killed, 0)
    again = method.statistics(killed, 0)
    assert len(calls) == 15 + 2 * 6
    assert torch.equal(again.mean, whole.mean) and torch.equal(again.squares, whole.squares)


def test_classes_seeds_and_indices_have_different_noise(make_task):
    task, method = make_task(sampler="gaussian")
    moments = method.statistics(task, 0)
    a = method.group(task, 0, moments, 4).latents
    b = method.group(task, 1, moments, 4).latents
    c = method.group(make_task(seed=1)[0], 0, moments, 4).latents
    assert not torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(a, method.group(task, 0, moments, 4).latents)


def test_order_of_units_does_not_matter(make_task):
    task, method = make_task()
    forward = [method.distill(task, u) for u in method.units(task)]
    other, method = make_task(store="other")
    backward = [method.distill(other, u) for u in reversed(method.units(other))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))


def test_batch_of_one_decodes_to_the_same_picture(make_task):
    many = images(*make_task(decode_batch=32))
    single = images(*make_task(decode_batch=1))
    assert (many.int() - single.int()).abs().max() <= 1


def test_ddpm_noise_has_the_level_of_the_depth(make_task):
    task, method = make_task(domain="ddpm", depth=9)
    moments = method.statistics(task, 0)
    assert not task.backbone.calls
    assert moments.variance.mean() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    "params, words",
    [
        ({"depth": 10}, "depth = 10 is beyond the schedule of 10 steps"),
        ({"keep_depths": [30]}, "keep_depths = 30 is beyond"),
        ({"start_step": 12}, "start_step = 12 is beyond"),
        ({"steps": 1}, "steps = 1 is out of range"),
        ({"invert_stride": 4}, "depth 6 is not a multiple of invert_stride = 4"),
        ({"sampler": "serch"}, "did you mean 'search'"),
        ({"m": 0}, "m = 0 is out of range"),
        ({"lambda_scew": 1}, "did you mean 'lambda_skew'"),
    ],
)
def test_bad_parameters(make_task, params, words):
    with pytest.raises(UsageError, match=words):
        make_task(**params)


def test_guidance_needs_a_conditional_backbone(make_task):
    with pytest.raises(UsageError, match="invert_guidance = 4"):
        images(*make_task(backbone=tiny_backbone(3, unconditional=True)))
    with pytest.raises(UsageError, match="decode_guidance = 2"):
        images(*make_task(backbone=tiny_backbone(3, unconditional=True), invert_guidance=1.0, decode_guidance=2.0))
    images(*make_task(backbone=tiny_backbone(3, unconditional=True), invert_guidance=1.0, decode_guidance=1.0))


def test_nan_names_layer_and_class(make_task):
    broken = tiny_backbone(3)
    broken.dit.transformer_blocks[1].attn1.to_v.weight.data[0, 0] = float("nan")
    with pytest.raises(JobError, match=r"transformer_blocks.1.attn1.to_v, backbone classes \[0"):
        images(*make_task(backbone=broken))
    make_task.latents[0][2, 1, 1, 1] = float("inf")
    with pytest.raises(JobError, match="VAE"):
        images(*make_task(store="other"))


def test_frozen_outputs(make_task):
    """If this fails, results changed: raise STATISTICS_VERSION or the method's version, then freeze the new numbers."""
    task, method = make_task()
    moments = method.statistics(task, 0)
    groups = {name: SAMPLERS[name](Draw(4, moments.std.float(), ("frozen",), 50)).latents for name in SAMPLERS}
    found = {
        "version": (STATISTICS_VERSION, METHODS[0].version),
        "mean": moments.mean[:3].tolist(),
        "variance": moments.variance[:3].tolist(),
        **{name: [float(x[1, 2]), float(x[3, 5])] for name, x in groups.items()},
    }
    assert found == {k: v if k == "version" else pytest.approx(v, abs=2e-4) for k, v in FROZEN.items()}
