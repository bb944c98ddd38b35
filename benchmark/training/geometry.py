"""Augmentations of normalised images: shifts, erased squares, rotation and zoom, DSA's and DC's.

Each takes float ``[n, C, H, W]`` and a CPU generator, draws parameters for each image, and returns the same shape.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _uniform(n: int, low: float, high: float, generator: torch.Generator, device) -> Tensor:
    return torch.empty(n, 1, 1, 1).uniform_(low, high, generator=generator).to(device, non_blocking=True)


def _shift(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Shift each image by whole pixels (int64 ``[n]``), zeros come in."""
    n, _, height, width = x.shape
    down, right = (by.to(x.device, non_blocking=True) for by in (down, right))
    ys = torch.arange(height, device=x.device)[None, :, None] - down[:, None, None]
    xs = torch.arange(width, device=x.device)[None, None, :] - right[:, None, None]
    inside = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
    index = (ys.clamp(0, height - 1) * width + xs.clamp(0, width - 1)).view(n, 1, -1)
    moved = x.flatten(2).gather(2, index.expand(-1, x.shape[1], -1)).view_as(x)
    return moved * inside[:, None]


def crop_pad(x: Tensor, *, pad: float, generator: torch.Generator) -> Tensor:
    """Shift by up to ``pad`` of the side each way (DSA's ``rand_crop``; the usual CIFAR crop with padding)."""
    n, _, height, width = x.shape
    reach = int(height * pad + 0.5), int(width * pad + 0.5)
    down, right = (torch.randint(-r, r + 1, (n,), generator=generator) for r in reach)
    return _shift(x, down, right)


def cutout(x: Tensor, *, size: float, generator: torch.Generator) -> Tensor:
    """Erase a square of ``size`` of the side at a random place, partly outside at the border (DSA)."""
    n, _, height, width = x.shape
    bands = []
    for side in (height, width):
        length = int(side * size + 0.5)
        offset = torch.randint(0, side + (1 - length % 2), (n, 1), generator=generator)
        first, last = (offset - length // 2).clamp(0, side - 1), (offset - length // 2 + length - 1).clamp(0, side - 1)
        position = torch.arange(side)[None]
        bands.append(((position >= first) & (position <= last)).to(x.device, non_blocking=True))
    return x * ~(bands[0][:, None, :, None] & bands[1][:, None, None, :])


def _affine(x: Tensor, theta: Tensor) -> Tensor:
    # on the CPU: it is a matrix product, whose positions TF32 would round
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid.to(x.device, non_blocking=True), align_corners=False)


def _rotation(n: int, degrees: float, generator: torch.Generator) -> Tensor:
    angle = torch.empty(n).uniform_(-degrees, degrees, generator=generator) * torch.pi / 180
    zero = torch.zeros(n)
    return torch.stack([angle.cos(), (-angle).sin(), zero, angle.sin(), angle.cos(), zero], dim=1).view(n, 2, 3)


def _zoom(n: int, ratio: float, generator: torch.Generator) -> Tensor:
    sx, sy = (torch.empty(n).uniform_(1 / ratio, ratio, generator=generator) for _ in range(2))
    zero = torch.zeros(n)
    return torch.stack([sx, zero, zero, zero, sy, zero], dim=1).view(n, 2, 3)


def rotate_scale(x: Tensor, *, degrees: float, scale: float, generator: torch.Generator) -> Tensor:
    """Rotation and zoom together, bilinear, zeros outside."""
    n = len(x)
    turn, zoom = _rotation(n, degrees, generator), _zoom(n, scale, generator)
    theta = turn.clone()
    theta[:, :, :2] = turn[:, :, :2] @ zoom[:, :, :2]
    return _affine(x, theta)


def _color(x: Tensor, generator: torch.Generator) -> Tensor:
    n, device = len(x), x.device
    x = x + _uniform(n, -0.5, 0.5, generator, device)  # brightness 1.0
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * _uniform(n, 0.0, 2.0, generator, device) + mean  # saturation 2.0
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * _uniform(n, 0.5, 1.5, generator, device) + mean  # contrast 0.5


def _flip(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.where(_uniform(len(x), 0, 1, generator, x.device) < 0.5, x.flip(3), x)


def dsa(x: Tensor, *, strategy: str, generator: torch.Generator) -> Tensor:
    """DSA's augmentation when students are trained: one operation a batch, parameters for each image.

    ``VICO-UoE/DatasetCondensation``, ``utils.py``: ``DiffAugment`` with ``ParamDiffAug`` (mode S): brightness 1,
    saturation 2, contrast 0.5; shift 1/8; cutout 1/2; flip 1/2; zoom 1.2; rotation 15 degrees.
    """
    names = strategy.split("_")
    return _named(names[int(torch.randint(len(names), (), generator=generator))], x, generator)


def diffaug(x: Tensor, *, strategy: str, generator: torch.Generator) -> Tensor:
    """IDC's augmentation when students are trained: DSA's operations, flip, colour and cutout always where named.

    ``snu-mllab/Efficient-Dataset-Condensation``, ``misc/augment.py`` (``DiffAug``): flip, then colour, then one of the
    strategy's other operations for the batch, then cutout; parameters for each image.
    """
    names = strategy.split("_")
    rest = [name for name in names if name not in ("flip", "color", "cutout")]
    chosen = rest[int(torch.randint(len(rest), (), generator=generator))] if rest else ""
    for name in [n for n in ("flip", "color") if n in names] + [chosen] * bool(rest) + ["cutout"] * ("cutout" in names):
        x = _named(name, x, generator)
    return x


def _named(name: str, x: Tensor, generator: torch.Generator) -> Tensor:
    n = len(x)
    if name == "color":
        return _color(x, generator)
    if name == "crop":
        return crop_pad(x, pad=0.125, generator=generator)
    if name == "cutout":
        return cutout(x, size=0.5, generator=generator)
    if name == "flip":
        return _flip(x, generator)
    if name == "scale":
        return _affine(x, _zoom(n, 1.2, generator))
    if name == "rotate":
        return _affine(x, _rotation(n, 15.0, generator))
    raise ValueError(f"DSA has no operation {name!r}")
