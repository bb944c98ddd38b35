"""How far a group of latents is from its class's Gaussian: the paper's score, the released code's, and KL.

All take whitened groups: ``x = (latent - mean) / std`` per coordinate, shape ``[m, n, d]``, and the class's ``std``
``[d]``. Lower is better. A term that a group of that size cannot have is left out: the deviation of one latent, the
skewness of two or fewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

FORMS = ("paper", "released", "kl")
LAMBDA = {"paper": 0.5, "released": 0.1, "kl": 0.0}  # weight of the skewness term: the paper's and the code's


@dataclass(frozen=True)
class Score:
    """A score's form and the weights of its three terms."""

    form: str = "paper"
    mean: float = 1.0
    std: float = 1.0
    skew: float = 0.5

    def __call__(self, groups: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        """Scores ``[m]`` of whitened groups ``[m, n, d]``, in the groups' precision."""
        mean, deviation, skew = moments(groups)
        if self.form == "released" and groups.shape[1] > 1:
            skew = _skew_over_features(groups, mean, deviation)
        return self.of_moments(mean, deviation, skew, std, groups.shape[1])

    def of_moments(self, mean, deviation, skew, std: torch.Tensor, n: int) -> torch.Tensor:
        """From per-coordinate mean, unbiased deviation and skewness, each ``[m, d]`` (released: skew ``[m, n]``)."""
        if self.form == "kl":
            return kl(mean, deviation if n > 1 else None)
        total = self.mean * (mean * std).norm(dim=-1)
        if n > 1 and self.std:
            total = total + self.std * ((deviation - 1) * std).norm(dim=-1)
        if n > (2 if self.form == "paper" else 1) and self.skew:
            total = total + self.skew * skew.norm(dim=-1)
        return total


def moments(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, unbiased standard deviation and biased skewness of each coordinate over the group, each ``[m, d]``."""
    n = groups.shape[1]
    mean = groups.mean(1)
    centred = groups - mean[:, None]
    square = centred.square()
    second = square.mean(1)
    third = (square * centred).mean(1)
    return mean, (second * (n / max(n - 1, 1))).sqrt(), third / second.clamp_min(1e-30) ** 1.5


def _skew_over_features(groups, mean, deviation) -> torch.Tensor:
    """The authors' ``skewness_batch``: standardised over the group but summed over the features of each latent."""
    d = groups.shape[2]
    cubes = ((groups - mean[:, None]) / deviation[:, None]) ** 3
    return cubes.sum(2) * (d / max((d - 1) * (d - 2), 1))


def kl(mean: torch.Tensor, deviation: torch.Tensor | None) -> torch.Tensor:
    """KL divergence of the class's Gaussian from the group's, summed over coordinates (authors: ``kl_divergence``)."""
    if deviation is None:
        return mean.square().sum(-1) / 2
    return (deviation.log() + (1 + mean.square()) / (2 * deviation.square()) - 0.5).sum(-1)
