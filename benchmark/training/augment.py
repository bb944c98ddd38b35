"""Augmentation of a whole batch on the device, with parameters drawn for each image.

torchvision's transforms draw one set of parameters a call, so published scripts pay a Python call an image in loader
processes. Here parameters are drawn on the CPU from a generator (so that devices agree and a resumed run repeats
them), torchvision's distributions kept, and images are resampled by two small matrix products an image: the rows of
an interpolation, crop and flip together are one ``[out, in]`` matrix a side. What was drawn goes to the device small
and without waiting for it (``non_blocking``), so a GPU computes one step while the CPU draws the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# -- random resized crop, flip ----------------------------------------------------------------------------------------


def crop_boxes(
    n: int,
    height: int,
    width: int,
    scale: Sequence[float],
    ratio: Sequence[float],
    generator: torch.Generator,
) -> Tensor:
    """Boxes of ``torchvision.transforms.RandomResizedCrop``, one an image.

    Ten tries of an area and a log-uniform aspect ratio; the first that fits is placed uniformly; if none fits, the
    largest centred box of an allowed ratio.

    Returns:
        int64 ``[n, 4]``: top, left, height, width.
    """
    tries = 10
    area = height * width * torch.empty(n, tries).uniform_(scale[0], scale[1], generator=generator)
    aspect = torch.empty(n, tries).uniform_(math.log(ratio[0]), math.log(ratio[1]), generator=generator).exp()
    w, h = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first that fits
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    place = torch.rand(2, n, generator=generator, dtype=torch.float64)
    top = (place[0] * (height - h + 1)).long()
    left = (place[1] * (width - w + 1)).long()
    boxes = torch.stack([top, left, h, w], dim=1)
    if width / height < ratio[0]:
        fw, fh = width, int(round(width / ratio[0]))
    elif width / height > ratio[1]:
        fw, fh = int(round(height * ratio[1])), height
    else:
        fw, fh = width, height
    fallback = torch.tensor([(height - fh) // 2, (width - fw) // 2, fh, fw])
    return torch.where(fits.any(dim=1, keepdim=True), boxes, fallback)


def interpolation(start: Tensor, length: Tensor, size: int, out: int, flip: Tensor | None = None) -> Tensor:
    """Rows that resize ``length`` pixels from ``start`` on to ``out`` pixels: bilinear and antialiased.

    Args:
        start, length: ``[n]``, the crop along one side of ``size`` pixels.
        flip: bool ``[n]``, whether the result is reversed.

    Returns:
        float64 ``[n, out, size]`` whose rows sum to 1 and stay inside the crop.
    """
    ratio = length.double() / out  # input pixels per output pixel
    support = ratio.clamp(min=1.0)
    where = torch.arange(out, dtype=torch.float64, device=start.device) + 0.5
    if flip is not None:
        where = torch.where(flip[:, None], out - where, where)
    center = ratio[:, None] * where  # [n, out]
    low = (center - support[:, None] + 0.5).floor().clamp(min=0)
    high = torch.minimum((center + support[:, None] + 0.5).floor(), length[:, None].double())
    pixel = torch.arange(size, dtype=torch.float64, device=start.device) - start[:, None]  # position inside the crop
    pixel = pixel[:, None, :]
    weight = (1 - ((pixel + 0.5 - center[:, :, None]) / support[:, None, None]).abs()).clamp(min=0)
    weight = weight * ((pixel >= low[:, :, None]) & (pixel < high[:, :, None]))
    return weight / weight.sum(dim=2, keepdim=True)


def two_taps(
    start: Tensor, length: Tensor, out: int, flip: Tensor | None = None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """:func:`interpolation` in Pillow's fixed point where no crop is larger than its output: two pixels each.

    Returns:
        ``(position, weight)`` of either pixel, ``[n, out]``: int64 positions along the side, int32 weights that sum
        to 1 in parts of 2^22 (a pixel outside the crop has weight 0 and the position of the crop's edge).
    """
    where = torch.arange(out, dtype=torch.float64, device=start.device) + 0.5
    if flip is not None:
        where = torch.where(flip[:, None], out - where, where)
    last = length[:, None].double() - 1
    center = (length.double() / out)[:, None] * where
    low = (center - 1 + 0.5).floor()
    high = low + 1
    pair = [(1 - (pixel + 0.5 - center).abs()).clamp(min=0) for pixel in (low, high)]
    pair = [pair[0] * (low >= 0), pair[1] * (high <= last)]
    whole = (pair[0] + pair[1]) / 2**22
    weights = [(weight / whole + 0.5).to(torch.int32) for weight in pair]
    places = [pixel.clamp(min=0).minimum(last).long() + start[:, None] for pixel in (low, high)]
    return (places[0], weights[0]), (places[1], weights[1])


def _blend_rows(rows: Tensor, taps: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Each new row of an image is the weighted mean of two of its rows, rounded: int32 ``[n, C, H, W]`` to
    ``[n, C, out, W]``. Exact: 8 + 22 bits fit in 31.
    """
    n, channels, height, width = rows.shape
    base = torch.arange(0, n * channels * height, height, device=rows.device).view(n, channels, 1)
    flat, parts = rows.reshape(-1, width), []
    for place, weight in taps:
        part = flat.index_select(0, (base + place[:, None]).flatten())
        parts.append(part.mul_(weight[:, None].expand(-1, channels, -1).reshape(-1, 1)))
    mixed = parts[0].add_(parts[1]).add_(2**21).bitwise_right_shift_(22)
    return mixed.view(n, channels, -1, width)


def resized_crop(
    images: Tensor, boxes: Tensor, out: int, flip: Tensor | None = None, rounding: str = "float"
) -> Tensor:
    """Crop, resize to ``out`` x ``out`` and flip, each image its own way.

    Args:
        images: ``[n, C, H, W]``; for ``rounding="uint8"`` whole numbers in 0..255, else any range.
        boxes: int64 ``[n, 4]`` top, left, height, width.
        rounding: ``float`` is torchvision on tensors with ``antialias=True``; ``uint8`` is torchvision on PIL images,
            which works in fixed point (22 bits) and rounds to whole levels after the horizontal and after the
            vertical pass (Pillow from 13 on takes the other order for tall crops that shrink: one level of
            difference in some pixels; the published scripts ran with the older order).

    Returns:
        ``[n, C, out, out]``: float32, or int32 for ``uint8`` where no crop is larger than ``out``.
    """
    enlarging = int(boxes[:, 2:].max()) <= out
    boxes = boxes.to(images.device, non_blocking=True)
    flip = None if flip is None else flip.to(images.device, non_blocking=True)
    if rounding == "uint8" and enlarging:
        across = two_taps(boxes[:, 1], boxes[:, 3], out, flip)
        wide = _blend_rows(images.transpose(2, 3).to(torch.int32), across).transpose(2, 3)
        return _blend_rows(wide, two_taps(boxes[:, 0], boxes[:, 2], out))
    images = images.float()
    rows = interpolation(boxes[:, 0], boxes[:, 2], images.shape[2], out)
    columns = interpolation(boxes[:, 1], boxes[:, 3], images.shape[3], out, flip)
    if rounding == "uint8":
        rows, columns = ((m * 2**22 + 0.5).floor() / 2**22 for m in (rows, columns))
        wide = torch.matmul(images.double(), columns[:, None].transpose(2, 3)).add_(0.5).floor_().clamp_(0, 255)
        return torch.matmul(rows[:, None], wide).add_(0.5).floor_().clamp_(0, 255).float()
    rows, columns = rows.float()[:, None], columns.float()[:, None].transpose(2, 3)
    return torch.matmul(torch.matmul(rows, images), columns)


def random_flips(n: int, p: float, generator: torch.Generator) -> Tensor:
    """bool ``[n]``."""
    return torch.rand(n, generator=generator) < p


# -- RDED's patch shuffle ---------------------------------------------------------------------------------------------


def shuffled_positions(n: int, side: int, factor: int, generator: torch.Generator) -> Tensor:
    """For each image the source position of every column (or row) after its ``factor`` strips were permuted.

    Strips are ``side // factor`` wide, the last takes the rest. int64 ``[n, side]``.
    """
    strip = (torch.arange(side) // max(side // factor, 1)).clamp(max=factor - 1)
    rank = torch.rand(n, factor, generator=generator).argsort(dim=1)  # strip -> its new place
    return rank[:, strip].argsort(dim=1, stable=True)


def shuffle_patches(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Permute rows and columns of each image."""
    n, channels, height, width = images.shape
    # the positions of all pixels are made on the device: 40 MB a batch of 100 at 224 px, from 0.4 MB that go there
    rows, columns = (side.to(images.device, non_blocking=True) for side in (rows, columns))
    index = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, -1)
    return images.flatten(2).gather(2, index.expand(-1, channels, -1)).view_as(images)


# -- mixing -----------------------------------------------------------------------------------------------------------


def cutmix_box(height: int, width: int, lam: float, generator: torch.Generator) -> tuple[int, int, int, int]:
    """The box that CutMix pastes: ``top, bottom, left, right`` (the reference code's ``rand_bbox``)."""
    cut = math.sqrt(1.0 - lam)
    cut_h, cut_w = int(height * cut), int(width * cut)
    cy = int(torch.randint(height, (), generator=generator))
    cx = int(torch.randint(width, (), generator=generator))
    top, bottom = max(cy - cut_h // 2, 0), min(cy + cut_h // 2, height)
    left, right = max(cx - cut_w // 2, 0), min(cx + cut_w // 2, width)
    return top, bottom, left, right


def beta(alpha: float, generator: torch.Generator) -> float:
    """A draw of Beta(alpha, alpha)."""
    if alpha == 1.0:
        return float(torch.rand((), generator=generator, dtype=torch.float64))
    pair = torch._standard_gamma(torch.full((2,), float(alpha), dtype=torch.float64), generator=generator)
    return float(pair[0] / pair.sum())


def mix(images: Tensor, kind: str, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """CutMix or Mixup of a batch with itself, one draw a batch.

    Returns:
        images, partner of each image (int64 ``[n]``), and the share of the image itself (by area for CutMix).
    """
    partner = torch.randperm(len(images), generator=generator)
    lam = beta(alpha, generator)
    there = partner.to(images.device, non_blocking=True)
    if kind == "mixup":
        return lam * images + (1 - lam) * images[there], partner, lam
    height, width = images.shape[2:]
    top, bottom, left, right = cutmix_box(height, width, lam, generator)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[there, :, top:bottom, left:right]
    return mixed, partner, 1 - (bottom - top) * (right - left) / (height * width)


# -- the whole recipe -------------------------------------------------------------------------------------------------


class Augmenter:
    """A protocol's augmentations, ready to be called on uint8 batches.

    ``augmenter(images, generator)`` takes grey levels ``[n, C, H, W]`` (uint8; float32 as released, whose levels are
    not rounded when they are resampled) and returns normalised float32 ``[n, C, size, size]``.
    """

    def __init__(self, recipe: list[dict[str, Any]], size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        from benchmark.training import geometry

        self.size = size
        self.mean, self.std = (torch.tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in (mean, std))
        self._there = self.mean, self.std  # the same on the device of the images that were last normalised
        steps = [dict(entry) for entry in recipe]
        ops = [s["op"] for s in steps]
        # resampling works on pixel values; what follows it on the normalised image
        self.shuffle = [s["factor"] for s in steps if s["op"] == "patch_shuffle"]
        self.crop = next((s for s in steps if s["op"] == "random_resized_crop"), None)
        self.flip = next((s["p"] for s in steps if s["op"] == "flip"), None)
        self.after = [
            partial(getattr(geometry, s["op"]), **{k: v for k, v in s.items() if k != "op"})
            for s in steps
            if s["op"] not in ("patch_shuffle", "random_resized_crop", "flip")
        ]
        assert len(ops) == len(set(ops)), f"an operation is named twice: {ops}"

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = images.shape
        x = images
        for factor in self.shuffle:
            if factor > 1:
                columns = shuffled_positions(n, width, factor, generator)
                x = shuffle_patches(x, shuffled_positions(n, height, factor, generator), columns)
        boxes = None
        if self.crop is not None:
            boxes = crop_boxes(n, height, width, self.crop["scale"], self.crop["ratio"], generator)
        flips = None if self.flip is None else random_flips(n, self.flip, generator)
        if boxes is None and (height, width) != (self.size, self.size):
            boxes = torch.tensor([[0, 0, height, width]]).expand(n, 4)
        if boxes is not None:
            rounding = self.crop["rounding"] if self.crop and not x.is_floating_point() else "float"
            x = resized_crop(x, boxes, self.size, flips, rounding)
        elif flips is not None:
            x = torch.where(flips.to(x.device, non_blocking=True).view(-1, 1, 1, 1), x.flip(3), x)
        x = self.normalise(x)
        for step in self.after:
            x = step(x, generator=generator)
        return x

    def normalise(self, x: Tensor) -> Tensor:
        """0..255 to zero mean and unit deviation."""
        if self._there[0].device != x.device:
            self._there = self.mean.to(x.device), self.std.to(x.device)
        mean, std = self._there
        return torch.div(x, 255).sub_(mean).div_(std)  # one new tensor, then in place


def center_view(images: Tensor, size: int) -> Tensor:
    """Images in grey levels at ``size``: unchanged, or resized (antialiased bilinear; 8-bit images rounded)."""
    if images.shape[-1] == size:
        return images
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized if images.is_floating_point() else resized.round_().clamp_(0, 255).to(torch.uint8)
