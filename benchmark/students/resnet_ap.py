"""ResNetAP-10: a ResNet of four basic blocks that halves by average pooling instead of strides, instance norm.

IDC's and Minimax's student (``vimar-gu/MinimaxDiffusion``, ``train_models/resnet_ap.py``, norm type instance): first
convolution 3x3 up to 64 px without pooling, 3x3 and pooling by 2 up to 128 px, 7x7 and pooling by 4 above; widths 64,
128, 256, 512 (the file's CIFAR branch has half of them); He initialisation by fan-out. Pooling before the classifier
is global, which is the same at 224 px.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _conv(inside: int, outside: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)


def _halve(x: Tensor, by: int) -> Tensor:
    """Average pooling, but never to a single pixel: its instance norm would be a constant."""
    return F.avg_pool2d(x, by) if by > 1 and x.shape[-1] >= 2 * by else x


class _Block(nn.Module):
    def __init__(self, inside: int, outside: int, by: int) -> None:
        super().__init__()
        self.by = by
        self.conv1, self.norm1 = _conv(inside, outside), nn.GroupNorm(outside, outside)
        self.conv2, self.norm2 = _conv(outside, outside), nn.GroupNorm(outside, outside)
        self.short = nn.Identity()
        if inside != outside or by > 1:
            self.short = nn.Sequential(_conv(inside, outside, 1), nn.GroupNorm(outside, outside))

    def forward(self, x: Tensor) -> Tensor:
        out = _halve(torch.relu(self.norm1(self.conv1(x))), self.by)
        out = self.norm2(self.conv2(out))
        if isinstance(self.short, nn.Identity):
            return torch.relu(out + x)
        conv, norm = self.short
        return torch.relu(out + norm(_halve(conv(x), self.by)))


class ResNetAP10(nn.Module):
    """See the module."""

    def __init__(self, num_classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        kernel, self.by = (3, 1) if image_size <= 64 else (3, 2) if image_size <= 128 else (7, 4)
        self.conv, self.norm = _conv(channels, 64, kernel), nn.GroupNorm(64, 64)
        self.blocks = nn.Sequential(_Block(64, 64, 1), _Block(64, 128, 2), _Block(128, 256, 2), _Block(256, 512, 2))
        self.classifier = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan))

    def forward(self, x: Tensor) -> Tensor:
        x = _halve(torch.relu(self.norm(self.conv(x))), self.by)
        return self.classifier(self.blocks(x).mean(dim=(2, 3)))


def resnetap10(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return ResNetAP10(num_classes, channels, image_size)
