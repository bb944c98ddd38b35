"""Models of a class in the inverted domain, beside the paper's diagonal Gaussian (:mod:`d3hr_plugin.groups`).

Each takes the class's inverted latents as rows ``[n, d]`` and draws as many new ones as asked for:

``low-rank``  one Gaussian whose covariance is a low-rank part plus a diagonal
``mixture``   k-means modes: a mode's mean plus ``spread`` times the standard deviations within modes
``medoids``   the same around the image nearest to the mode's mean

Random numbers come from CPU generators, so a draw is the same on every device. Sums over rows are matrix products,
which a GPU repeats bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmark.api import generator

MODELS = ("gaussian", "low-rank", "mixture", "medoids")
MODAL = ("mixture", "medoids")  # those that need k-means
STARTS = 4  # of k-means; the best one is kept
ROUNDS = 100  # of Lloyd's algorithm at most


@dataclass(frozen=True)
class Modes:
    """What k-means found, the largest mode first.

    Attributes:
        centres: ``[k, d]``.
        owner: int64 ``[n]``, each row's mode.
        sizes: ``[k]``, rows a mode; at least 1.
    """

    centres: torch.Tensor
    owner: torch.Tensor
    sizes: torch.Tensor

    def medoids(self, rows: torch.Tensor) -> torch.Tensor:
        """For each mode the position of its row nearest to its centre, int64 ``[k]``; ``rows`` as given to k-means."""
        squares = _squares(rows, self.centres)
        foreign = self.owner[:, None] != torch.arange(len(self.sizes), device=rows.device)
        return squares.masked_fill(foreign, torch.inf).argmin(0)


def k_means(rows: torch.Tensor, k: int, seed: tuple) -> Modes:
    """Lloyd's algorithm from ``STARTS`` k-means++ starts; the one with the least squared distance wins.

    Args:
        rows: float ``[n, d]``, on any device, n at least k.
        seed: anything printable; equal seeds give equal modes.
    """
    assert 1 <= k <= len(rows), (k, len(rows))
    mean = rows.mean(0)
    centred = rows - mean  # distances are differences of squares: without the common part they keep their digits
    runs = [_lloyd(centred, k, generator(*seed, "k-means", start)) for start in range(STARTS if k > 1 else 1)]
    owner, _ = min(runs, key=lambda run: run[1])
    centres, sizes = _means(centred, owner, k)
    order = sizes.argsort(descending=True, stable=True)
    return Modes(centres[order] + mean, order.argsort()[owner], sizes[order].long())


def _squares(rows: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Squared distances ``[n, k]``."""
    squares = rows.square().sum(1, keepdim=True) + centres.square().sum(1) - 2 * rows @ centres.T
    return squares.clamp_min_(0)


def _means(rows: torch.Tensor, owner: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and number of each mode's rows."""
    members = (owner[:, None] == torch.arange(k, device=rows.device)).to(rows.dtype)
    sizes = members.sum(0)
    return members.T @ rows / sizes.clamp_min(1)[:, None], sizes


def _lloyd(rows: torch.Tensor, k: int, draws: torch.Generator) -> tuple[torch.Tensor, float]:
    """(mode of each row, sum of squared distances); every mode has a row."""
    centres = _plus_plus(rows, k, draws)
    owner = None
    for _ in range(ROUNDS):
        nearest, found = _squares(rows, centres).min(1)
        found = _without_empty(found, nearest, k)
        if owner is not None and torch.equal(found, owner):
            break
        owner = found
        centres, _ = _means(rows, owner, k)
    assert owner is not None
    return owner, float((rows - centres[owner]).square().sum())


def _plus_plus(rows: torch.Tensor, k: int, draws: torch.Generator) -> torch.Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007): each next centre is drawn in proportion to its squared distance."""
    chosen = [int(torch.randint(len(rows), (), generator=draws))]
    nearest = _squares(rows, rows[chosen[0]][None])[:, 0]
    while len(chosen) < k:
        sums = nearest.cpu().double().cumsum(0)
        place = torch.rand((), generator=draws, dtype=torch.float64) * sums[-1]
        chosen.append(int(torch.searchsorted(sums, place).clamp_max(len(rows) - 1)))
        nearest = torch.minimum(nearest, _squares(rows, rows[chosen[-1]][None])[:, 0])
    return torch.stack([rows[row] for row in chosen])


def _without_empty(owner: torch.Tensor, nearest: torch.Tensor, k: int) -> torch.Tensor:
    """Give each mode without rows the row that lies farthest from its own centre and can be spared."""
    sizes = torch.bincount(owner.cpu(), minlength=k)
    if bool((sizes > 0).all()):
        return owner
    host = owner.cpu().clone()
    for row in nearest.cpu().argsort(descending=True).tolist():
        empty = (sizes == 0).nonzero()
        if not len(empty):
            break
        if sizes[host[row]] > 1:
            sizes[host[row]] -= 1
            host[row] = int(empty[0])
            sizes[host[row]] += 1
    return host.to(owner.device)


def draw(
    model: str,
    rows: torch.Tensor,
    space: torch.Tensor,
    count: int,
    modes: int,
    *,
    spread: float,
    rank: int,
    seed: tuple,
) -> torch.Tensor:
    """``count`` latents ``[count, d]`` float32 from ``model``; draw i depends on ``seed``, i and ``modes`` alone.

    Args:
        rows: inverted latents ``[n, d]`` float32 of the class.
        space: what modes are sought in, ``[n, e]``: ``rows`` themselves or another description of the same images.
        modes: of the mixture and of the medoids; draw i belongs to mode ``i % modes``, the largest first.
        spread: factor on the standard deviations around the mean, or within modes.
        rank: of the low-rank part.
    """
    normals = torch.stack([torch.randn(rows.shape[1], generator=generator(*seed, "draw", i)) for i in range(count)])
    normals = normals.to(rows.device)
    if model == "low-rank":
        mean, factors, rest = low_rank(rows, rank)
        loads = torch.stack([torch.randn(len(factors), generator=generator(*seed, "load", i)) for i in range(count)])
        return mean + spread * (loads.to(rows.device) @ factors + rest * normals)
    found = k_means(space, modes, seed)
    means, _ = _means(rows, found.owner, modes)
    within = ((rows - means[found.owner]).square().sum(0) / max(len(rows) - modes, 1)).sqrt()
    anchors = means if model == "mixture" else rows[found.medoids(space)]
    return anchors.repeat(-(-count // modes), 1)[:count] + spread * within * normals


def low_rank(rows: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean ``[d]``, factors ``[r, d]`` and remaining standard deviations ``[d]`` of a Gaussian for ``rows`` ``[n, d]``.

    The covariance ``factors.T @ factors + diag(remaining^2)`` has the class's variances exactly and its ``rank`` (or
    all, where there are fewer) largest principal components.
    """
    mean = rows.mean(0)
    centred = (rows - mean).cpu().double()
    scale = max(len(rows) - 1, 1)
    wide = rows.shape[1] > len(rows)  # then the rows' products are the smaller matrix
    values, vectors = torch.linalg.eigh((centred @ centred.T if wide else centred.T @ centred) / scale)
    kept = values > values[-1].clamp_min(1e-12) * 1e-9
    values, vectors = values[kept][-rank:], vectors[:, kept][:, -rank:]
    factors = (vectors.T @ centred) / scale**0.5 if wide else values.sqrt()[:, None] * vectors.T
    variances = centred.square().sum(0) / scale
    rest = (variances - factors.square().sum(0)).clamp_min(0).sqrt()
    return mean, factors.float().to(rows.device), rest.float().to(rows.device)
