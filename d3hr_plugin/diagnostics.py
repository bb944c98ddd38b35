"""What D3HR assumes, measured: are inverted latents Gaussian, do they come back, what does a search gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    def inverted(self, task: Task, steps: int, depths: Sequence[int], guidance: float, batch: int = 128):
        """Latents at each depth, ``{depth: [n, c, h, w]}``."""
        made: dict[int, list] = {d: [] for d in depths}
        label = f"inverting {max(depths)} of {steps} steps, guidance {guidance:g}"
        with Progress(len(self.latents), label, "image") as bar:
            for x, y in zip(self.latents.split(batch), self.targets.split(batch), strict=True):
                kept = invert(task.backbone, x, y, steps=steps, depths=depths, guidance=guidance)
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
