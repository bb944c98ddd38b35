"""Inversion and sampling: against an independent float64 form, diffusers' inverse scheduler, and each other.

The authors' own functions were run on the same weights (tests/speed/d3hr_authors.py loads them): equal to 3e-6 at
guidance 1 and 4, at 50 and at 20 steps.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from tiny_backbone import tiny_backbone

from benchmark.core.errors import UsageError
from d3hr_plugin.decoding import denoise
from d3hr_plugin.inversion import Slope, ddim_move, invert
from d3hr_plugin.schedule import levels, matched_start, quadratic_levels, sampling_pairs

X = torch.randn(5, 4, 4, 4, generator=torch.Generator().manual_seed(3))
Y = torch.tensor([0, 3, 9, 3, 7])


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def noise(backbone, x, level, guidance):
    """Classifier-free guidance written out, with one pass for each half."""

    def one(labels):
        return (
            backbone.dit(x.float(), timestep=torch.full((len(x),), level), class_labels=labels).sample[:, :4].double()
        )

    given, free = one(Y), one(torch.full_like(Y, backbone.num_classes))
    return free + guidance * (given - free)


def signal(level: int) -> float:
    """Cumulative signal power of the linear schedule, from its definition."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    return float(torch.cumprod(1 - beta, 0)[level])


def ode_step(x, eps, low, high):
    """DDIM where it is Euler's method: x / sqrt(a) moves by eps times the change of sqrt(1/a - 1)."""
    a, b = signal(low), signal(high)
    return (x / a**0.5 + ((1 / b - 1) ** 0.5 - (1 / a - 1) ** 0.5) * eps) * b**0.5


@pytest.mark.parametrize("steps", [50, 20])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("learned_sigma", [True, False])
def test_inversion_and_sampling_equal_an_independent_form(steps, guidance, learned_sigma):
    backbone = tiny_backbone(learned_sigma=learned_sigma)
    stride, depth = 1000 // steps, steps * 3 // 5
    ours = invert(backbone, X, Y, steps=steps, depths=[1, depth], guidance=guidance)
    x = X.double()
    for i in range(1, depth + 1):
        x = ode_step(x, noise(backbone, x, i * stride, guidance), (i - 1) * stride, i * stride)
        if i == 1:
            assert relative(ours[1], x) < 1e-5
    assert relative(ours[depth], x) < 1e-5
    start = matched_start(depth, steps)
    for ending in ("exact", "released"):
        made = denoise(
            backbone, ours[depth], Y, steps=steps, start_step=start, ending=ending, guidance=guidance, batch=8
        )
        z = x
        for i in range(depth, 0 if ending == "exact" else -1, -1):
            lower = (i - 1) * stride if ending == "exact" else max(1, (i - 1) * stride)
            z = ode_step(z, noise(backbone, z, i * stride, guidance), i * stride, lower)
        assert relative(made, z) < 1e-5


def test_guidance_changes_the_result(backbone):
    plain = invert(backbone, X, Y, steps=10, depths=[6], guidance=1.0)[6]
    assert relative(invert(backbone, X, Y, steps=10, depths=[6], guidance=4.0)[6], plain) > 1e-3


@pytest.mark.parametrize("steps", [50, 20])
def test_equals_diffusers_inverse_scheduler_after_its_first_step(backbone, steps):
    """diffusers' scheduler first steps from signal power 1 to level 0, as if the VAE's latent lay beyond the schedule;
    the authors take the latent as level 0. From there on the two agree."""
    inverse = DDIMInverseScheduler(clip_sample=False, beta_schedule="linear", timestep_spacing="leading")
    inverse.set_timesteps(steps)
    assert int(inverse.timesteps[0]) == 0
    ours = invert(backbone, X, Y, steps=steps, depths=range(1, 10), guidance=4.0)
    x = X
    for i in range(1, 10):
        t = inverse.timesteps[i]
        x = inverse.step(backbone.eps(x, int(t), Y, 4.0), t, x).prev_sample
        assert relative(ours[i], x) < 1e-5


def test_one_model_pass_a_step_and_none_beyond_the_deepest(backbone):
    invert(backbone, X, Y, steps=50, depths=[3, 7], guidance=4.0)
    assert len(backbone.calls) == 7


def test_depth_zero_is_the_input(backbone):
    assert torch.equal(invert(backbone, X, Y, steps=50, depths=[0], guidance=4.0)[0], X)


