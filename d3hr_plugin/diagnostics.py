"""What D3HR assumes, measured: are inverted latents Gaussian, do they come back, what does a search gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmark.api import Progress, Task, class_latents
from d3hr_plugin.decoding import denoise
from d3hr_plugin.groups import SAMPLERS, Draw
from d3hr_plugin.inversion import invert
from d3hr_plugin.schedule import matched_start

LEVEL = 0.05  # of the normality test: the rejection rate of exactly normal coordinates


@dataclass
class Sample:
    """Some images of some classes: clean scaled latents ``[n, c, h, w]``, backbone classes and dataset classes."""

    latents: torch.Tensor
    targets: torch.Tensor
    classes: np.ndarray
    first: list[int]  # row of each class's first image

    @staticmethod
    def take(task: Task, classes: Sequence[int], images: int, posterior: bool = True) -> Sample:
        """The first ``images`` of each of ``classes``, as the plug-in sees them."""
        parts = [next(class_latents(task, c, posterior, images)) for c in classes]
        owner = np.repeat(np.asarray(classes), [len(p) for p in parts])
        first = np.cumsum([0, *[len(p) for p in parts]])[:-1].tolist()
        return Sample(torch.cat(parts), task.backbone.class_map[torch.from_numpy(owner)], owner, first)

    def inverted(self, task: Task, steps: int, depths: Sequence[int], guidance: float, batch: int = 128, **solver: Any):
        """Latents at each depth, ``{depth: [n, c, h, w]}``; ``solver`` as in :func:`d3hr_plugin.inversion.invert`."""
        made: dict[int, list] = {d: [] for d in depths}
        label = f"inverting {max(depths)} of {steps} steps, guidance {guidance:g}"
        with Progress(len(self.latents), label, "image") as bar:
            for x, y in zip(self.latents.split(batch), self.targets.split(batch), strict=True):
                kept = invert(task.backbone, x, y, steps=steps, depths=depths, guidance=guidance, **solver)
                for depth in depths:
                    made[depth].append(kept[depth].cpu())
                bar.update(len(x))
        return {d: torch.cat(parts) for d, parts in made.items()}


def standardised(latents: torch.Tensor, classes: np.ndarray) -> np.ndarray:
    """Each coordinate with its class's mean and deviation taken out, ``[n, d]`` float64."""
    flat = latents.flatten(1).double().numpy()
    out = np.empty_like(flat)
    for c in np.unique(classes):
        rows = flat[classes == c]
        out[classes == c] = (rows - rows.mean(0)) / rows.std(0, ddof=1).clip(1e-12)
    return out


def normality(latents: torch.Tensor, classes: np.ndarray) -> dict[str, float]:
    """Over coordinates and classes: mean absolute skewness and excess kurtosis, and the share of coordinates that
    D'Agostino and Pearson's test refuses at 5 % (at least 20 images a class)."""
    flat = latents.flatten(1).double().numpy()
    skew, tails, refused = [], [], []
    for c in np.unique(classes):
        rows = flat[classes == c]
        skew.append(np.abs(stats.skew(rows)))
        tails.append(np.abs(stats.kurtosis(rows)))
        if len(rows) >= 20:
            refused.append(stats.normaltest(rows).pvalue < LEVEL)
    found = {"skewness": float(np.mean(skew)), "excess_kurtosis": float(np.mean(tails))}
    return found | {"rejected": float(np.mean(refused)) if refused else float("nan")}


def gaussian_floor(shape: tuple[int, int], classes: np.ndarray) -> dict[str, float]:
    """:func:`normality` of exactly normal draws of the same size: what a finite sample shows anyway."""
    draws = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return normality(draws, classes)


def reconstruction(
    task: Task, sample: Sample, steps: int, depth: int, guidance: tuple[float, float], shift: int = 0, ending="exact"
) -> tuple[float, torch.Tensor]:
    """(root mean square error of the latents, the latents) after inverting to ``depth`` and sampling back.

    ``guidance`` is (inverting, sampling); ``shift`` steps earlier than the matching start (the authors' pair: 1, with
    ``ending="released"``).
    """
    noise = sample.inverted(task, steps, [depth], guidance[0])[depth]
    start = max(0, matched_start(depth, steps) - shift)
    settings = {"steps": steps, "start_step": start, "ending": ending, "guidance": guidance[1], "batch": 128}
    back = denoise(task.backbone, noise, sample.targets, **settings).cpu()
    return float((back - sample.latents).square().mean().sqrt()), back


def score_against_m(std: torch.Tensor, n: int, counts: Sequence[int], repeats: int = 5) -> dict[str, list[float]]:
    """Mean best score of the search for each number of candidates, and the score of each other sampler."""
    found = {
        "search": [
            float(np.mean([SAMPLERS["search"](Draw(n, std, ("report", r), m)).score for r in range(repeats)]))
            for m in counts
        ]
    }
    for name in ("gaussian", "moments", "matched", "latin", "sobol"):
        scores = [SAMPLERS[name](Draw(n, std, ("report", r))).score for r in range(repeats)]
        found[name] = [float(np.mean(scores))]
    return found


