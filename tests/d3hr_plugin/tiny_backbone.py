"""A tiny random diffusion transformer behind the backbone's interface, with the pixels as latents."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

from benchmark.backbones import Backbone
from benchmark.core.compute import Precision


def tiny_backbone(
    num_classes: int = 10,
    learned_sigma: bool = True,
    unconditional: bool = False,
    width: int = 16,
    layers: int = 2,
    side: int = 4,
    channels: int = 1,
) -> Backbone:
    """Latents 4 x side x side, images of that side; ``calls`` lists the batch sizes of ``eps``."""
    torch.manual_seed(1)
    shape = {"block_out_channels": (8,), "norm_num_groups": 4, "latent_channels": 4}
    vae = AutoencoderKL(channels, channels, **shape, scaling_factor=0.5).eval()
    backbone = Backbone(
        vae=vae.requires_grad_(False),
        dit=tiny_dit(num_classes, learned_sigma, width, layers, side),
        scheduler=DDIMScheduler(clip_sample=False, beta_schedule="linear"),
        device="cpu",
        precision=Precision(),
        image_size=side,
        latent_shape=(4, side, side),
        num_classes=num_classes,
        null_class=None if unconditional else num_classes,
        learned_sigma=learned_sigma,
        class_map=torch.arange(num_classes),
        key="tiny",
        vae_key="tiny-vae",
    )
    backbone.calls = []
    eps = backbone.eps

    def counting(latents, t, classes, guidance):
        backbone.calls.append(len(latents))
        return eps(latents, t, classes, guidance)

    backbone.eps = counting
    return backbone


def tiny_dit(num_classes: int, learned_sigma: bool, width: int, layers: int, side: int) -> DiTTransformer2DModel:
    """A random DiT whose zero-initialised outputs are made random too."""
    torch.manual_seed(0)
    dit = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=width // 2,
        in_channels=4,
        out_channels=8 if learned_sigma else 4,
        num_layers=layers,
        sample_size=side,
        patch_size=2,
        num_embeds_ada_norm=num_classes,
    ).eval()
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return dit.requires_grad_(False)
