"""How like real images samples are, in a classifier's features: Frechet distance, precision and coverage."""

from __future__ import annotations

import torch

NEIGHBOURS = 5


def frechet(first: torch.Tensor, second: torch.Tensor) -> float:
    """Squared Frechet distance of two Gaussians fitted to features ``[n, d]`` (arXiv 1706.08500, eq. 6).

    It grows as either sample gets smaller: compare values of equal counts only.
    """
    a, b = first.double(), second.double()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    one, two = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    both = torch.linalg.eigvalsh(root @ two @ root).clamp(min=0).sqrt().sum()
    return float((gap + one.trace() + two.trace() - 2 * both).clamp(min=0))


def precision_coverage(real: torch.Tensor, made: torch.Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Precision (arXiv 1904.06991) and coverage (arXiv 2002.09797) in percent of ``made`` against ``real`` features.

    Precision is the share of samples that lie nearer to some real image than its ``k``-th real neighbour does;
    coverage the share of real images that have such a sample. Coverage grows with the number of samples.
    """
    k = min(k, len(real) - 1)
    radius = torch.cdist(real, real).kthvalue(k + 1, dim=1).values  # the nearest is the image itself
    inside = torch.cdist(made, real) <= radius
    return 100 * float(inside.any(dim=1).float().mean()), 100 * float(inside.any(dim=0).float().mean())
