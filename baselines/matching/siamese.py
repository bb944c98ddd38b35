"""Siamese augmentation: one random draw for all images of a class, real and synthetic ones alike.

Source: DSA (arXiv 2102.08259), repository VICO-UoE/DatasetCondensation, ``utils.py`` (``DiffAugment`` with
``ParamDiffAug``, mode S: one operation a call), and IDC's variant, repository snu-mllab/Efficient-Dataset-Condensation,
``misc/augment.py`` (flip, colour and cutout always, one of the rest). Both have the same operations and ranges:
brightness ± 0.5, saturation 0 to 2, contrast 0.5 to 1.5; shift up to 1/8 of the side; a square of half the side erased;
flip with chance 1/2; zoom 1/1.2 to 1.2 along each side; rotation up to 15 degrees. Images are normalised, what comes
in from outside is 0.

Numbers are drawn on the CPU. Shifts, zooms and rotations are matrix products, so their gradients are the same at every
run on a GPU too (``grid_sample``'s are not).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SHIFT, ERASED, ZOOM, DEGREES = 0.125, 0.5, 1.2, 15.0
ROTATED_BYTES = 1 << 28  # of intermediate results while images are rotated
NUMBERS = 4  # uniform numbers a row and place of a program: the choice of the operation, then its parameters


def dsa_program(strategy: str) -> list[tuple[str, ...]]:
    """DSA: one operation of the strategy (names joined by ``_``; empty for none)."""
    return [tuple(strategy.split("_"))] if strategy else []


def idc_program(strategy: str) -> list[tuple[str, ...]]:
    """IDC: flip and colour where the strategy has them, one of its other operations, cutout where it has it."""
    names = strategy.split("_") if strategy else []
    rest = tuple(name for name in names if name not in ("flip", "color", "cutout"))
    program = [("flip",)] * ("flip" in names) + [("color",)] * ("color" in names)
    return program + [rest] * bool(rest) + [("cutout",)] * ("cutout" in names)


def augment(x: Tensor, program: Sequence[tuple[str, ...]], numbers: Tensor, *, same_choice: bool = False) -> Tensor:
    """Apply a program: at each place every row takes one of the operations there, with numbers of its own.

    Args:
        x: normalised images ``[rows, n, C, H, W]``; the n images of a row get the same.
        numbers: uniform in [0, 1), on the CPU, ``[rows, places, NUMBERS]``; the first one chooses the operation.
        same_choice: the first row chooses for all.

    Raises:
        ValueError: no such operation.
    """
    for place, names in enumerate(program):
        drawn = numbers[:, place]
        chosen = [names[int(u * len(names))] for u in drawn[:, 0].tolist()]
        if same_choice or len(set(chosen)) == 1:
            x = _operation(chosen[0])(x, drawn[:, 1:])
            continue
        done: dict[int, Tensor] = {}
        for name in sorted(set(chosen)):
            rows = [row for row, other in enumerate(chosen) if other == name]
            made = _operation(name)(torch.stack([x[row] for row in rows]), drawn[rows, 1:])
            done.update(zip(rows, made.unbind(0), strict=True))
        x = torch.stack([done[row] for row in range(len(chosen))])
    return x


def _operation(name: str):
    try:
        return OPERATIONS[name]
    except KeyError:
        raise ValueError(f"no operation {name!r}; there are {', '.join(OPERATIONS)}") from None


def _there(values: Tensor, x: Tensor) -> Tensor:
    """A number a row, beside images."""
    return values.view(-1, 1, 1, 1, 1).to(x.device, non_blocking=True)


def _color(x: Tensor, u: Tensor) -> Tensor:
    x = x + _there(u[:, 0] - 0.5, x)
    mean = x.mean(dim=2, keepdim=True)
    x = (x - mean) * _there(2 * u[:, 1], x) + mean
    mean = x.mean(dim=(2, 3, 4), keepdim=True)
    return (x - mean) * _there(u[:, 2] + 0.5, x) + mean


def _flip(x: Tensor, u: Tensor) -> Tensor:
    return torch.where(_there(u[:, 0] < 0.5, x), x.flip(-1), x)


def _cutout(x: Tensor, u: Tensor) -> Tensor:
    bands = []
    for which, side in enumerate(x.shape[-2:]):
        length = int(side * ERASED + 0.5)
        offset = (u[:, which, None] * (side + 1 - length % 2)).floor() - length // 2
        first, last = offset.clamp(0, side - 1), (offset + length - 1).clamp(0, side - 1)
        position = torch.arange(side)[None]
        bands.append(((position >= first) & (position <= last)).to(x.device, non_blocking=True))
    return x * ~(bands[0][:, None, None, :, None] & bands[1][:, None, None, None, :])


def _tents(positions: Tensor, side: int) -> Tensor:
    """Bilinear weights ``[…, side]`` of the pixels around ``positions`` (in pixels); those outside count as 0."""
    return (1 - (positions[..., None] - torch.arange(side)).abs()).clamp(min=0)


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows[r] @ image @ columns[r].T`` of the images of row r; the matrices are on the CPU, ``[rows, H, H]``."""
    rows, columns = (m[:, None, None].to(x.device, non_blocking=True) for m in (rows, columns))
    return rows @ x @ columns.transpose(-1, -2)


def _crop(x: Tensor, u: Tensor) -> Tensor:
    sides = []
    for which, side in enumerate(x.shape[-2:]):
        reach = int(side * SHIFT + 0.5)
        by = (u[:, which, None] * (2 * reach + 1)).floor() - reach
        sides.append(_tents(torch.arange(side) + by, side))
    return _separable(x, *sides)


def _centres(side: int) -> Tensor:
    """Positions of the pixels' centres where the image reaches from -1 to 1."""
    return (2 * torch.arange(side) + 1) / side - 1


def _pixels(positions: Tensor, side: int) -> Tensor:
    """The inverse of :func:`_centres`, for any positions."""
    return ((positions + 1) * side - 1) / 2


def _scale(x: Tensor, u: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    zoom = u[:, :2] * (ZOOM - 1 / ZOOM) + 1 / ZOOM
    columns = _tents(_pixels(zoom[:, :1] * _centres(width), width), width)
    return _separable(x, _tents(_pixels(zoom[:, 1:] * _centres(height), height), height), columns)


def _rotate(x: Tensor, u: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    angle = (u[:, 0] - 0.5) * 2 * DEGREES / 180 * math.pi
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    down, right = _centres(height)[:, None], _centres(width)[None]
    across = _tents(_pixels(cos * right - sin * down, width), width).flatten(1, 2)  # [rows, H * W, W]
    along = _tents(_pixels(sin * right + cos * down, height), height).flatten(1, 2).transpose(1, 2)  # [rows, H, H * W]
    across, along = (m.to(x.device, non_blocking=True) for m in (across, along))
    each = max(1, ROTATED_BYTES // (4 * x.shape[2] * height * height * width))
    turned = []
    for row, images in enumerate(x):
        parts = [((part @ across[row].T) * along[row]).sum(-2) for part in images.split(each)]  # [n, C, H, HW] -> HW
        turned.append(torch.cat(parts))
    return torch.stack(turned).view_as(x)


OPERATIONS = {
    "color": _color, "crop": _crop, "cutout": _cutout, "flip": _flip, "scale": _scale, "rotate": _rotate
}  # fmt: skip
