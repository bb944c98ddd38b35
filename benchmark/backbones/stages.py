"""The stages of a trained backbone; light, so that ``plan`` knows every key without torch."""

from __future__ import annotations

from typing import Any

from benchmark.backbones.settings import Settings, settings
from benchmark.core.store import Stage
from benchmark.data.base import Dataset

VAE_VERSION = 1
BACKBONE_VERSION = 1
LATENTS_VERSION = 1
LATENTS_CHUNK = 256


def backbone_stage(dataset: Dataset, preset: str, **overrides: Any) -> Stage:
    """The stage of the backbone that :func:`benchmark.backbones.train_backbone` makes for the same arguments.

    Args:
        overrides: fields of `benchmark.backbones.settings.Settings`.
    """
    return backbone_stage_of(dataset, settings(dataset, preset, **overrides))


def backbone_stage_of(dataset: Dataset, chosen: Settings) -> Stage:
    inputs = {"dataset": dataset.digest, "vae": vae_stage(dataset, chosen).key}
    precision = chosen.policy.document()
    return Stage("backbone", BACKBONE_VERSION, chosen.document(), inputs, chosen.seed, precision)


def vae_stage(dataset: Dataset, chosen: Settings) -> Stage:
    """The stage of the autoencoder alone: DiTs of other sizes share it."""
    inputs, precision = {"dataset": dataset.digest}, chosen.policy.document()
    return Stage("backbone.vae", VAE_VERSION, chosen.vae_document(), inputs, chosen.seed, precision)


def latents_stage(
    dataset: Dataset, class_index: int, vae_key: str, image_size: int, padding: int, precision: dict[str, Any]
) -> Stage:
    """The stage of the VAE latents' moments of one class of the training split."""
    params = {"class": class_index, "image_size": image_size, "padding": padding}
    inputs = {"dataset": dataset.digest, "vae": vae_key}
    return Stage("backbone.latents", LATENTS_VERSION, params, inputs, None, precision, LATENTS_CHUNK)
