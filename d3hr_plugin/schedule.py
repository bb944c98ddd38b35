"""Noise levels: which training timesteps a number of leading-spaced steps visits, and how far each pair is apart.

Two indices are in use. ``depth`` counts upwards from clean: depth 0 is the VAE's latent, depth i the i-th level of
the reversed timesteps (the authors' loop index). ``start_step`` counts downwards from noise, as a sampler does.
With 50 steps depth 30 is level 600; the authors start at ``start_step = 18``, which is level 620, one step apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.api import UsageError

if TYPE_CHECKING:
    from diffusers import DDIMScheduler


def levels(scheduler: DDIMScheduler, steps: int) -> list[int]:
    """Timesteps of ``steps`` leading-spaced steps, ascending; ``levels[i]`` is depth i (50 steps: 0, 20, ..., 980)."""
    total = scheduler.config.num_train_timesteps
    if not 2 <= steps <= total:
        raise UsageError(f"steps = {steps} is out of range", where="--set steps", allowed=f"2 to {total}")
    copy = type(scheduler).from_config(scheduler.config, timestep_spacing="leading")
    copy.set_timesteps(steps)
    return [int(t) for t in copy.timesteps.flip(0)]


def alphas(scheduler: DDIMScheduler) -> list[float]:
    """Cumulative signal power of every training timestep, in float64."""
    return scheduler.alphas_cumprod.double().tolist()


def quadratic_levels(top: int, evaluations: int, first: int = 0) -> list[int]:
    """``evaluations`` + 1 levels from ``first`` to ``top``, ascending, whose distances grow linearly.

    Near the clean end the noise-to-signal ratio changes fastest in the logarithm, so levels are dense there.

    Raises:
        UsageError: more evaluations than distinct levels.
    """
    found = [first + round((top - first) * (i / evaluations) ** 2) for i in range(evaluations + 1)]
    if len(set(found)) <= evaluations:
        raise UsageError(
            f"{evaluations} quadratic levels from {first} to {top} are not distinct",
            where="--set invert_evaluations or decode_evaluations",
            allowed=f"at most {max(1, int((top - first) ** 0.5))}",
        )
    return found


def check_depth(depth: int, steps: int, name: str = "depth") -> None:
    """Refuse a depth that the schedule does not reach."""
    if not 0 <= depth < steps:
        raise UsageError(
            f"{name} = {depth} is beyond the schedule of {steps} steps",
            where=f"--set {name}={depth}",
            allowed=f"0 (the VAE's latents) to {steps - 1}",
            hint="raise steps with it: depth 30 of 50 steps is noise level 600 of 1000",
        )


def check_start(start_step: int, steps: int) -> None:
    """Refuse a sampling step that the schedule does not have."""
    if not 0 <= start_step < steps:
        raise UsageError(
            f"start_step = {start_step} is beyond the schedule of {steps} steps",
            where=f"--set start_step={start_step}",
            allowed=f"0 to {steps - 1}",
        )


def check_stride(depth: int, stride: int) -> None:
    """Refuse a stride of the inversion that steps over a depth."""
    if depth % stride:
        raise UsageError(
            f"depth {depth} is not a multiple of invert_stride = {stride}",
            where=f"--set invert_stride={stride}",
            allowed="a stride that divides depth and keep_depths",
        )


def matched_start(depth: int, steps: int) -> int:
    """The ``start_step`` whose noise level is that of ``depth``."""
    return steps - 1 - depth


def sampling_pairs(ascending: list[int], start_step: int, ending: str, total: int = 1000) -> list[tuple[int, int]]:
    """(level, next lower level) of each sampling step from ``start_step`` on.

    ``exact`` mirrors the inversion: it walks the same levels down to the lowest and stops there. ``released`` is the
    authors' sampler: the next level is at least 1, and one more step is taken at the lowest level.
    """
    descending = ascending[::-1]
    if ending == "exact":
        return list(zip(descending[start_step:-1], descending[start_step + 1 :], strict=True))
    stride = total // len(ascending)
    return [(t, max(1, t - stride)) for t in descending[start_step:]]
