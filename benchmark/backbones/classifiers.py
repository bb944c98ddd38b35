"""Two small classifiers that a backbone needs: one whose features the VAE's loss compares, and one that judges.

They share neither shape nor seed, and neither sees the images that are held out, so the judge's figures are not the
loss that the VAE was trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from benchmark.backbones.stages import hold_out
from benchmark.core import distributed
from benchmark.core.compute import Precision, derive_seed
from benchmark.core.store import Stage, Store
from benchmark.data.base import Dataset, plain_name

VERSION = 1
EPOCHS = 12
FEWEST_STEPS = 20
MOST_IMAGES = 100_000  # of a larger dataset an even selection: the classifier is a yardstick, no competitor
UPRIGHT = ("digits", "mnist", "svhn")  # datasets whose images mean something else when mirrored
MOST_PIXELS = 64  # side; larger images are made smaller


class Plain(nn.Module):
    """Pairs of 3x3 convolutions, each with BatchNorm and ReLU, and max pooling: features after each ReLU."""

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...] = (64, 128, 256)) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for width in widths:
            layers = []
            for _ in range(2):
                layers.append(
                    nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
                )
                channels = width
            self.stages.append(nn.ModuleList(layers))
        self.head = nn.Linear(channels, classes)

    def maps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps ``[n, c, h, w]`` after every ReLU of images in -1..1."""
        found, x = [], pixels
        for index, stage in enumerate(self.stages):
            for layer in stage:
                x = F.relu(layer(x))
                found.append(x)
            if index + 1 < len(self.stages) and x.shape[-1] > 1:
                x = F.max_pool2d(x, 2)
        return found

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.maps(pixels)[-1].mean(dim=(2, 3))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(pixels))


