"""ConvNet-D: D blocks of 3x3 convolution (width 128), norm, ReLU and 2x2 average pooling, then one linear layer.

Two networks share the name. DC, DSA and DM (``VICO-UoE/DatasetCondensation``, ``networks.py``) use instance norm
(GroupNorm with one channel a group), RDED and D3HR (``LINs-lab/RDED``, ``synthesize/models.py``) BatchNorm. Both pad
28 px one-channel images to 32 px by the first convolution's padding of 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import torch
from torch import nn


class ConvNet(nn.Module):
    """See the module; no pooling to a single pixel before the last block, so that 8 px images work at any depth."""

    def __init__(self, num_classes: int, channels: int, image_size: int, *, depth: int, norm: str, width: int = 128):
        super().__init__()
        layers: list[nn.Module] = []
        wide = channels == 1 and image_size == 28
        side = image_size + 4 if wide else image_size
        for block in range(depth):
            layers.append(nn.Conv2d(width if block else channels, width, 3, padding=3 if wide and not block else 1))
            layers.append(nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(width, width))
            layers.append(nn.ReLU(inplace=True))
            if side > 2 or (side == 2 and block == depth - 1):  # instance norm of a single pixel is a constant
                layers.append(nn.AvgPool2d(2))
                side //= 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * side * side, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def own_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A ConvNet's weights under this module's names where they have RDED's: ``layers.norm.1.bias`` is
    ``features.5.bias``. Other names stay."""

    def own(name: re.Match) -> str:
        return f"features.{4 * int(name[2]) + (name[1] == 'norm')}."

    return {re.sub(r"^layers\.(conv|norm)\.(\d+)\.", own, name): value for name, value in state.items()}


def _make(argument: str, num_classes: int, channels: int, image_size: int, *, depth: int, norm: str) -> ConvNet:
    return ConvNet(num_classes, channels, image_size, depth=depth, norm=norm)


convnet3_bn = partial(_make, depth=3, norm="batch")
convnet4_bn = partial(_make, depth=4, norm="batch")
convnet5_bn = partial(_make, depth=5, norm="batch")
convnet6_bn = partial(_make, depth=6, norm="batch")
convnet3_in = partial(_make, depth=3, norm="instance")
convnet4_in = partial(_make, depth=4, norm="instance")
convnet6_in = partial(_make, depth=6, norm="instance")
