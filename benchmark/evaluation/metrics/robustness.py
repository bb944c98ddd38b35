"""Accuracy under common corruptions and under attack, of a trained student: optional metrics.

Corruptions follow ImageNet-C's kinds (Hendrycks and Dietterich 2019) in five strengths; parameters are given in parts
of the value range and of the image's side, so that they mean the same at 8 and at 224 px. Attacks are FGSM (Goodfellow
et al. 2015) and PGD (Madry et al. 2018) in the L-infinity norm, on pixel values in 0..1.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from benchmark.core.compute import generator
from benchmark.training.augment import Augmenter
from benchmark.training.testing import accuracy, predict, test_set

if TYPE_CHECKING:
    from benchmark.data import Dataset
    from benchmark.evaluation import Result

NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)  # deviation in 0..1 (CIFAR-10-C)
BLUR = (0.0125, 0.01875, 0.025, 0.03125, 0.0375)  # deviation in parts of the side (CIFAR-10-C: 0.4 to 1.2 px of 32)
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # factor around each image's mean (CIFAR-10-C)
JPEG = (80, 65, 58, 50, 40)  # quality (CIFAR-10-C)
RADIUS = 2 / 255  # L-infinity
PGD_STEPS = 10


@dataclass
class Context:
    """What a metric gets: the trained student and what it was trained for."""

    result: Result
    dataset: Dataset
    device: str = "cpu"
    limit: int = 1000  # test images, the first ones of a fixed permutation


def noise(images: Tensor, strength: int) -> Tensor:
    """Gaussian noise; the same draw for every student. uint8 in and out, ``strength`` 1 to 5."""
    draw = torch.randn(images.shape, generator=generator("corruption noise", strength)).to(images.device)
    return _levels(images.float() / 255 + NOISE[strength - 1] * draw)


def blur(images: Tensor, strength: int) -> Tensor:
    """Gaussian blur."""
    import torchvision.transforms.functional as tv

    sigma = BLUR[strength - 1] * images.shape[-1]
    size = min(2 * int(3 * sigma + 1) + 1, 2 * images.shape[-1] - 1)
    return _levels(tv.gaussian_blur(images.float() / 255, [size, size], [sigma, sigma]))


def contrast(images: Tensor, strength: int) -> Tensor:
    """Less contrast around each image's mean."""
    x = images.float() / 255
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return _levels((x - mean) * CONTRAST[strength - 1] + mean)


def jpeg(images: Tensor, strength: int) -> Tensor:
    """JPEG compression."""
    out = torch.empty_like(images, device="cpu")
    for row, image in enumerate(images.cpu()):
        array = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(array)).save(buffer, "JPEG", quality=JPEG[strength - 1])
        decoded = torch.from_numpy(np.asarray(Image.open(buffer)).copy())
        out[row] = decoded[None] if len(image) == 1 else decoded.permute(2, 0, 1)
    return out.to(images.device)


CORRUPTIONS = {"noise": noise, "blur": blur, "contrast": contrast, "jpeg": jpeg}


def _levels(x: Tensor) -> Tensor:
    return (x * 255).round().clamp(0, 255).to(torch.uint8)


def attack(
    model: nn.Module, normalise, images: Tensor, labels: Tensor, *, radius: float, steps: int, step: float
) -> Tensor:
    """Images (float, 0..1) within ``radius`` of ``images`` (float, 0..1) that raise the loss: ``steps`` signed steps.

    One step of size ``radius`` is FGSM; more are PGD without random start, so that results repeat.
    """
    adversarial = images.clone()
    for _ in range(steps):
        adversarial.requires_grad_(True)
        loss = F.cross_entropy(model(normalise(adversarial * 255)), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        with torch.no_grad():
            moved = adversarial + step * gradient.sign()
            adversarial = torch.minimum(torch.maximum(moved, images - radius), images + radius).clamp(0, 1)
    return adversarial.detach()


def _sample(context: Context) -> tuple[Tensor, Tensor, Augmenter]:
    augment: Augmenter = context.result.augment
    resize = context.result.resolved.get("test_resize", 1.0)  # as the student's accuracy was measured
    images, labels = test_set(context.dataset, augment.size, resize, context.device)
    order = torch.randperm(len(images), generator=generator("robustness"))[: context.limit]
    return images[order].to(labels.device), labels[order], augment


def corruptions(context: Context) -> dict[str, float]:
    """``corruption_KIND``: top-1 in percent, mean of five strengths; ``corruption_mean``."""
    images, labels, augment = _sample(context)
    scores = {}
    for name, corrupt in CORRUPTIONS.items():
        values = [
            accuracy(predict(context.result.model, corrupt(images, s), augment.normalise), labels)[0]
            for s in range(1, 6)
        ]
        scores[f"corruption_{name}"] = sum(values) / 5
    scores["corruption_mean"] = sum(scores.values()) / len(scores)
    return scores


def attacks(context: Context) -> dict[str, float]:
    """``fgsm`` and ``pgd``: top-1 in percent at radius 2/255, PGD with ten steps of 2.5 radius / 10."""
    images, labels, augment = _sample(context)
    model = context.result.model.eval()
    scores = {}
    for name, steps, step in (("fgsm", 1, RADIUS), ("pgd", PGD_STEPS, 2.5 * RADIUS / PGD_STEPS)):
        right = 0
        for start in range(0, len(images), 250):
            x, y = images[start : start + 250].float() / 255, labels[start : start + 250]
            bad = attack(model, augment.normalise, x, y, radius=RADIUS, steps=steps, step=step)
            with torch.no_grad():
                right += int((model(augment.normalise(bad * 255)).argmax(dim=1) == y).sum())
        scores[name] = 100 * right / len(images)
    return scores
