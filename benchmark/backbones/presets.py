"""Sizes at which a backbone is trained, as dicts of `benchmark.backbones.settings.Settings` fields."""

TINY = {
    "width": 128,
    "depth": 4,
    "heads": 4,
    "vae_width": 16,
    "vae_steps": 1500,
    "vae_batch": 64,
    "dit_steps": 1000,
    "dit_batch": 128,
    "dit_lr": 2e-3,
    "precision": "fp32",
}

SMALL = {
    "width": 256,
    "depth": 6,
    "heads": 4,
    "vae_width": 16,
    "vae_steps": 2000,
    "vae_batch": 64,
    "dit_steps": 3000,
    "dit_batch": 128,
    "dit_lr": 1e-3,
    "precision": "bf16",
}

BASE = {
    "width": 384,
    "depth": 12,
    "heads": 6,
    "vae_width": 64,
    "vae_steps": 20000,
    "vae_batch": 128,
    "dit_steps": 100000,
    "dit_batch": 256,
    "dit_lr": 4e-4,
    "precision": "bf16",
}

# For a GPU: minutes there, days on a CPU. What a dataset wants of it stands in datasets.yaml.
STRONG = {
    "width": 256,
    "depth": 6,
    "heads": 4,
    "latent_channels": 8,
    "patch": 1,
    "vae_width": 24,
    "vae_steps": 8000,
    "vae_batch": 256,
    "vae_lr": 1e-3,
    "perceptual": 0.5,
    "dit_steps": 30000,
    "dit_batch": 512,
    "dit_lr": 1e-3,
    "ema_width": 0.1,
    "label_dropout": 0.15,
    "held_out": 3000,
    "draws": "device",
    "compiled": 1,
    "precision": "bf16",
}
