"""``ddbench backbone train``: VAE, latents, DiT, report card, all resumable, into one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiTPipeline

from benchmark.backbones import folder as folders
from benchmark.backbones.backbone import Backbone, load_backbone, pad
from benchmark.backbones.dit import build_dit, make_scheduler, train_dit
from benchmark.backbones.latents import all_moments
from benchmark.backbones.report import write_report
from benchmark.backbones.settings import Settings, settings
from benchmark.backbones.stages import backbone_stage_of, vae_stage
from benchmark.backbones.vae import train_vae
from benchmark.core import compute, distributed
from benchmark.core.store import Stage, Store
from benchmark.data.base import Dataset

VAE_BYTES = 1 << 31  # of images that the VAE's training holds in memory; of more an even selection


def train_backbone(
    store: Store, dataset: Dataset, preset: str, device: str = "cpu", *, judge: str = "", **overrides: Any
) -> Path:
    """The folder of a backbone for ``dataset``: from the store, or trained now (resuming what a kill left).

    Args:
        preset: a registered preset (``tiny``, ``small``, ``base``).
        judge: the teacher that the report card asks; "" is that of the protocol ``soft``.
        overrides: fields of `benchmark.backbones.settings.Settings`.

    Returns:
        A folder in DiTPipeline format with ``ddbench.json``, ``report.json``, ``report.png`` and ``curve.json``.
    """
    chosen = settings(dataset, preset, **overrides)
    stage = backbone_stage_of(dataset, chosen)
    found = store.open(stage) if distributed.decide(store.has(stage)) else None
    if found is not None:
        return found
    with compute.prepared("backbone", chosen.policy):
        vae_folder = distributed.build(
            store, vae_stage(dataset, chosen), lambda folder: _make_vae(store, dataset, chosen, device, folder)
        )
        return distributed.build(
            store, stage, lambda folder: _make(store, stage, dataset, chosen, device, vae_folder, judge, folder)
        )


def hold_out(dataset: Dataset) -> np.ndarray:
    """Positions in the training split that no backbone trains on: every 20th image of a class, at most 1024 in all."""
    per_class = max(1, 1024 // len(dataset.classes))
    return np.sort(np.concatenate([p[10::20][:per_class] for p in dataset.train.by_class]))


def _make_vae(store: Store, dataset: Dataset, chosen: Settings, device: str, folder: Path) -> None:
    held = hold_out(dataset)
    kept = np.setdiff1d(np.arange(len(dataset.train)), held)
    most = VAE_BYTES // (dataset.channels * chosen.image_size**2)
    if len(kept) > most:
        kept = kept[np.linspace(0, len(kept) - 1, most).astype(np.int64)]
    size = chosen.image_size - 2 * chosen.padding
    images = pad(dataset.train.images(kept, size), chosen.padding)
    check = pad(dataset.train.images(held, size), chosen.padding)
    vae, curve = train_vae(store, vae_stage(dataset, chosen), chosen, images, check, device)
    vae.cpu().save_pretrained(folder / "vae")
    (folder / "curve.json").write_text(json.dumps(curve))


def _make(
    store: Store,
    stage: Stage,
    dataset: Dataset,
    chosen: Settings,
    device: str,
    vae_folder: Path,
    judge: str,
    folder: Path,
) -> None:
    vae_key = vae_stage(dataset, chosen).key
    vae = (
        AutoencoderKL.from_pretrained(vae_folder / "vae", low_cpu_mem_usage=False)
        .to(device)
        .eval()
        .requires_grad_(False)
    )
    coder = untrained(dataset, chosen, vae, device, vae_key)
    training, held_out = split_moments(store, dataset, coder)
    dit, scheduler, curve = train_dit(store, stage, chosen, training, held_out, len(dataset.classes), device)
    curves = {
        "columns": ["step", "seconds", "training", "held_out"],
        "vae": json.loads((vae_folder / "curve.json").read_text()),
        "dit": curve,
    }
    about = {
        "schema": 1,
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "label_dropout": chosen.label_dropout,
        "padding": chosen.padding,
        "vae_key": vae_key,
        "settings": chosen.document(),
    }
    save_folder(folder, vae, dit, scheduler, about, curves)
    backbone = load_backbone(folder, dataset, device, chosen.policy, stage.key)
    write_report(store, folder, backbone, dataset, held_out, judge)


def untrained(dataset: Dataset, chosen: Settings, vae: AutoencoderKL, device: str, vae_key: str) -> Backbone:
    """A backbone around ``vae`` that can encode; its DiT is never run."""
    side = chosen.latent_size
    return Backbone(
        vae=vae,
        dit=build_dit(Settings(width=8, heads=1, depth=1, image_size=8, levels=1), 1),
        scheduler=make_scheduler(),
        device=device,
        precision=chosen.policy,
        image_size=chosen.image_size,
        latent_shape=(chosen.latent_channels, side, side),
        num_classes=len(dataset.classes),
        null_class=None,
        learned_sigma=False,
        class_map=torch.arange(len(dataset.classes)),
        key="",
        vae_key=vae_key,
        padding=chosen.padding,
    )


def split_moments(store: Store, dataset: Dataset, backbone: Backbone):
    """(mean, std, backbone classes) of the images to train on (`Rows`), and of those held out (tensors)."""
    mean, std, labels, positions = all_moments(store, dataset, backbone)
    held = torch.isin(positions, torch.from_numpy(hold_out(dataset)))
    classes = backbone.class_map[labels]
    kept, held = (mask.nonzero().flatten() for mask in (~held, held))
    return (mean.take(kept), std.take(kept), classes[kept]), (mean[held], std[held], classes[held])


def save_folder(folder: Path, vae, dit, scheduler, about: dict, curves: dict) -> None:
    """Write the parts in DiTPipeline's own format, and beside them what it has no field for."""
    DiTPipeline(dit.float().cpu(), vae.float().cpu(), scheduler).save_pretrained(folder)
    (folder / folders.ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True))
    (folder / "curve.json").write_text(json.dumps(curves, indent=1))