# All of them invert to 3/5 of the schedule (depth 30 of 50, level 600) and differ in how they get there.
SOLVER_ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("authors: ddim, 30 uniform", {"solver": "ddim"}),
    ("ddim, 10 uniform", {"solver": "ddim", "stride": 3}),
    ("ab2, 30 uniform", {"solver": "ab2"}),
    ("ab2, 10 uniform", {"solver": "ab2", "stride": 3}),
    ("ab2, 10 quadratic", {"solver": "ab2", "evaluations": 10}),
    ("dpm2m, 10 uniform", {"solver": "dpm2m", "stride": 3}),
    ("dpm2m, 6 quadratic", {"solver": "dpm2m", "evaluations": 6}),
    ("dpm2m, 8 quadratic", {"solver": "dpm2m", "evaluations": 8}),
    ("dpm2m, 10 quadratic", {"solver": "dpm2m", "evaluations": 10}),
    ("dpm2m, 16 quadratic", {"solver": "dpm2m", "evaluations": 16}),
    ("dpm2m, 10 quadratic, noise to 20", {"solver": "dpm2m", "evaluations": 10, "noise_until": 20}),
)
REFERENCE = 200  # steps of the solution that the others are compared with, ab2 over uniform levels


def solver_rows(task: Task, sample: Sample, guidance: float) -> list[dict[str, Any]]:
    """Every solver of ``SOLVER_ROWS`` to depth 30 of 50 (level 600) and back again, one row each.

    ``error`` is the root mean square difference from the reference's latents, ``deviation %`` how far the standard
    deviation of a class's coordinate is off the reference's (mean), ``rejected`` the share of coordinates that a
    normality test refuses, ``round trip`` the root mean square error of the clean latents after sampling back with the
    same solver and as many evaluations, ``ddim back`` the same with the authors' 30 steps.
    """
    reference = sample.inverted(task, REFERENCE, [REFERENCE * 3 // 5], guidance, solver="ab2")[REFERENCE * 3 // 5]
    draws = torch.randn(sample.latents.shape, generator=torch.Generator().manual_seed(0))
    rows = [{"solver": f"reference: ab2, {REFERENCE * 3 // 5} uniform", "evaluations": REFERENCE * 3 // 5}]
    rows[0] |= {"error": 0.0, "deviation %": 0.0, **_back(task, sample, reference, guidance, {})}
    rows[0]["rejected"] = normality(reference, sample.classes)["rejected"]
    for name, how in SOLVER_ROWS:
        with_noise = how.get("noise_until", 0) > 0
        noisy = _inverted_with(task, sample, guidance, how, draws if with_noise else None)
        rows.append(
            {
                "solver": name,
                "evaluations": how.get("evaluations") or 30 // how.get("stride", 1),
                "error": float((noisy - reference).square().mean().sqrt()),
                "deviation %": 100 * (_deviation_ratio(noisy, reference, sample.classes) - 1),
                "rejected": normality(noisy, sample.classes)["rejected"],
                **_back(task, sample, noisy, guidance, how),
            }
        )
    return rows


def _inverted_with(task: Task, sample: Sample, guidance: float, how: dict[str, Any], noise: torch.Tensor | None):
    if noise is None:
        return sample.inverted(task, 50, [30], guidance, **how)[30]
    settings = {"steps": 50, "depths": [30], "guidance": guidance, **how}
    parts = zip(sample.latents.split(128), sample.targets.split(128), noise.split(128), strict=True)
    return torch.cat([invert(task.backbone, x, y, noise=z, **settings)[30].cpu() for x, y, z in parts])


def _back(task: Task, sample: Sample, noisy: torch.Tensor, guidance: float, how: dict[str, Any]) -> dict[str, float]:
    settings = {"steps": 50, "start_step": 19, "ending": "exact", "guidance": guidance, "batch": 128}
    same = {"solver": how.get("solver", "ddim"), "evaluations": how.get("evaluations", 0)}
    found = {}
    for name, solver in (("round trip", same), ("ddim back", {})):
        back = denoise(task.backbone, noisy, sample.targets, **settings, **solver).cpu()
        found[name] = float((back - sample.latents).square().mean().sqrt())
    return found


def _deviation_ratio(noisy: torch.Tensor, reference: torch.Tensor, classes: np.ndarray) -> float:
    """Mean over classes and coordinates of the standard deviation's ratio to the reference's."""
    ratios = []
    for c in np.unique(classes):
        mine, theirs = (x[torch.from_numpy(classes == c)].flatten(1).double().std(0) for x in (noisy, reference))
        ratios.append(mine / theirs.clamp_min(1e-12))
    return float(torch.stack(ratios).mean())


def shrinkage(shapes: Sequence[tuple[int, ...]], counts: Sequence[int], repeats: int = 5) -> list[dict[str, Any]]:
    """What the search does at IPC 1: norm of its winner over that of a plain draw, a row a latent shape.

    At one image a class the paper's score is the distance from the class mean alone, so the best of m candidates is the
    shortest of m draws. In few coordinates that is a short vector, in many hardly shorter than any other. Pure
    arithmetic: equal standard deviations, whitened draws.
    """
    rows = []
    for shape in shapes:
        d = int(np.prod(shape))
        std = torch.ones(d)
        row: dict[str, Any] = {"latent": "x".join(map(str, shape)), "coordinates": d}
        for m in counts:
            groups = [SAMPLERS["search"](Draw(1, std, ("shrinkage", r), m)).latents for r in range(repeats)]
            row[f"m = {m:,}"] = float(np.mean([float(g.norm()) / d**0.5 for g in groups]))
        rows.append(row)
    return rows
