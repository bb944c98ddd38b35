"""The diffusion transformer: diffusers' DiTTransformer2DModel, its initialisation and its loss."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from benchmark.backbones.settings import Settings
from benchmark.core import distributed
from benchmark.core.compute import Precision, generator
from benchmark.training.loop import batches

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, DiTTransformer2DModel  # imported where they are built: it takes seconds

TIMESTEPS = 1000


def make_scheduler() -> DDIMScheduler:
    """The scheduler of facebook/DiT-XL-2-256: 1000 linear levels, noise prediction, leading spacing."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=0.0001,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="epsilon",
    )


def build_dit(settings: Settings, num_classes: int) -> DiTTransformer2DModel:
    """An untrained DiT with the initialisation of the DiT paper (arXiv 2212.09748, section 3.2: adaLN-zero).

    diffusers leaves PyTorch's defaults, under which every block starts at full strength.
    """
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(settings.seed)
    dit = DiTTransformer2DModel(
        num_attention_heads=settings.heads,
        attention_head_dim=settings.width // settings.heads,
        in_channels=settings.latent_channels,
        out_channels=settings.latent_channels,
        num_layers=settings.depth,
        sample_size=settings.latent_size,
        patch_size=settings.patch,
        num_embeds_ada_norm=num_classes,
    )
    for module in dit.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    projection = dit.pos_embed.proj
    nn.init.xavier_uniform_(projection.weight.view(projection.weight.shape[0], -1))
    nn.init.zeros_(projection.bias)
    for block in dit.transformer_blocks:
        embedder = block.norm1.emb
        nn.init.normal_(embedder.class_embedder.embedding_table.weight, std=0.02)
        nn.init.normal_(embedder.timestep_embedder.linear_1.weight, std=0.02)
        nn.init.normal_(embedder.timestep_embedder.linear_2.weight, std=0.02)
        nn.init.zeros_(block.norm1.linear.weight)
    for layer in (dit.proj_out_1, dit.proj_out_2):
        nn.init.zeros_(layer.weight)
    fix_label_dropout(dit)
    return dit


def compile_blocks(dit: DiTTransformer2DModel) -> None:
    """``torch.compile`` of the transformer's blocks, in place: one compilation serves all of them."""
    dit._repeated_blocks = ["BasicTransformerBlock"]  # diffusers leaves it empty for DiT
    dit.compile_repeated_blocks()


def eager(compiled: int | bool) -> contextlib.AbstractContextManager:
    """A context in which compiled blocks run as they were written: for shapes that are met too seldom to compile."""
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


def label_tables(dit: DiTTransformer2DModel) -> list[nn.Module]:
    """The label embeddings of all blocks: diffusers' DiT holds one a block, each with a dropout of its own."""
    return [block.norm1.emb.class_embedder for block in dit.transformer_blocks]


def fix_label_dropout(dit: DiTTransformer2DModel) -> None:
    """Switch the blocks' independent label dropouts off; :func:`drop_labels` draws it once an image instead.

    With the built-in one an image is fully unconditional with probability 0.1 ** blocks only.
    """
    for table in label_tables(dit):
        table.dropout_prob = 0.0


def drop_labels(labels: torch.Tensor, null_class: int, share: float, uniform: torch.Tensor) -> torch.Tensor:
    """``labels`` with those where ``uniform`` < ``share`` replaced by the null class, for all blocks alike."""
    return torch.where(uniform < share, null_class, labels)


def noise_levels(count: int, draw: torch.Generator) -> torch.Tensor:
    """``count`` levels spread evenly over 0 … 999 and shuffled: uniform each, with less variance than free draws."""
    places = (torch.randperm(count, generator=draw) + torch.rand(count, generator=draw)) / count
    return (places * TIMESTEPS).long().clamp_(max=TIMESTEPS - 1)


def loss_weights(alphas_cumprod: torch.Tensor, gamma: float) -> torch.Tensor:
    """min-SNR weight of each noise level for noise prediction: min(snr, gamma) / snr; all 1 for gamma 0."""
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return torch.minimum(snr, torch.full_like(snr, gamma)) / snr if gamma else torch.ones_like(snr)


class Moments(NamedTuple):
    """Posterior moments of images' latents, scaled, ``[n, c, h, w]``, and their backbone classes, int64 ``[n]``."""

    mean: torch.Tensor
    std: torch.Tensor
    labels: torch.Tensor


class Denoising:
    """The training task: latents' moments and labels in, a loss out; everything random derived from the step.

    Args:
        moments: of the training images.
        null_class: index of the unconditional row.
        share: how often a label is dropped.
        name: goes into every derived seed.
    """

    def __init__(
        self,
        moments: Moments,
        null_class: int,
        share: float,
        gamma: float,
        scheduler: DDIMScheduler,
        precision: Precision,
        device: str,
        name: tuple,
    ) -> None:
        self.mean, self.std, self.labels = moments
        self.null_class, self.share, self.precision, self.device, self.name = null_class, share, precision, device, name
        self.alphas = scheduler.alphas_cumprod.to(device)
        self.weights = loss_weights(self.alphas, gamma)

    def loss(self, dit: nn.Module, step: int, batch: int) -> torch.Tensor:
        chosen = batches(len(self.mean), batch, step, *self.name)
        draw = generator(*self.name, "noise", step)
        mean, std = self.mean[chosen].float(), self.std[chosen].float()
        latents = mean + std * torch.randn(mean.shape, generator=draw)
        noise = torch.randn(mean.shape, generator=draw)
        levels = noise_levels(batch, draw)
        uniform = torch.rand(batch, generator=draw)
        labels = drop_labels(self.labels[chosen], self.null_class, self.share, uniform)
        rows, share = distributed.part(batch)
        parts = (latents, noise, levels, labels)
        latents, noise, levels, labels = (p[rows].to(self.device, non_blocking=True) for p in parts)
        error = noise_error(dit, latents, noise, levels, labels, self.alphas, self.precision)
        return (error * self.weights[levels]).mean() * share


def noise_error(dit, latents, noise, levels, labels, alphas, precision: Precision) -> torch.Tensor:
    """Mean squared error of the predicted noise, an image: float ``[n]``."""
    alpha = alphas[levels].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    with precision.context(latents.device.type):
        output = dit(noisy, timestep=levels, class_labels=labels).sample
    return (output[:, : latents.shape[1]].float() - noise).square().mean(dim=(1, 2, 3))


def validation_error(
    dit: nn.Module,
    moments: Moments,
    alphas: torch.Tensor,
    precision: Precision,
    device: str,
    *,
    levels: int = 10,
    limit: int = 512,
) -> list[tuple[int, float]]:
    """Noise-prediction error on held-out latents at ``levels`` even noise levels, with fixed noise.

    Returns:
        Pairs (noise level, mean squared error); 1.0 is what predicting zero gives.
    """
    draw = generator("backbone", "validation")
    mean, std, labels = (part[:limit] for part in moments)
    mean, std = mean.float(), std.float()
    latents = (mean + std * torch.randn(mean.shape, generator=draw)).to(device)
    noise, labels = torch.randn(mean.shape, generator=draw).to(device), labels.to(device)
    found = []
    with torch.no_grad():
        for index in range(levels):
            level = int((index + 0.5) * TIMESTEPS / levels)
            errors = [
                noise_error(dit, x, n, torch.full((len(x),), level, device=device), y, alphas, precision)
                for x, n, y in zip(latents.split(128), noise.split(128), labels.split(128))
            ]
            found.append((level, torch.cat(errors).mean()))
    return [(level, float(error)) for level, error in found]