class Residual(nn.Module):
    """A pre-activation residual network with average pooling and GELU; ``embed`` is what the report compares."""

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...] = (48, 96, 128)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.blocks, last = nn.ModuleList(), widths[0]
        for width in widths:
            self.blocks.append(_Block(last, width))
            last = width
        self.norm, self.head = nn.BatchNorm2d(last), nn.Linear(last, classes)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features ``[n, 128]`` of images in -1..1."""
        x = self.stem(pixels)
        for index, block in enumerate(self.blocks):
            if index and x.shape[-1] > 1:
                x = F.avg_pool2d(x, 2)
            x = block(x)
        return F.gelu(self.norm(x)).mean(dim=(2, 3))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(pixels))


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.GELU(), nn.Conv2d(inputs, width, 3, 1, 1, bias=False))
        self.second = nn.Sequential(nn.BatchNorm2d(width), nn.GELU(), nn.Conv2d(width, width, 3, 1, 1, bias=False))
        self.skip = nn.Identity() if inputs == width else nn.Conv2d(inputs, width, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.skip(x) + self.second(self.first(x))


KINDS = {"plain": Plain, "residual": Residual}


def classifier_stage(dataset: Dataset, kind: str, held_out: int, precision: Precision) -> Stage:
    """The stage of a classifier of ``dataset`` (``plain``: the loss's, ``residual``: the judge).

    ``held_out`` is the most training images that it does not see (`stages.hold_out`).
    """
    params = {
        "kind": kind,
        "held_out": held_out,
        "mirrored": plain_name(dataset.name) not in UPRIGHT,
        "epochs": EPOCHS,
        "batch": 256 if len(dataset.train) >= 20_000 else 64,
        "fewest": FEWEST_STEPS,
    }
    return Stage("backbone.classifier", VERSION, params, {"dataset": dataset.digest}, 0, precision.document())


def get_classifier(
    store: Store, dataset: Dataset, kind: str, held_out: int, precision: Precision, device: str
) -> nn.Module:
    """The classifier from the store, or trained now (a minute at most on a GPU; not resumable)."""
    stage = classifier_stage(dataset, kind, held_out, precision)
    mirrored = stage.params["mirrored"]

    def make(folder: Path) -> None:
        kept = np.setdiff1d(np.arange(len(dataset.train)), hold_out(dataset, held_out))
        if len(kept) > MOST_IMAGES:
            kept = kept[np.linspace(0, len(kept) - 1, MOST_IMAGES).astype(np.int64)]
        images = dataset.train.images(kept, side(dataset))
        labels = torch.from_numpy(dataset.train.labels[kept])
        net = _train(kind, images, labels, len(dataset.classes), mirrored, stage.params["batch"], precision, device)
        save_file({k: v.cpu().contiguous() for k, v in net.state_dict().items()}, folder / "weights.safetensors")

    folder = distributed.build(store, stage, make)
    net = KINDS[kind](dataset.channels, len(dataset.classes))
    net.load_state_dict(load_file(folder / "weights.safetensors"))
    return net.to(device).eval().requires_grad_(False)


def side(dataset: Dataset) -> int:
    """Px at which the classifiers see the dataset's images."""
    return min(dataset.image_size, MOST_PIXELS)


def _train(
    kind: str,
    images: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    mirrored: bool,
    batch: int,
    precision: Precision,
    device: str,
) -> nn.Module:
    """SGD with Nesterov momentum and one triangle of the learning rate; images shifted by up to an eighth."""
    seed = derive_seed("backbone classifier", kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = KINDS[kind](images.shape[1], classes).to(device)
    net.train()
    images, labels = images.to(device), labels.to(device)
    steps = max(FEWEST_STEPS, EPOCHS * len(images) // batch)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    draw = torch.Generator(device)
    order = torch.empty(0, dtype=torch.long, device=device)
    for step in range(steps):
        draw.manual_seed(derive_seed("backbone classifier", kind, step))
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(len(images), generator=draw, device=device)])
        chosen, order = order[:batch], order[batch:]
        pixels = _shifted(images[chosen], mirrored, draw)
        done = step / steps
        optimizer.param_groups[0]["lr"] = 0.1 * min(done / 0.25, (1 - done) / 0.75) + 1e-5
        with precision.context(device):
            loss = F.cross_entropy(net(pixels).float(), labels[chosen])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return net.eval()


def _shifted(images: torch.Tensor, mirrored: bool, draw: torch.Generator) -> torch.Tensor:
    """uint8 images to -1..1, each moved by up to an eighth of its side (edges repeated) and perhaps mirrored."""
    count, channels, size, _ = images.shape
    reach, device = max(1, size // 8), images.device
    moves = torch.randint(-reach, reach + 1, (2, count, 1), generator=draw, device=device)
    places = torch.arange(size, device=device)
    rows, columns = ((places + move).clamp_(0, size - 1) for move in moves)
    if mirrored:
        turn = torch.rand(count, 1, generator=draw, device=device) < 0.5
        columns = torch.where(turn, columns.flip(1), columns)
    every = torch.arange(count, device=device)[:, None, None]
    found = images[every, :, rows[:, :, None], columns[:, None, :]]  # [n, s, s, c]
    return found.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def read(net: nn.Module, images: torch.Tensor, precision: Precision, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and features (float32, CPU) that ``net`` gives uint8 images."""
    logits, features = [], []
    for part in images.split(512):
        pixels = part.to(device).float() / 127.5 - 1
        if pixels.shape[-1] > MOST_PIXELS:
            pixels = F.interpolate(pixels, (MOST_PIXELS, MOST_PIXELS), mode="area")
        with precision.context(device):
            found = net.embed(pixels)
            answer = net.head(found)
        logits.append(answer.float().cpu())
        features.append(found.float().cpu())
    return torch.cat(logits), torch.cat(features)


def perceptual_distance(net: Plain, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean over layers and positions of the squared distance of channel-normalised features of two batches in -1..1.

    As LPIPS (arXiv 1801.03924, eq. 1) with all weights one, with a classifier of the dataset itself.
    """
    with torch.no_grad():
        wanted = net.maps(second)
    parts = [(_unit(a) - _unit(b)).square().sum(dim=1).mean() for a, b in zip(net.maps(first), wanted)]
    return torch.stack(parts).mean()


def _unit(maps: torch.Tensor) -> torch.Tensor:
    maps = maps.float()
    return maps * torch.rsqrt(maps.square().sum(dim=1, keepdim=True) + 1e-6)
