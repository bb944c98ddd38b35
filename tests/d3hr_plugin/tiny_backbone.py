"""A tiny random diffusion transformer behind the backbone's interface, with the pixels as latents."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel


class TinyBackbone:
    """What D3HR uses of `benchmark.backbones.Backbone`; latents are 4x4x4, images 4x4 of one channel."""

    latent_shape, image_size, device, key, report = (4, 4, 4), 4, "cpu", "tiny", {}

    def __init__(self, num_classes: int = 10, learned_sigma: bool = True, unconditional: bool = False) -> None:
        self.num_classes, self.learned_sigma = num_classes, learned_sigma
        self.null_class = None if unconditional else num_classes
        self.class_map = torch.arange(num_classes)
        self.dit = tiny_dit(num_classes, learned_sigma)
        self.scheduler = DDIMScheduler(clip_sample=False, beta_schedule="linear")
        self.calls: list[int] = []

    def eps(self, latents, t, classes, guidance):
        self.calls.append(len(latents))
        n = len(latents)
        if guidance != 1:
            latents = torch.cat([latents, latents])
            classes = torch.cat([classes, torch.full_like(classes, self.null_class)])
        out = self.dit(latents, timestep=torch.full((len(latents),), t), class_labels=classes).sample[:, :4]
        return out if guidance == 1 else out[n:] + guidance * (out[:n] - out[n:])

    def decode(self, latents, size, channels, resample="lanczos"):
        gray = (latents.mean(1, keepdim=True) * 64 + 128).clamp(0, 255).to(torch.uint8)
        return torch.nn.functional.interpolate(gray, (size, size)).expand(-1, channels, -1, -1).contiguous()


def tiny_dit(num_classes: int, learned_sigma: bool) -> DiTTransformer2DModel:
    """A random DiT with two blocks whose zero-initialised outputs are made random too."""
    torch.manual_seed(0)
    dit = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8 if learned_sigma else 4,
        num_layers=2,
        sample_size=4,
        patch_size=2,
        num_embeds_ada_norm=num_classes,
    ).eval()
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return dit.requires_grad_(False)
