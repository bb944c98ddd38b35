"""Figures of the diagnostics (matplotlib, PNG)."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402

TITLES = {
    "skewness": "mean |skewness| of a coordinate",
    "excess_kurtosis": "mean |excess kurtosis|",
    "rejected": "share refused by a normality test at 5 %",
}


def normality(file: Path, rows: list[dict], floor: dict[str, float], chosen: int) -> None:
    """Three panels against depth, a line for each guidance; ``floor`` is what normal draws of that size show."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for axis, (name, title) in zip(axes, TITLES.items()):
        for guidance in sorted({r["guidance"] for r in rows}):
            line = [r for r in rows if r["guidance"] == guidance]
            axis.plot([r["depth"] for r in line], [r[name] for r in line], "o-", ms=3, label=f"guidance {guidance:g}")
        axis.axhline(floor[name], color="black", lw=1, ls="--", label="normal draws")
        axis.axvline(chosen, color="grey", lw=1, ls=":", label="depth used")
        axis.set(title=title, xlabel="inversion depth (0: the VAE's latents)", ylim=(0, None))
    axes[0].legend(fontsize=8)
    _save(figure, file)


def quantiles(file: Path, samples: dict[int, np.ndarray], guidance: float) -> None:
    """Q-Q panels: coordinates standardised per class and pooled, one panel a depth."""
    figure, axes = plt.subplots(1, len(samples), figsize=(2.7 * len(samples), 2.9), layout="constrained", squeeze=False)
    for axis, (depth, values) in zip(axes[0], samples.items()):
        grid = np.linspace(0.0005, 0.9995, 400)
        axis.plot([-4, 4], [-4, 4], color="grey", lw=1)
        axis.plot(stats.norm.ppf(grid), np.quantile(values, grid), lw=2)
        axis.set(title=f"depth {depth}", xlim=(-3.5, 3.5), ylim=(-5, 5), xlabel="normal quantile")
    axes[0][0].set_ylabel("latent's quantile")
    figure.suptitle(f"standardised latents, inverted with guidance {guidance:g}", fontsize=10)
    _save(figure, file)


def reconstruction(file: Path, by_steps: list[dict], by_depth: list[dict]) -> None:
    """Error of invert-then-sample against steps (each pair of depth and start) and against depth."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axis, rows, name in ((axes[0], by_steps, "steps"), (axes[1], by_depth, "depth")):
        for label in dict.fromkeys(r["pair"] for r in rows):
            line = [r for r in rows if r["pair"] == label]
            axis.plot([r[name] for r in line], [r["rmse"] for r in line], "o-", ms=4, label=label)
        axis.set(yscale="log", xlabel=name, ylabel="RMS error of the latents")
        axis.legend(fontsize=8)
    axes[0].set(xscale="log", title="to 3/5 of the schedule")
    axes[1].set(title="by depth; guidance inverting, sampling")
    _save(figure, file)


def scores(file: Path, counts: list[int], found: dict[str, list[float]], n: int) -> None:
    """Best score against the number of candidates; the other samplers as levels."""
    figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
    axis.plot(counts, found["search"], "o-", ms=4, label="search, best of m")
    for index, (name, values) in enumerate((k, v) for k, v in found.items() if k != "search"):
        axis.axhline(max(values[0], 1e-3), color=f"C{index + 1}", ls="--", label=name)
    axis.set(xscale="log", yscale="log", xlabel="candidates m", ylabel="score", title=f"group of {n}")
    axis.legend(fontsize=8)
    _save(figure, file)


def sheet(file: Path, columns: dict[str, np.ndarray], names: list[str]) -> None:
    """One row a class; each column block holds a few uint8 images ``[classes, k, H, W, C]``."""
    parts, sizes = list(columns.values()), [v.shape[1] for v in columns.values()]
    figure, axes = plt.subplots(
        1, len(columns), figsize=(0.62 * sum(sizes) + 1.6, 0.62 * len(names) + 0.7), width_ratios=sizes,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for axis, title, images in zip(axes[0], columns, parts):
        rows = [
            np.concatenate(list(np.pad(r, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)), 1) for r in images
        ]
        picture = np.concatenate(rows, 0)
        axis.imshow(picture[:, :, 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, fontsize=9)
        side = images.shape[2] + 1
        axis.set(xticks=[], yticks=[side * (i + 0.5) for i in range(len(names))], yticklabels=[])
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
    axes[0][0].set_yticklabels([n[:14] for n in names], fontsize=8)
    _save(figure, file)


def _save(figure, file: Path) -> None:
    figure.savefig(file, dpi=110)
    plt.close(figure)
