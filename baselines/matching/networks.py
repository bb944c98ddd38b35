"""The networks that look at the images: drawn anew again and again, some trained a little."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.api import Task, build_student, derive_seed

NETWORKS = ("convnet3_in", "convnet4_in", "convnet6_in", "resnetap10")  # without BatchNorm: see gradients.py


def published(size: int) -> str:
    """The papers' network for images of ``size`` pixels: ConvNet-3; ConvNet-4 from 64 px on; ResNetAP-10 from 128."""
    return "convnet3_in" if size < 64 else "convnet4_in" if size < 128 else "resnetap10"


class Learner:
    """One network whose weights are replaced (:meth:`renew`) and trained by SGD (:meth:`train`).

    Args:
        seed: what the draws depend on besides their number.
        settings: of ``torch.optim.SGD``.
    """

    def __init__(self, task: Task, name: str, *, seed: tuple = (), **settings: Any) -> None:
        self.task, self.name, self.settings = task, name, {"lr": 0.0} | settings
        self.seed = seed or (task.seed, task.method)
        self.net = self._build(0).to(task.device).train()
        self.weights = list(self.net.parameters())
        self.optimizer = torch.optim.SGD(self.weights, **self.settings)

    def _build(self, number: int) -> nn.Module:
        dataset, seed = self.task.dataset, derive_seed(*self.seed, "network", number)
        return build_student(self.name, len(dataset.classes), dataset.channels, dataset.image_size, seed)

    @torch.no_grad()
    def renew(self, number: int) -> None:
        """Replace the weights by the ``number``-th draw of (seed, method); what was trained is forgotten.

        They go to a GPU in one piece and from pinned memory, so that the host need not wait for it.
        """
        fresh = list(self._build(number).parameters())
        flat = torch.empty(sum(p.numel() for p in fresh), pin_memory=torch.device(self.task.device).type == "cuda")
        torch.cat([p.flatten() for p in fresh], out=flat)
        there = flat.to(self.task.device, non_blocking=True)
        for weight, new in zip(self.weights, there.split([p.numel() for p in fresh]), strict=True):
            weight.copy_(new.view_as(weight))
        self.optimizer = torch.optim.SGD(self.weights, **self.settings)

    def embed(self, images: Tensor) -> Tensor:
        """What the network's classifier sees: ``[n, features]``."""
        seen: list[Tensor] = []
        last = [module for module in self.net.modules() if isinstance(module, nn.Linear)][-1]
        handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.net(images)
        finally:
            handle.remove()
        return seen[0]

    def train(self, images: Tensor, labels: Tensor, others: Tensor | None = None, share: float = 1.0) -> Tensor:
        """One step; with the labels of a mixing partner, ``share`` is the part of the image's own.

        Returns:
            the logits before the step.
        """
        logits = self.net(images)
        loss = F.cross_entropy(logits, labels)
        if others is not None:
            loss = share * loss + (1 - share) * F.cross_entropy(logits, others)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return logits.detach()

    def tensors(self) -> dict[str, Tensor]:
        """Weights and momentum, for a checkpoint."""
        found = {f"weight/{i}": w.detach() for i, w in enumerate(self.weights)}
        for i, weight in enumerate(self.weights):
            momentum = self.optimizer.state.get(weight, {}).get("momentum_buffer")
            if momentum is not None:
                found[f"momentum/{i}"] = momentum
        return found

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of :meth:`tensors`."""
        for i, weight in enumerate(self.weights):
            weight.copy_(tensors[f"weight/{i}"])
            if f"momentum/{i}" in tensors:
                self.optimizer.state[weight]["momentum_buffer"] = tensors[f"momentum/{i}"].to(weight.device)
