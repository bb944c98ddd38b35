"""Training with the data and the random numbers on the device: what keeps a GPU busy (setting ``draws: device``).

Results are reproducible on one kind of device; another kind draws other numbers. `vae` and `dit` do the same with
numbers drawn on the host, equal on every device and slower.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import nn

from benchmark.backbones.classifiers import Plain, perceptual_distance
from benchmark.backbones.dit import TIMESTEPS, Moments, drop_labels, loss_weights, noise_error
from benchmark.backbones.settings import Settings
from benchmark.core import distributed
from benchmark.core.compute import Precision, derive_seed
from benchmark.training.loop import Averaged, rate_at

READ_STEPS = 50  # losses read at once


class Batches:
    """Positions of batch after batch: every epoch a new order, derived from its name and the epoch."""

    def __init__(self, count: int, size: int, device: str, *name: object) -> None:
        self.count, self.size, self.device, self.name = count, size, device, name
        self.orders: dict[int, torch.Tensor] = {}

    def __getitem__(self, step: int) -> torch.Tensor:
        """int64 ``[size]`` on the device; batches run on over the end of an epoch."""
        first, left, parts = step * self.size, self.size, []
        while left:
            epoch, offset = divmod(first, self.count)
            part = self._order(epoch)[offset : offset + left]
            parts.append(part)
            first, left = first + len(part), left - len(part)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _order(self, epoch: int) -> torch.Tensor:
        if epoch not in self.orders:
            draw = torch.Generator(self.device).manual_seed(derive_seed(*self.name, "epoch", epoch))
            self.orders = {k: v for k, v in self.orders.items() if k == epoch - 1}
            self.orders[epoch] = torch.randperm(self.count, generator=draw, device=self.device)
        return self.orders[epoch]


def vae_step(
    vae: AutoencoderKL, state: Averaged, settings: Settings, images: torch.Tensor, features: Plain | None, device: str
) -> Callable[[int], torch.Tensor]:
    """The function that makes step ``i`` of a VAE's training on ``images`` uint8 ``[n, C, s, s]``, held on ``device``.

    The loss is :func:`benchmark.backbones.vae.train_vae`'s plus ``perceptual`` x the distance of ``features``.
    """
    images = images.to(device)
    batches = Batches(len(images), settings.vae_batch, device, "vae", settings.seed)
    draw = torch.Generator(device)
    shape = (settings.vae_batch, settings.latent_channels, settings.latent_size, settings.latent_size)
    policy = settings.policy

    def loss_of(pixels: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with policy.context(device):
            mean, logvar = vae.quant_conv(vae.encoder(pixels)).chunk(2, dim=1)
            mean, logvar = mean.float(), logvar.float().clamp(-30, 20)
            latents = mean + (0.5 * logvar).exp() * noise
            decoded = vae.decoder(vae.post_quant_conv(latents)).float()
            divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
            error = (decoded - pixels).abs().mean()
            loss = error + settings.kl_weight * divergence
            if features is not None:
                loss = loss + settings.perceptual * perceptual_distance(features, decoded, pixels)
        return loss, error

    run = torch.compile(loss_of) if settings.compiled else loss_of

    def step(index: int) -> torch.Tensor:
        draw.manual_seed(derive_seed("vae", settings.seed, "step", index))
        pixels = images[batches[index]].float() / 127.5 - 1
        if settings.flips:
            turn = torch.rand(len(pixels), 1, 1, 1, generator=draw, device=device) < 0.5
            pixels = torch.where(turn, pixels.flip(3), pixels)
        noise = torch.randn(shape, generator=draw, device=device)
        rows, share = distributed.part(len(pixels))
        loss, error = run(pixels[rows].contiguous(memory_format=torch.channels_last), noise[rows])
        (loss * share).backward()
        state.step(index, rate_at(index, settings.vae_steps, 0.05))
        return error.detach().double() * share

    return step


class Alignment(nn.Module):
    """The distance of a block's output to a classifier's features of the clean image, token by token (REPA,
    arXiv 2410.06940, eq. 8: one minus the cosine, through a small network that is trained along and then dropped).

    Args:
        dit: its middle block is watched.
        features: ``[n, tokens, d]`` of the training images, in the order of the moments.
    """

    def __init__(self, dit: nn.Module, width: int, features: torch.Tensor) -> None:
        super().__init__()
        self.features, self.seen = features, {}
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, features.shape[-1]))
        blocks = dit.transformer_blocks

        def keep(block: nn.Module, given: tuple, output: torch.Tensor) -> None:
            self.seen["tokens"] = output

        self.handle = blocks[max(0, len(blocks) // 2 - 1)].register_forward_hook(keep)

    def distance(self, chosen: torch.Tensor, precision: Precision) -> torch.Tensor:
        """Mean over the batch of the last pass, whose images were ``chosen``."""
        wanted = self.features[chosen].float()
        with precision.context(wanted.device):
            made = self.head(self.seen.pop("tokens"))
        return 1 - nn.functional.cosine_similarity(made.float(), wanted, dim=-1).mean()


def token_features(net: Plain, images: torch.Tensor, padding: int, side: int, precision: Precision, device: str):
    """Half-precision features ``[n, side * side, d]`` of uint8 images: last maps of ``net`` at size ``side``."""
    found = []
    with torch.no_grad():
        for part in images.split(512):
            pixels = part.to(device).float() / 127.5 - 1
            if padding:
                pixels = nn.functional.pad(pixels, (padding,) * 4, mode="replicate")
            with precision.context(device):
                maps = net.maps(pixels)[-1].float()
            maps = nn.functional.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
            found.append(maps.flatten(2).transpose(1, 2).half())
    return torch.cat(found)


class Denoising:
    """`benchmark.backbones.dit.Denoising` with moments, labels and random numbers on the device.

    Args:
        moments: of the training images; kept in half precision.
    """

    def __init__(
        self,
        moments: Moments,
        null_class: int,
        settings: Settings,
        alphas: torch.Tensor,
        precision: Precision,
        device: str,
        alignment: Alignment | None = None,
    ) -> None:
        mean, std, labels = moments
        self.mean, self.std = (part.to(device, torch.float16) for part in (mean, std))
        self.labels, self.null_class, self.settings = labels.to(device), null_class, settings
        self.alphas, self.precision, self.device = alphas.to(device), precision, device
        self.weights = loss_weights(self.alphas, settings.snr_gamma)
        self.batches = Batches(len(mean), settings.dit_batch, device, "dit", settings.seed)
        self.draw = torch.Generator(device)
        self.alignment = alignment

    def loss(self, dit: nn.Module, step: int) -> torch.Tensor:
        """The loss of batch ``step``: this rank's share of it."""
        chosen, draw, device = self.batches[step], self.draw, self.device
        draw.manual_seed(derive_seed("dit", self.settings.seed, "step", step))
        mean, std = self.mean[chosen].float(), self.std[chosen].float()
        latents = mean + std * torch.randn(mean.shape, generator=draw, device=device)
        noise = torch.randn(mean.shape, generator=draw, device=device)
        count = len(chosen)
        places = torch.arange(count, device=device) + torch.rand(count, generator=draw, device=device)
        levels = (places * (TIMESTEPS / count)).long().clamp_(max=TIMESTEPS - 1)  # the batch's order is random already
        uniform = torch.rand(count, generator=draw, device=device)
        labels = drop_labels(self.labels[chosen], self.null_class, self.settings.label_dropout, uniform)
        rows, share = distributed.part(count)
        parts = (part[rows] for part in (latents, noise, levels, labels))
        latents, noise, levels, labels = parts
        error = noise_error(dit, latents, noise, levels, labels, self.alphas, self.precision)
        loss = (error * self.weights[levels]).mean() * share
        if self.alignment is not None:
            loss = loss + self.settings.align * share * self.alignment.distance(chosen[rows], self.precision)
        return loss
