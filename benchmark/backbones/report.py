"""A backbone's report card: figures and a picture that say how good it is, before anything is distilled with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmark.backbones import folder as folders
from benchmark.backbones.backbone import Backbone
from benchmark.backbones.dit import validation_error
from benchmark.backbones.sampling import sample
from benchmark.core.compute import generator
from benchmark.core.progress import Progress
from benchmark.core.store import Store
from benchmark.data.base import Dataset

GUIDANCE = 4.0
STEPS = 50
TEST_IMAGES = 2000  # of the test split, reconstructed for the classifier (the report judges; nothing trains on them)
CLASSES = 20  # at most, of which samples are made: 10 to 50 a class, one to 200 training images
PICTURE_COLUMNS = 8

Classifier = Callable[[torch.Tensor], torch.Tensor]  # uint8 images at the dataset's size -> logits


def write_report(
    store: Store,
    folder: Path,
    backbone: Backbone,
    dataset: Dataset,
    held_out: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    judge: str = "",
) -> dict:
    """Measure ``backbone`` and write ``report.json`` and ``report.png`` into ``folder``.

    Args:
        held_out: (mean, std, backbone classes) of the training images that the backbone was not trained on.
        judge: the teacher that says what is recognised; "" is that of the protocol ``soft``.
    """
    began = time.monotonic()
    label, classify = classifier(store, dataset, backbone.device, judge)
    levels = validation_error(
        backbone.dit,
        *held_out,
        backbone.scheduler.alphas_cumprod.to(backbone.device),
        backbone.precision,
        backbone.device,
    )
    found = {
        "schema": 1,
        "dataset": dataset.name,
        "parameters": {
            "dit": sum(p.numel() for p in backbone.dit.parameters()),
            "vae": sum(p.numel() for p in backbone.vae.parameters()),
        },
        "image_size": backbone.image_size,
        "latent_shape": list(backbone.latent_shape),
        "classifier": label,
        "reconstruction": reconstruction(backbone, dataset, classify),
        "validation": {
            "loss": sum(error for _, error in levels) / len(levels),
            "levels": levels,
            "images": min(512, len(held_out[0])),
        },
        "samples": samples(backbone, dataset, classify),
    }
    picture(backbone, dataset).save(folder / "report.png")
    found["seconds"] = round(time.monotonic() - began, 1)
    (folder / folders.REPORT).write_text(json.dumps(found, indent=1))
    return found


def classifier(store: Store, dataset: Dataset, device: str, judge: str = "") -> tuple[dict, Classifier]:
    """The teacher ``judge``, by default that of the protocol ``soft``: trained on the real training images."""
    from benchmark.evaluation.protocols import load_protocol
    from benchmark.teachers import get_teacher

    teacher = get_teacher(store, dataset, judge or load_protocol("soft").teacher_of(dataset), device)
    return {"name": teacher.name, "key": teacher.key, "accuracy": teacher.accuracy}, teacher.logits


@torch.no_grad()
def reconstruction(backbone: Backbone, dataset: Dataset, classify: Classifier) -> dict:
    """Error of the VAE on test images, in grey levels (0 … 255), and what a classifier makes of its output."""
    count = min(TEST_IMAGES, len(dataset.test))
    chosen = np.linspace(0, len(dataset.test) - 1, count).astype(np.int64)
    labels = torch.from_numpy(dataset.test.labels[chosen])
    error, right_real, right_coded = 0.0, 0, 0
    for part in np.array_split(np.arange(count), -(-count // 256)):
        real = dataset.test.images(chosen[part])
        inputs = dataset.test.images(chosen[part], backbone.content_size, backbone.channels)
        coded = backbone.decode(backbone.encode(inputs, sample=False), dataset.image_size, dataset.channels)
        error += float((coded.float() - real.float()).square().mean()) * len(part)
        right_real += int((classify(real).argmax(1).cpu() == labels[part]).sum())
        right_coded += int((classify(coded).argmax(1).cpu() == labels[part]).sum())
    mse = error / count
    return {
        "images": count,
        "rmse_grey_levels": mse**0.5,
        "psnr_db": float(10 * np.log10(255**2 / max(mse, 1e-9))),
        "accuracy_real": 100 * right_real / count,
        "accuracy_reconstructed": 100 * right_coded / count,
    }


@torch.no_grad()
def samples(backbone: Backbone, dataset: Dataset, classify: Classifier) -> dict:
    """How often the classifier sees in a sample the class it was made for, at guidance 1 and at D3HR's 4."""
    classes = np.linspace(0, len(dataset.classes) - 1, min(CLASSES, len(dataset.classes))).astype(np.int64)
    each = int(np.clip(len(dataset.train) // (200 * len(dataset.classes)), 10, 50))
    wanted = torch.from_numpy(np.repeat(classes, each))
    found = {"count": len(wanted), "steps": STEPS}
    for guidance in (1.0, GUIDANCE) if backbone.null_class is not None else (1.0,):
        right = []
        with Progress(len(wanted), f"backbone report (guidance {guidance:g})", "image") as bar:
            for part in torch.arange(len(wanted)).split(50):
                draws = [generator("report", int(i)) for i in part]
                latents = sample(backbone, backbone.class_map[wanted[part]], STEPS, guidance, draws)
                images = backbone.decode(latents, dataset.image_size, dataset.channels)
                right.append(classify(images).argmax(1).cpu() == wanted[part])
                bar.update(len(part))
        hits = torch.cat(right).float()
        found[f"recognised_guidance_{guidance:g}"] = 100 * float(hits.mean())
        found[f"recognised_by_class_guidance_{guidance:g}"] = {
            dataset.classes[c]: 100 * float(hits[wanted == c].mean()) for c in classes.tolist()
        }
    return found


@torch.no_grad()
def picture(backbone: Backbone, dataset: Dataset, most: int = CLASSES) -> Image.Image:
    """A row a class: a real image and its reconstruction, twice, a gap, then guided samples."""
    guidance = GUIDANCE if backbone.null_class is not None else 1.0
    size, channels, gap = dataset.image_size, dataset.channels, 2
    zoom = max(1, 48 // size)
    rows = []
    for index in range(min(most, len(dataset.classes))):
        chosen = dataset.train.by_class[index][:2]
        real = dataset.train.images(chosen)
        inputs = dataset.train.images(chosen, backbone.content_size, backbone.channels)
        coded = backbone.decode(backbone.encode(inputs, sample=False), size, channels)
        draws = [generator("picture", index, i) for i in range(PICTURE_COLUMNS)]
        wanted = backbone.class_map[index].repeat(PICTURE_COLUMNS)
        made = backbone.decode(sample(backbone, wanted, STEPS, guidance, draws), size, channels)
        tiles = [t for pair in zip(real, coded) for t in pair] + list(made)
        row = torch.full((channels, size, len(tiles) * (size + gap) + 2 * gap), 255, dtype=torch.uint8)
        for column, tile in enumerate(tiles):
            left = column * (size + gap) + (2 * gap if column >= 2 * len(real) else 0)
            row[:, :, left : left + size] = tile
        rows.append(row)
    sheet = torch.cat([torch.nn.functional.pad(r, (0, 0, 0, gap), value=255) for r in rows], dim=1)
    array = sheet.permute(1, 2, 0).numpy()
    image = Image.fromarray(array[:, :, 0] if channels == 1 else array)
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
