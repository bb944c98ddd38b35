"""Diffusion backbones: one folder in diffusers' DiTPipeline format, pretrained or trained here.

Attributes load on first use, so that registering (``benchmark.backbones.registered``) imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Backbone": "backbone",
    "load_backbone": "backbone",
    "backbone_stage": "stages",
    "train_backbone": "training",
    "finetune_backbone": "finetuning",
    "finetune_stage": "finetuning",
    "external_key": "folder",
    "sample": "sampling",
    "sampling_levels": "sampling",
    "Guidance": "sampling",
    "class_latents": "latents",
    "class_moments": "latents",
    "default_preset": "settings",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
