"""Accuracy and calibration on a dataset's test split, which stays on the device as uint8."""

from __future__ import annotations

from functools import lru_cache

import torch
import torchvision.transforms.functional as tv
from PIL import Image
from torch import Tensor, nn

from benchmark.datasets import Dataset
from benchmark.training.memory import is_out_of_memory

BATCH = 500


@lru_cache(maxsize=4)
def _cached(digest: str, size: int, stored: int, device: str, box: _Box) -> tuple[Tensor, Tensor]:
    split = box.dataset.test
    if stored == size:
        images = split.images(range(len(split)), size)
    else:
        images = torch.stack([_resize_then_crop(split.pil(i), stored, size, split.channels) for i in range(len(split))])
    return images.to(device), torch.from_numpy(split.labels).to(device)


def _resize_then_crop(image: Image.Image, stored: int, size: int, channels: int) -> Tensor:
    """torchvision's ``Resize(stored)`` (bilinear) and ``CenterCrop(size)`` of a PIL image, as uint8."""
    image = image.convert("L" if channels == 1 else "RGB")
    return tv.pil_to_tensor(tv.center_crop(tv.resize(image, [stored]), [size]))


class _Box:
    """Carries a dataset through the cache without being part of the key."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Box)


def test_set(dataset: Dataset, size: int | None = None, resize: float = 1.0, device: str = "cpu"):
    """Test images uint8 ``[n, C, size, size]`` and labels int64 ``[n]`` on the device, cached for the process.

    ``resize`` 8/7 is the published ``Resize(size // 7 * 8)`` followed by a centre crop; where the stored images are
    no larger than ``size`` it makes no difference at 32 px (32 // 7 * 8 = 32) and is followed elsewhere.
    """
    size = size or dataset.image_size
    stored = size // 7 * 8 if abs(resize - 8 / 7) < 1e-3 else round(size * resize)
    return _cached(dataset.digest, size, max(stored, size), str(device), _Box(dataset))


test_set.__test__ = False  # not a test, whatever pytest thinks of its name


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, normalise, batch: int = BATCH) -> Tensor:
    """Logits float32 ``[n, classes]`` of uint8 images, in evaluation mode; the model's mode is put back.

    Batches are halved while memory is too small for them.
    """
    was = model.training
    model.eval()
    out, done = [], 0
    while done < len(images):
        try:
            out.append(model(normalise(images[done : done + batch])).float())
        except RuntimeError as error:
            if not is_out_of_memory(error) or batch == 1:
                raise
            batch //= 2
            continue
        done += batch
    model.train(was)
    return torch.cat(out)


def accuracy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Top-1 and top-5 in percent (top-5 is 100 with five classes or fewer)."""
    k = min(5, logits.shape[1])
    hits = logits.topk(k, dim=1).indices == labels[:, None]
    return 100 * hits[:, 0].double().mean().item(), 100 * hits.any(dim=1).double().mean().item()


def calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error in percent: |confidence - accuracy| over equal-width bins (Guo et al. 2017, eq. 3)."""
    confidence, guess = logits.double().softmax(dim=1).max(dim=1)
    right = (guess == labels).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    zeros = torch.zeros(bins, dtype=torch.float64, device=logits.device)
    gap = zeros.index_add(0, place, confidence - right)
    return 100 * (gap.abs().sum() / len(labels)).item()
