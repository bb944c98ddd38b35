"""Fine-tuning a DiT with the minimax criteria: one optimisation step, its state, checkpoints.

Source: repository vimar-gu/MinimaxDiffusion, ``train_dit.py`` and ``run.sh``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from baselines.minimax.adapter import Adapter
from baselines.minimax.criteria import Memories, criteria
from baselines.minimax.variational import Bound
from benchmark.api import Backbone, batches, generator


@dataclass(frozen=True)
class Settings:
    """Of one fine-tuning."""

    batch: int
    lr: float
    representativeness: float
    diversity: float
    memory: int
    ema: float
    label_dropout: float


class Tuning:
    """The state of a fine-tuning; :meth:`step` draws everything random from the step's number.

    Args:
        latents: scaled latents of the phase's images, float32 ``[n, c, h, w]``; labels: dataset classes ``[n]``.
        name: goes into every seed.
    """

    def __init__(
        self, backbone: Backbone, latents: torch.Tensor, labels: torch.Tensor, settings: Settings, *name: object
    ) -> None:
        self.backbone, self.latents, self.labels, self.settings, self.name = backbone, latents, labels, settings, name
        self.adapter = Adapter(backbone.dit)
        self.alphas = backbone.scheduler.alphas_cumprod.to(backbone.device)
        self.bound = Bound(backbone.scheduler.alphas_cumprod, backbone.device)
        self.memories = Memories(settings.memory)
        trained = self.adapter.trained
        self.optimizer = torch.optim.AdamW(trained.values(), settings.lr, weight_decay=0.0)
        self.average = {key: value.clone() for key, value in self.adapter.values().items()}

    def losses(
        self, clean: torch.Tensor, labels: torch.Tensor, shown: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Diffusion loss, representativeness and diversity of a batch; enters it into the memories.

        Args:
            clean: latents; labels: dataset classes, on the CPU; shown: backbone classes, some replaced by the null
                class.
        """
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        with self.backbone.precision.context(self.backbone.device):
            output = self.adapter.dit(noisy, timestep=t, class_labels=shown).sample.float()
        guess = output[:, : clean.shape[1]]
        predicted = (noisy - (1 - alpha).sqrt() * guess) / alpha.sqrt()
        diffusion = F.mse_loss(guess, noise)
        if self.backbone.learned_sigma:
            diffusion = diffusion + self.bound(clean, noisy, predicted, output[:, clean.shape[1] :], t).mean()
        return diffusion, *criteria(predicted, clean, labels, self.memories)

    def batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The arguments of :meth:`losses` at step ``index``."""
        device, backbone = self.backbone.device, self.backbone
        rows = batches(len(self.latents), self.settings.batch, index, *self.name)
        draw = generator(*self.name, "step", index)
        clean, labels = self.latents[rows], self.labels[rows]
        t = torch.randint(0, len(self.alphas), (len(rows),), generator=draw)
        noise = torch.randn(clean.shape, generator=draw)
        dropped = torch.rand(len(rows), generator=draw) < self.settings.label_dropout
        shown = backbone.class_map[labels]
        if backbone.null_class is not None:
            shown = torch.where(dropped, backbone.null_class, shown)
        clean, shown, t, noise = (x.to(device, non_blocking=True) for x in (clean, shown, t, noise))
        return clean, labels, shown, t, noise

    def step(self, index: int) -> torch.Tensor:
        """One optimisation step; returns the diffusion loss."""
        diffusion, representativeness, diversity = self.losses(*self.batch(index))
        s = self.settings
        self.optimizer.zero_grad(set_to_none=True)
        (diffusion + s.representativeness * representativeness + s.diversity * diversity).backward()
        self.optimizer.step()
        for key, value in self.adapter.values().items():
            self.average[key].lerp_(value, 1 - s.ema)
        return diffusion.detach()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on, for a checkpoint."""
        found = {f"average/{k}": v for k, v in self.average.items()}
        for key, parameter in self.adapter.trained.items():
            found[f"value/{key}"] = parameter.detach()
            for name, state in self.optimizer.state.get(parameter, {}).items():
                found[f"{name}/{key}"] = state
        found.update({f"memory/{k}": v for k, v in self.memories.tensors().items()})
        return {k: v.contiguous() for k, v in found.items()}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of :meth:`tensors`."""
        memory = {}
        for name, value in tensors.items():
            kind, _, key = name.partition("/")
            if kind == "memory":
                memory[key] = value
            elif kind == "average":
                self.average[key].copy_(value)
            elif kind == "value":
                self.adapter.trained[key].data.copy_(value)
            else:
                parameter = self.adapter.trained[key]
                state = value if kind == "step" else value.to(parameter.device)
                self.optimizer.state[parameter][kind] = state
        self.memories.load(memory, self.backbone.device)
