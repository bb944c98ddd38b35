"""Accuracy and calibration on a dataset's test split: uint8 on the device, or read batch by batch where it is large."""

from __future__ import annotations

import os
from functools import lru_cache

import torch
import torchvision.transforms.functional as tv
from PIL import Image
from torch import Tensor, nn

from benchmark.data import Dataset
from benchmark.training.memory import is_out_of_memory, resident

BATCH = 500
SHARE = 8  # a test split is kept where it takes less than this part of the machine's memory (one a worker)


class TestImages:
    """The test split at ``size`` px, decoded anew with every slice: uint8 ``[n, C, size, size]``.

    For splits that would not fit in memory (ImageNet-1K at 224 px: 7.5 GB). Takes slices and index tensors, as a
    tensor does, and gives the same bytes.
    """

    __test__ = False  # not a test, whatever pytest thinks of its name

    def __init__(self, dataset: Dataset, size: int, stored: int) -> None:
        self.split, self.size, self.stored = dataset.test, size, stored

    def __len__(self) -> int:
        return len(self.split)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), self.split.channels, self.size, self.size

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        indices = range(len(self))[which] if isinstance(which, slice) else which.tolist()
        if self.stored == self.size:
            return self.split.images(indices, self.size)
        out = torch.empty(len(indices), *self.shape[1:], dtype=torch.uint8)
        for row, image in enumerate(self.split.map(self._resize_then_crop, indices)):
            out[row] = image
        return out

    def _resize_then_crop(self, image: Image.Image) -> Tensor:
        """torchvision's ``Resize(stored)`` (bilinear) and ``CenterCrop(size)`` of a PIL image, as uint8."""
        image = image.convert("L" if self.split.channels == 1 else "RGB")
        return tv.pil_to_tensor(tv.center_crop(tv.resize(image, [self.stored]), [self.size]))

    def decoded(self) -> Tensor:
        """All of it at once, read in batches."""
        out = torch.empty(self.shape, dtype=torch.uint8)
        for start in range(0, len(self), BATCH):
            out[start : start + BATCH] = self[start : start + BATCH]
        return out


def memory_limit() -> int:
    """Bytes that a decoded test split may take."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // SHARE


@lru_cache(maxsize=2)
def _cached(digest: str, size: int, stored: int, device: str, box: _Box) -> tuple[Tensor | TestImages, Tensor]:
    images: Tensor | TestImages = TestImages(box.dataset, size, stored)
    n, channels, height, width = images.shape
    if n * channels * height * width <= memory_limit():
        images = resident(images.decoded(), device)
    return images, torch.tensor(box.dataset.test.labels).to(device)


class _Box:
    """Carries a dataset through the cache without being part of the key."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Box)


def test_set(
    dataset: Dataset, size: int | None = None, resize: float = 1.0, device: str = "cpu"
) -> tuple[Tensor | TestImages, Tensor]:
    """Test images uint8 ``[n, C, size, size]`` and labels int64 ``[n]`` on the device, cached for the process.

    The images are a tensor, or a :class:`TestImages` that decodes what is sliced from it where the whole split would
    take too much memory; both give the same bytes.

    ``resize`` 8/7 is the published ``Resize(size // 7 * 8)`` followed by a centre crop; where the stored images are
    no larger than ``size`` it makes no difference at 32 px (32 // 7 * 8 = 32) and is followed elsewhere.
    """
    len(dataset.test)  # refuses a dataset without one, also where its images are cached
    size = size or dataset.image_size
    stored = size // 7 * 8 if abs(resize - 8 / 7) < 1e-3 else round(size * resize)
    return _cached(dataset.digest, size, max(stored, size), str(device), _Box(dataset))


test_set.__test__ = False  # not a test, whatever pytest thinks of its name


@torch.no_grad()
def predict(model: nn.Module, images: Tensor | TestImages, normalise, batch: int = BATCH) -> Tensor:
    """Logits float32 ``[n, classes]`` of uint8 images, in evaluation mode; the model's mode is put back.

    Batches are halved while memory is too small for them.
    """
    was = model.training
    model.eval()
    device = next(model.parameters()).device
    out, done = [], 0
    while done < len(images):
        try:
            out.append(model(normalise(images[done : done + batch].to(device))).float())
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
    found = _found(logits, labels)
    return 100 * found[:, 0].double().mean().item(), 100 * found.any(dim=1).double().mean().item()


def hits(logits: Tensor, labels: Tensor) -> list[bool]:
    """For each image whether the first answer is right; `accuracy`'s top-1 is their mean."""
    return _found(logits, labels)[:, 0].tolist()


def _found(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]


def calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error in percent: |confidence - accuracy| over equal-width bins (Guo et al. 2017, eq. 3)."""
    logits, labels = logits.cpu(), labels.cpu()  # a GPU adds in any order: other last digits every time
    confidence, guess = logits.double().softmax(dim=1).max(dim=1)
    right = (guess == labels).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add(0, place, confidence - right)
    return 100 * (gap.abs().sum() / len(labels)).item()
