"""Random resized crops drawn from a seed of their own instead of torch's global state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global CPU generator seeded inside, as before outside (torchvision v1 draws from nothing else)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def random_resized_crops(
    image: torch.Tensor, size: int, count: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> torch.Tensor:
    """``count`` antialiased bilinear crops of ``image`` (``[..., H, W]``, float) resized to ``size`` pixels.

    Draws from torch's global generator: call inside :func:`seeded`.

    Returns:
        ``[count, ..., size, size]``.
    """
    boxes = [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(count)]
    return torch.stack([resized_crop(image, *box, [size, size], antialias=True) for box in boxes])