def test_levels_and_both_readings_of_the_start():
    scheduler = DDIMScheduler(beta_schedule="linear")
    ascending = levels(scheduler, 50)
    assert ascending[30] == 600 and ascending[-1] == 980
    assert matched_start(30, 50) == 19
    assert sampling_pairs(ascending, 19, "exact")[0] == (600, 580)
    assert sampling_pairs(ascending, 18, "released")[0] == (620, 600)
    assert sampling_pairs(ascending, 19, "exact")[-1] == (20, 0)
    assert sampling_pairs(ascending, 18, "released")[-2:] == [(20, 1), (0, 1)]


def test_the_scheduler_that_is_handed_in_stays_as_it_was():
    scheduler = DDIMScheduler(beta_schedule="linear", timestep_spacing="trailing")
    assert levels(scheduler, 10) == list(range(0, 1000, 100))
    assert scheduler.config.timestep_spacing == "trailing" and scheduler.num_inference_steps is None


def test_reconstruction_improves_with_steps_and_the_exact_pair_beats_the_released(backbone):
    """On a random model; for a trained one see `ddbench d3hr-report`."""

    def error(steps, start_shift, ending):
        depth = steps * 3 // 5
        z = invert(backbone, X, Y, steps=steps, depths=[depth], guidance=1.0)[depth]
        start = matched_start(depth, steps) - start_shift
        back = denoise(backbone, z, Y, steps=steps, start_step=start, ending=ending, guidance=1.0, batch=8)
        return float((back - X).square().mean().sqrt())

    errors = [error(steps, 0, "exact") for steps in (10, 20, 50, 100)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 4
    assert error(50, 0, "exact") < error(50, 1, "released")


def test_depth_beyond_the_schedule(backbone):
    with pytest.raises(UsageError, match="depth = 20 is beyond the schedule of 20 steps"):
        invert(backbone, X, Y, steps=20, depths=[20], guidance=1.0)
    with pytest.raises(UsageError, match="depth 10 is not a multiple of invert_stride = 3"):
        invert(backbone, X, Y, steps=20, depths=[10], guidance=1.0, stride=3)


# -- second-order solvers ---------------------------------------------------------------------------------------------


def mixture_eps(x: torch.Tensor, power: float, width: float) -> torch.Tensor:
    """The exact noise estimate where clean data are a 1-D mixture of three normals of deviation ``width``."""
    means = torch.tensor([-1.2, 0.1, 1.0], dtype=torch.float64)
    variance = power * width**2 + 1 - power
    centred = x[:, None] - power**0.5 * means
    weight = torch.softmax(-centred.square() / (2 * variance), dim=1)
    return (1 - power) ** 0.5 * (weight * centred).sum(1) / variance


def solve(x: torch.Tensor, path: list[int], solver: str, width: float) -> torch.Tensor:
    slope = Slope(solver)
    for low, high in pairwise(path):
        eps = mixture_eps(x, signal(high if solver == "ddim" else low), width)
        x = ddim_move(x, slope(eps, signal(low), signal(high)), signal(low), signal(high))
    return x


@pytest.mark.parametrize("width", [0.05, 0.25])
def test_eight_evaluations_of_dpm2m_are_nearer_to_the_solution_than_the_authors_thirty(width):
    draw = torch.Generator().manual_seed(0)
    means = torch.tensor([-1.2, 0.1, 1.0], dtype=torch.float64)[torch.randint(3, (2000,), generator=draw)]
    x = means + width * torch.randn(2000, generator=draw, dtype=torch.float64)
    exact = solve(x, list(range(0, 601)), "ab2", width)

    def error(path, solver):
        return float((solve(x, path, solver, width) - exact).square().mean().sqrt())

    uniform, coarse = list(range(0, 601, 20)), list(range(0, 601, 60))
    ours = error(quadratic_levels(600, 8), "dpm2m")
    assert ours < 0.8 * error(uniform, "ddim")
    assert ours < 0.6 * error(quadratic_levels(600, 8), "ab2")  # extrapolated in the other coordinate
    assert error(coarse, "ab2") < error(coarse, "dpm2m")  # and the reverse for uniform levels
    path = quadratic_levels(600, 24)
    back = solve(solve(x, path, "dpm2m", width), path[::-1], "dpm2m", width)
    assert (back - x).square().mean().sqrt() < 0.3 * width


def test_quadratic_levels_are_dense_near_the_image():
    assert quadratic_levels(600, 4) == [0, 38, 150, 338, 600] and quadratic_levels(600, 2, 100) == [100, 225, 600]
    with pytest.raises(UsageError, match="not distinct"):
        quadratic_levels(600, 100)
