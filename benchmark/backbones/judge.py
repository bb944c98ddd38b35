"""A small classifier of real images for the report card."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.backbones.loop import rate_at
from benchmark.datasets.base import Dataset
from benchmark.store import Store


def small_classifier(store: Store, dataset: Dataset, device: str):
    torch.manual_seed(0)
    c = dataset.channels
    net = nn.Sequential(
        nn.Conv2d(c, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(512, len(dataset.classes)),
    ).to(device)
    images = dataset.train.images(range(len(dataset.train)))
    labels = torch.from_numpy(dataset.train.labels)
    steps = max(300, min(1500, 10 * len(images) // 128))
    opt = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.01)
    pre = lambda x: (x.to(device).float() / 255 - dataset.mean[0]) / dataset.std[0]
    for i in range(steps):
        for g in opt.param_groups:
            g["lr"] = 3e-3 * rate_at(i, steps, 0.05)
        idx = torch.randint(len(images), (128,))
        loss = F.cross_entropy(net(pre(images[idx])), labels[idx].to(device))
        opt.zero_grad()
        loss.backward()
        opt.step()
    net.eval()

    @torch.no_grad()
    def classify(x):
        return torch.cat([net(pre(p)) for p in x.split(256)])

    test = dataset.test.images(range(len(dataset.test)))
    acc = 100 * float((classify(test).argmax(1).cpu() == torch.from_numpy(dataset.test.labels)).float().mean())
    return {"name": "small classifier", "accuracy": acc}, classify
