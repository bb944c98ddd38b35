"""The autoencoder of a trained backbone: diffusers' AutoencoderKL, its latents normalised channel by channel."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL

from benchmark.backbones import resident
from benchmark.backbones.classifiers import Plain
from benchmark.backbones.settings import Settings
from benchmark.core import distributed
from benchmark.core.compute import generator
from benchmark.core.store import Stage, Store
from benchmark.training.loop import Averaged, batches, rate_at, train


def build_vae(settings: Settings, channels: int) -> AutoencoderKL:
    """An untrained VAE for ``channels`` x ``image_size`` px; no attention (it costs time and buys nothing here)."""
    width = settings.vae_width
    widths = tuple(width * min(2**level, 4) for level in range(settings.levels))
    torch.manual_seed(settings.seed)
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * settings.levels,
        up_block_types=("UpDecoderBlock2D",) * settings.levels,
        block_out_channels=widths,
        layers_per_block=settings.vae_layers,
        latent_channels=settings.latent_channels,
        norm_num_groups=8,
        sample_size=settings.image_size,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def train_vae(
    store: Store,
    stage: Stage,
    settings: Settings,
    images: torch.Tensor,
    held_out: torch.Tensor,
    device: str,
    features: Plain | None = None,
    deadline: float | None = None,
) -> tuple[AutoencoderKL, list[list[float]]]:
    """Train on ``images`` uint8 ``[n, C, s, s]``: absolute error per pixel plus ``kl_weight`` x KL per coordinate.

    Args:
        features: the classifier of the perceptual term, where ``settings.perceptual`` is above 0.
        deadline: value of ``time.monotonic()`` at which to stop with `benchmark.training.loop.OutOfTime`.

    Returns:
        The VAE with averaged weights and normalised latents, and the curve (evaluation: held-out absolute error).
    """
    with torch.random.fork_rng(devices=[]):
        vae = build_vae(settings, images.shape[1]).to(device)
    if settings.draws == "device":
        vae.to(memory_format=torch.channels_last)
    vae.train()
    state = Averaged(vae, settings.vae_lr, 0.0, settings.ema_width)
    policy = settings.policy

    def loss_of(pixels: torch.Tensor, noise: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        with policy.context(device):
            moments = vae.encode(pixels).latent_dist
            latents = moments.mean if noise is None else moments.mean + moments.std * noise
            decoded = vae.decode(latents).sample.float()
        mean, logvar = moments.mean.float(), moments.logvar.float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return (decoded - pixels).abs().mean(), divergence

    def step(index: int) -> torch.Tensor:
        chosen = batches(len(images), settings.vae_batch, index, "vae", settings.seed)
        pixels = to_pixels(images[chosen], device)
        noise = torch.randn(
            len(chosen),
            settings.latent_channels,
            settings.latent_size,
            settings.latent_size,
            generator=generator("vae", settings.seed, "noise", index),
        ).to(device, non_blocking=True)
        rows, share = distributed.part(len(chosen))
        error, divergence = loss_of(pixels[rows], noise[rows])
        ((error + settings.kl_weight * divergence) * share).backward()
        state.step(index, rate_at(index, settings.vae_steps, 0.05))
        return error.detach().double() * share

    def evaluate() -> float:
        with torch.no_grad():
            parts = [loss_of(to_pixels(part, device), None)[0] for part in held_out[:512].split(128)]
        return float(torch.stack(parts).mean())

    total, sample, more = settings.vae_steps, images[:2048], {}
    if settings.draws == "device":
        step = resident.vae_step(vae, state, settings, images, features, device)
        sample = images[torch.linspace(0, len(images) - 1, min(len(images), 2048)).long()]
        more = {"read_steps": resident.READ_STEPS}
    curve = train(store, stage, "backbone vae", total, state, step, evaluate, evaluations=8, deadline=deadline, **more)
    state.swap()
    vae.eval().to(memory_format=torch.contiguous_format)
    normalise(vae, sample, device)
    return vae, curve


def to_pixels(images: torch.Tensor, device: str) -> torch.Tensor:
    """uint8 0..255 to float -1..1."""
    return images.to(device, non_blocking=True).float() / 127.5 - 1


@torch.no_grad()
def normalise(vae: AutoencoderKL, images: torch.Tensor, device: str) -> None:
    """Give every latent channel mean 0 and variance 1 over ``images`` by rewriting the two 1x1 convolutions.

    diffusers' pipelines know one scaling factor only; folded into the weights, the channels' own mean and scale need
    no further field and any diffusers program reads the folder. The scaling factor is then 1.
    """
    parts = [vae.encode(to_pixels(part, device)).latent_dist for part in images.split(256)]
    mean = torch.cat([p.mean for p in parts])
    variance = mean.var(dim=(0, 2, 3)) + torch.cat([p.var for p in parts]).mean(dim=(0, 2, 3))
    mean, std = mean.mean(dim=(0, 2, 3)), variance.sqrt()
    channels = len(mean)
    # encoder: mean' = (mean - m) / s and logvar' = logvar - 2 log s
    weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
    weight[:channels] /= std[:, None, None, None]
    bias[:channels] = (bias[:channels] - mean) / std
    bias[channels:] -= 2 * std.log()
    # decoder: takes z' = (z - m) / s
    weight, bias = vae.post_quant_conv.weight, vae.post_quant_conv.bias
    bias += weight[:, :, 0, 0] @ mean
    weight *= std[None, :, None, None]
