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
from benchmark.backbones.classifiers import get_classifier, read
from benchmark.backbones.dit import Moments, validation_error
from benchmark.backbones.likeness import NEIGHBOURS, frechet, precision_coverage
from benchmark.backbones.sampling import sample
from benchmark.backbones.stages import hold_out
from benchmark.core.compute import generator
from benchmark.core.progress import Progress
from benchmark.core.store import Store
from benchmark.data.base import Dataset

GUIDANCE = 4.0  # of the picture: D3HR's
GUIDANCES = (1.0, 2.0, GUIDANCE)
STEPS = 50
IMAGES = 3000  # held-out training images, at most, that the judge sees
CLASSES = 20  # at most, of which samples are made: 10 to 50 a class, one to 200 training images
BATCH = 250  # samples made at once
PICTURE_COLUMNS = 8

Classifier = Callable[[torch.Tensor], torch.Tensor]  # uint8 images at the dataset's size -> logits


def write_report(
    store: Store,
    folder: Path,
    backbone: Backbone,
    dataset: Dataset,
    held_out: Moments,
    judge: str = "",
    *,
    held: int = 1024,
    each: int = 0,
) -> dict:
    """Measure ``backbone`` and write ``report.json`` and ``report.png`` into ``folder``.

    The test split is not looked at, so that a backbone can be chosen by its card.

    Args:
        held_out: of the training images that the backbone was not trained on.
        judge: the teacher that says which samples are recognised; "" is that of the protocol ``soft``.
        held: the most images that are held out (`stages.hold_out`).
        each: samples a class and guidance; 0 is 10 to 50, by the number of training images.
    """
    began = time.monotonic()
    label, classify = classifier(store, dataset, backbone.device, judge)
    levels = validation_error(
        backbone.dit,
        held_out,
        backbone.scheduler.alphas_cumprod.to(backbone.device),
        backbone.precision,
        backbone.device,
    )
    second = Judge(store, dataset, backbone, held)
    found = {
        "schema": 2,
        "dataset": dataset.name,
        "parameters": {
            "dit": sum(p.numel() for p in backbone.dit.parameters()),
            "vae": sum(p.numel() for p in backbone.vae.parameters()),
        },
        "image_size": backbone.image_size,
        "latent_shape": list(backbone.latent_shape),
        "classifier": label,
        "reconstruction": reconstruction(backbone, dataset, second),
        "validation": {
            "loss": sum(error for _, error in levels) / len(levels),
            "levels": levels,
            "images": min(512, len(held_out[0])),
        },
        "samples": samples(backbone, dataset, classify, second, each),
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


class Judge:
    """The second classifier, which has not seen the held-out images, and what it makes of them."""

    def __init__(self, store: Store, dataset: Dataset, backbone: Backbone, held: int) -> None:
        self.precision, self.device = backbone.precision, backbone.device
        self.net = get_classifier(store, dataset, "residual", held, backbone.precision, backbone.device)
        positions = hold_out(dataset, held)
        if len(positions) > IMAGES:
            positions = positions[np.linspace(0, len(positions) - 1, IMAGES).astype(np.int64)]
        self.positions = positions
        self.labels = torch.from_numpy(dataset.train.labels[positions])
        logits, self.features = self(dataset.train.images(positions))
        self.accuracy = 100 * float((logits.argmax(1) == self.labels).float().mean())

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and features of uint8 images at the dataset's size."""
        return read(self.net, images, self.precision, self.device)


@torch.no_grad()
def reconstruction(backbone: Backbone, dataset: Dataset, judge: Judge) -> dict:
    """Error of the VAE on held-out training images, in grey levels (0 … 255), and the judge's accuracy on it."""
    count, error, right = len(judge.positions), 0.0, 0
    for part in torch.arange(count).split(256):
        chosen = judge.positions[part.numpy()]
        real = dataset.train.images(chosen)
        inputs = dataset.train.images(chosen, backbone.content_size, backbone.channels)
        coded = backbone.decode(backbone.encode(inputs, sample=False), dataset.image_size, dataset.channels)
        error += float((coded.float() - real.float()).square().mean()) * len(part)
        right += int((judge(coded)[0].argmax(1) == judge.labels[part]).sum())
    mse = error / count
    return {
        "images": count,
        "split": "held-out training images",
        "rmse_grey_levels": mse**0.5,
        "psnr_db": float(10 * np.log10(255**2 / max(mse, 1e-9))),
        "accuracy_real": judge.accuracy,
        "accuracy_reconstructed": 100 * right / count,
    }


@torch.no_grad()
def samples(backbone: Backbone, dataset: Dataset, classify: Classifier, judge: Judge, each: int = 0) -> dict:
    """How often the classifier sees in a sample the class it was made for, and how like real images samples are.

    The Frechet distance is to the held-out images, in the judge's features.
    """
    classes = np.linspace(0, len(dataset.classes) - 1, min(CLASSES, len(dataset.classes))).astype(np.int64)
    each = each or int(np.clip(len(dataset.train) // (200 * len(dataset.classes)), 10, 50))
    wanted = torch.from_numpy(np.repeat(classes, each))
    real = judge.features[torch.isin(judge.labels, torch.from_numpy(classes))]
    found = {"count": len(wanted), "steps": STEPS, "real": len(real)}
    for guidance in GUIDANCES if backbone.null_class is not None else (1.0,):
        right, features = [], []
        with Progress(len(wanted), f"backbone report (guidance {guidance:g})", "image") as bar:
            for part in torch.arange(len(wanted)).split(BATCH):
                draws = [generator("report", int(i)) for i in part]
                latents = sample(backbone, backbone.class_map[wanted[part]], STEPS, guidance, draws, BATCH)
                images = backbone.decode(latents, dataset.image_size, dataset.channels)
                right.append(classify(images).argmax(1).cpu() == wanted[part])
                features.append(judge(images)[1])
                bar.update(len(part))
        hits, made = torch.cat(right).float(), torch.cat(features)
        found[f"recognised_guidance_{guidance:g}"] = 100 * float(hits.mean())
        found[f"recognised_by_class_guidance_{guidance:g}"] = {
            dataset.classes[c]: 100 * float(hits[wanted == c].mean()) for c in classes.tolist()
        }
        if len(real) > NEIGHBOURS and len(made) > 1:
            precision, coverage = precision_coverage(real, made)
            found[f"likeness_guidance_{guidance:g}"] = {
                "frechet": frechet(made, real),
                "precision": precision,
                "coverage": coverage,
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
