"""The stages of a trained backbone; light, so that ``plan`` knows every key without torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmark.backbones.settings import Settings, settings
from benchmark.core.store import Stage
from benchmark.data.base import Dataset

VAE_VERSION = 1
BACKBONE_VERSION = 1
RUNG_VERSION = 1
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


def rung_stage(dataset: Dataset, chosen: Settings, step: int) -> Stage:
    """The stage of the averaged weights after ``step`` steps of the same training: a rung of the ladder."""
    top = backbone_stage_of(dataset, chosen)
    return Stage("backbone.rung", RUNG_VERSION, {**top.params, "rung": step}, top.inputs, top.seed, top.precision)


def rungs(total: int) -> list[int]:
    """Steps of a training of ``total`` after which a rung is kept: about 1, 3, 10 and 30 hundredths of it."""
    return sorted({max(1, round(share * total)) for share in (0.01, 0.03, 0.1, 0.3)} - {total})


def hold_out(dataset: Dataset, most: int = 1024) -> np.ndarray:
    """Positions in the training split that no backbone trains on: every 20th image of a class, at most ``most``."""
    per_class = max(1, most // len(dataset.classes))
    return np.sort(np.concatenate([p[10::20][:per_class] for p in dataset.train.by_class]))


def latents_stage(
    dataset: Dataset,
    class_index: int,
    vae_key: str,
    image_size: int,
    padding: int,
    precision: dict[str, Any],
    resize: str = "bicubic",
) -> Stage:
    """The stage of the VAE latents' moments of one class: its key holds that class's training images and no others."""
    params: dict[str, Any] = {"image_size": image_size, "padding": padding}
    if resize != "bicubic":  # the filter before there was a choice
        params["resize"] = resize
    inputs = {"class": dataset.train.class_digest(class_index), "vae": vae_key}
    return Stage("backbone.latents", LATENTS_VERSION, params, inputs, None, precision, LATENTS_CHUNK)
