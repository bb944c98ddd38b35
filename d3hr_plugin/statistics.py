"""Per-class Gaussians of inverted latents: streaming, mergeable, stored once for every IPC, seed and sampler."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


@dataclass
class Moments:
    """Count, mean and sum of squared deviations of every coordinate, float64 (Welford; merged as Chan et al. 1979)."""

    count: int
    mean: torch.Tensor
    squares: torch.Tensor

    @staticmethod
    def of(batch: torch.Tensor) -> Moments:
        """Of a batch ``[n, ...]``, two passes in float64."""
        batch = batch.detach().cpu().double()
        mean = batch.mean(0)
        return Moments(len(batch), mean, (batch - mean).square().sum(0))

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together."""
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + step.square() * (self.count * other.count / count)
        return Moments(count, mean, squares)

    @staticmethod
    def merged(parts: Iterable[Moments]) -> Moments:
        """All parts together, merged in the order given (so that the same parts give the same bits)."""
        parts = iter(parts)
        total = next(parts)
        for part in parts:
            total = total.merge(part)
        return total

    @property
    def variance(self) -> torch.Tensor:
        """Unbiased; zero for a single image (its class then has no spread that could be known)."""
        return self.squares / max(self.count - 1, 1)

    @property
    def std(self) -> torch.Tensor:
        """Square root of the unbiased variance."""
        return self.variance.sqrt()

    def tensors(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """For safetensors; ``Moments.read`` is the inverse."""
        count = torch.tensor(self.count, dtype=torch.int64)
        return {f"{prefix}count": count, f"{prefix}mean": self.mean, f"{prefix}squares": self.squares}

    @staticmethod
    def read(tensors: dict[str, torch.Tensor], prefix: str = "") -> Moments:
        """From what :meth:`tensors` gave."""
        return Moments(int(tensors[f"{prefix}count"]), tensors[f"{prefix}mean"], tensors[f"{prefix}squares"])


def save_moments(file: Path, moments: Moments, facts: dict) -> None:
    """Write ``count``, ``mean``, ``squares`` and, for other tools, the unbiased ``variance``; ``facts`` as metadata."""
    tensors = {**moments.tensors(), "variance": moments.variance}
    save_file(
        {k: v.contiguous() for k, v in tensors.items()}, file, metadata={k: json.dumps(v) for k, v in facts.items()}
    )


def load_moments(file: Path) -> tuple[Moments, dict]:
    """Moments and facts from :func:`save_moments`."""
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
        facts = {k: json.loads(v) for k, v in (opened.metadata() or {}).items()}
    return Moments.read(tensors), facts
