"""Multi-formation: an image is cut into factor x factor tiles, each enlarged to a whole training image.

Source: IDC (arXiv 2205.14959, section 4.1), repository snu-mllab/Efficient-Dataset-Condensation, ``condense.py``
(``decode_zoom``). Enlarging is a matrix product along each side, so that its gradient is the same at every run on a GPU
too (``F.interpolate``'s is not).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 256  # images decoded at once
PADDING = 0.5  # grey, right and below, where the side does not divide by the factor


def enlargement(small: int, large: int) -> Tensor:
    """Bilinear weights ``[large, small]`` (pixel centres aligned as in ``F.interpolate``, edges repeated)."""
    position = ((torch.arange(large, dtype=torch.float64) + 0.5) * small / large - 0.5).clamp(0, small - 1)
    return (1 - (position[:, None] - torch.arange(small)).abs()).clamp(min=0).float()


def training_images(images: Tensor, labels: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Stored images and labels as students are trained on them: :func:`decode`, of 8-bit images rounded to 8 bits.

    Args:
        images: ``[n, C, H, H]`` in grey levels, uint8 or float32; labels: ``[n]``.
    """
    if factor == 1:
        return images, labels
    parts = [decode(part.float() / 255, factor).mul(255) for part in images.split(CHUNK)]
    if not images.is_floating_point():
        parts = [part.round().byte() for part in parts]
    return torch.cat(parts), torch.cat([part.repeat(factor**2) for part in labels.split(CHUNK)])


def decode(images: Tensor, factor: int) -> Tensor:
    """The training images of stored ones: the first tile of each image, then the second ones, row by row.

    Args:
        images: ``[…, n, C, H, H]`` in 0..1.

    Returns:
        ``[…, factor**2 * n, C, H, H]``; ``images`` itself for factor 1.
    """
    if factor == 1:
        return images
    side = images.shape[-1]
    small = math.ceil(side / factor)
    space = small * factor - side
    padded = F.pad(images, (0, space, 0, space), value=PADDING)
    tiles = [padded[..., i : i + small, j : j + small] for i in range(0, small * factor, small)
             for j in range(0, small * factor, small)]  # fmt: skip
    weights = enlargement(small, side).to(images.device, non_blocking=True)
    return weights @ torch.cat(tiles, dim=-4) @ weights.T
