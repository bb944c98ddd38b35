"""The two minimax criteria and the memories they compare with.

Source: Minimax (arXiv 2311.15529, equations 4 to 6), repository vimar-gu/MinimaxDiffusion, ``train_dit.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


class Memories:
    """The last ``size`` real latents and predicted ones of each class, detached."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.real: dict[int, torch.Tensor] = {}
        self.predicted: dict[int, torch.Tensor] = {}

    def add(self, label: int, real: torch.Tensor, predicted: torch.Tensor) -> None:
        """Append ``[n, c, h, w]`` of each, forget the oldest."""
        for memory, new in ((self.real, real), (self.predicted, predicted)):
            kept = [memory[label]] if label in memory else []
            memory[label] = torch.cat([*kept, new.detach()])[-self.size :]

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a checkpoint."""
        return {
            f"{kind}.{label}": value.contiguous()
            for kind in ("real", "predicted")
            for label, value in getattr(self, kind).items()
        }

    def load(self, tensors: dict[str, torch.Tensor], device: str) -> None:
        """The inverse of :meth:`tensors`."""
        for name, value in tensors.items():
            kind, label = name.split(".")
            getattr(self, kind)[int(label)] = value.to(device)


def similarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosine similarities ``[n, m]`` of ``[n, …]`` and ``[m, …]``."""
    return F.normalize(a.flatten(1), dim=1) @ F.normalize(b.flatten(1), dim=1).T


def criteria(
    predicted: torch.Tensor, real: torch.Tensor, labels: torch.Tensor, memories: Memories
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both criteria of a batch (to be minimised); then the batch enters the memories.

    *Representativeness*: 1 - the smallest similarity between predicted latents and the real memory of their class.
    *Diversity*: the largest similarity between predicted latents and the predicted memory of their class. Each is the
    mean over the batch's classes; a class not yet remembered adds 0.

    Args:
        predicted: predicted clean latents ``[n, c, h, w]``; real: the clean ones; labels: ``[n]``, best on the CPU:
            reading them from a GPU waits for all that it has to do.
    """
    representativeness = diversity = predicted.new_zeros(())
    present = labels.unique().tolist()
    for label in present:
        own = (labels == label).nonzero()[:, 0].to(predicted.device, non_blocking=True)
        if label in memories.predicted:
            representativeness = representativeness + 1 - similarity(predicted[own], memories.real[label]).min()
            diversity = diversity + similarity(predicted[own], memories.predicted[label]).max()
        memories.add(label, real[own], predicted[own])
    return representativeness / len(present), diversity / len(present)
