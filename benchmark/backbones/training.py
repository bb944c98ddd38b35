"""``ddbench backbone train``: VAE, latents, DiT, report card, all resumable, into one folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel

from benchmark.backbones import folder as folders
from benchmark.backbones.backbone import Backbone, load_backbone, pad
from benchmark.backbones.classifiers import Plain, get_classifier
from benchmark.backbones.dit import Moments, build_dit, make_scheduler
from benchmark.backbones.dit_training import train_dit
from benchmark.backbones.latents import all_moments
from benchmark.backbones.report import write_report
from benchmark.backbones.resident import token_features
from benchmark.backbones.settings import Settings, settings
from benchmark.backbones.stages import backbone_stage_of, hold_out, rung_stage, rungs, vae_stage
from benchmark.backbones.vae import train_vae
from benchmark.core import compute, distributed
from benchmark.core.errors import UsageError
from benchmark.core.store import Stage, Store
from benchmark.data.base import Dataset

VAE_BYTES = 1 << 31  # of images that the VAE's training holds in memory; of more an even selection


@dataclass(frozen=True)
class Run:
    """How a training is run; none of it changes the weights.

    Attributes:
        judge: the teacher that the report card asks; "" is that of the protocol ``soft``.
        ladder: keep the averaged weights at about 1, 3, 10 and 30 % of the DiT's steps too (`stages.rungs`).
        card_images: samples a class and guidance in the report card; 0 is a number that suits the dataset.
        deadline: value of ``time.monotonic()`` at which to stop with `benchmark.training.loop.OutOfTime`.
    """

    judge: str = ""
    ladder: bool = False
    card_images: int = 0
    deadline: float | None = None


def train_backbone(
    store: Store,
    dataset: Dataset,
    preset: str,
    device: str = "cpu",
    *,
    judge: str = "",
    run: Run | None = None,
    **overrides: Any,
) -> Path:
    """The folder of a backbone for ``dataset``: from the store, or trained now (resuming what a kill left).

    Args:
        preset: a registered preset (``tiny``, ``small``, ``base``, ``strong``).
        judge: the teacher that the report card asks, where ``run`` is not given.
        overrides: fields of `benchmark.backbones.settings.Settings`.

    Returns:
        A folder in DiTPipeline format with ``ddbench.json``, ``report.json``, ``report.png`` and ``curve.json``. The
        rungs of a ladder are stages of their own: :func:`rung_folders`.
    """
    chosen, run = settings(dataset, preset, **overrides), run or Run(judge)
    stage = backbone_stage_of(dataset, chosen)
    wanted = [stage, *(rung_stage(dataset, chosen, step) for step in rungs(chosen.dit_steps) if run.ladder)]
    found = store.open(stage) if distributed.decide(all(store.has(part) for part in wanted)) else None
    if found is not None:
        return found
    if distributed.decide(store.has(stage)):
        raise UsageError(
            "the whole training is in the store, without the rungs of its ladder",
            where="--ladder",
            hint=f"remove {store.path(stage)} and repeat the command: it trains again",
        )
    if run.ladder and distributed.size() > 1:
        raise UsageError("the rungs of a ladder are made by one process", where="--ladder", allowed="no torchrun")
    with compute.prepared("backbone", chosen.policy):
        vae_folder = distributed.build(
            store, vae_stage(dataset, chosen), lambda folder: _make_vae(store, dataset, chosen, device, folder, run)
        )
        return distributed.build(
            store, stage, lambda folder: _make(store, stage, dataset, chosen, device, vae_folder, run, folder)
        )


def rung_folders(store: Store, dataset: Dataset, chosen: Settings) -> dict[int, Path]:
    """Folders of the rungs that are in the store, by steps; the whole training is the last."""
    stages = {step: rung_stage(dataset, chosen, step) for step in rungs(chosen.dit_steps)}
    stages[chosen.dit_steps] = backbone_stage_of(dataset, chosen)
    return {step: path for step, stage in stages.items() if (path := store.open(stage)) is not None}


def _make_vae(store: Store, dataset: Dataset, chosen: Settings, device: str, folder: Path, run: Run) -> None:
    held = hold_out(dataset, chosen.held_out)
    kept = np.setdiff1d(np.arange(len(dataset.train)), held)
    most = VAE_BYTES // (dataset.channels * chosen.image_size**2)
    if len(kept) > most:
        kept = kept[np.linspace(0, len(kept) - 1, most).astype(np.int64)]
    features = None
    if chosen.perceptual:
        features = get_classifier(store, dataset, "plain", chosen.held_out, chosen.policy, device)
    size = chosen.image_size - 2 * chosen.padding
    images = pad(dataset.train.images(kept, size), chosen.padding)
    check = pad(dataset.train.images(held, size), chosen.padding)
    stage = vae_stage(dataset, chosen)
    vae, curve = train_vae(store, stage, chosen, images, check, device, features, run.deadline)
    vae.cpu().save_pretrained(folder / "vae")
    (folder / "curve.json").write_text(json.dumps(curve))


def _make(
    store: Store,
    stage: Stage,
    dataset: Dataset,
    chosen: Settings,
    device: str,
    vae_folder: Path,
    run: Run,
    folder: Path,
) -> None:
    vae_key = vae_stage(dataset, chosen).key
    vae = (
        AutoencoderKL.from_pretrained(vae_folder / "vae", low_cpu_mem_usage=False, use_safetensors=True)
        .to(device)
        .eval()
        .requires_grad_(False)
    )
    coder = untrained(dataset, chosen, vae, device, vae_key)
    held = hold_out(dataset, chosen.held_out)
    features = None
    if chosen.draws == "device":
        training, held_out = resident_moments(dataset, coder, held, bool(chosen.flips))
        if chosen.align:
            net = get_classifier(store, dataset, "plain", chosen.held_out, chosen.policy, device)
            features = resident_features(dataset, chosen, net, held, device)
    else:
        training, held_out = split_moments(store, dataset, coder, held)

    def publish(dit: DiTTransformer2DModel, curves: dict, place: Path, key: str, rung: int | None = None) -> None:
        about = {
            "schema": 1,
            "dataset": dataset.name,
            "classes": list(dataset.classes),
            "label_dropout": chosen.label_dropout,
            "padding": chosen.padding,
            "vae_key": vae_key,
            "settings": chosen.document(),
        }
        if rung is not None:
            about["rung"] = rung
        spare = AutoencoderKL.from_pretrained(vae_folder / "vae", low_cpu_mem_usage=False, use_safetensors=True)
        save_folder(place, spare, dit, make_scheduler(), about, curves)
        backbone = load_backbone(place, dataset, device, chosen.policy, key)
        write_report(store, place, backbone, dataset, held_out, run.judge, held=chosen.held_out, each=run.card_images)

    def at_rung(done: int, dit: DiTTransformer2DModel) -> None:
        part = rung_stage(dataset, chosen, done)
        store.build(part, lambda place: publish(dit, {}, place, part.key, done))

    steps = rungs(chosen.dit_steps) if run.ladder else []
    dit, _, curve = train_dit(
        store,
        stage,
        chosen,
        training,
        held_out,
        len(dataset.classes),
        device,
        rungs=steps,
        at_rung=at_rung,
        deadline=run.deadline,
        features=features,
    )
    curves = {
        "columns": ["step", "seconds", "training", "held_out"],
        "vae": json.loads((vae_folder / "curve.json").read_text()),
        "dit": curve,
    }
    publish(dit, curves, folder, stage.key)


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


def split_moments(
    store: Store, dataset: Dataset, backbone: Backbone, held_positions: np.ndarray
) -> tuple[Moments, Moments]:
    """The moments of the images to train on (mean and std as `Rows`), and of those held out (tensors)."""
    mean, std, labels, positions = all_moments(store, dataset, backbone)
    held = torch.isin(positions, torch.from_numpy(held_positions))
    classes = backbone.class_map[labels]
    kept, held = (mask.nonzero().flatten() for mask in (~held, held))
    return Moments(mean.take(kept), std.take(kept), classes[kept]), Moments(mean[held], std[held], classes[held])


def resident_moments(
    dataset: Dataset, backbone: Backbone, held_positions: np.ndarray, mirrored: bool
) -> tuple[Moments, Moments]:
    """As :func:`split_moments`, encoded anew and held on the device; mirrored images follow the others."""
    kept = np.setdiff1d(np.arange(len(dataset.train)), held_positions)

    def moments(chosen: np.ndarray, both: bool) -> Moments:
        images = dataset.train.images(chosen, backbone.content_size, backbone.channels)
        labels = backbone.class_map[torch.from_numpy(dataset.train.labels[chosen])]
        found = [backbone.moments(part) for part in ([images, images.flip(3)] if both else [images])]
        mean, std = (torch.cat([pair[i].half() for pair in found]) for i in (0, 1))
        return Moments(mean, std, labels.repeat(len(found)))

    mean, std, labels = moments(held_positions, False)
    return moments(kept, mirrored), Moments(mean.cpu(), std.cpu(), labels)


def resident_features(dataset: Dataset, chosen: Settings, net: Plain, held_positions: np.ndarray, device: str):
    """Features of the images of :func:`resident_moments`, one a token of the DiT."""
    kept = np.setdiff1d(np.arange(len(dataset.train)), held_positions)
    images = dataset.train.images(kept, chosen.image_size - 2 * chosen.padding)
    side = chosen.latent_size // chosen.patch
    found = [
        token_features(net, part, chosen.padding, side, chosen.policy, device)
        for part in ([images, images.flip(3)] if chosen.flips else [images])
    ]
    return torch.cat(found)


def save_folder(folder: Path, vae, dit, scheduler, about: dict, curves: dict) -> None:
    """Write the parts in DiTPipeline's own format, and beside them what it has no field for."""
    DiTPipeline(dit.float().cpu(), vae.float().cpu(), scheduler).save_pretrained(folder)
    (folder / folders.ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True))
    (folder / "curve.json").write_text(json.dumps(curves, indent=1))
