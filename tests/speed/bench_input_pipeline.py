"""Input pipeline and whole training step, beside how published scripts do it.

``python tests/speed/bench_input_pipeline.py [--help]`` prints seconds and ratios as JSON.

Measured on a quiet 2-core AMD EPYC machine without a GPU, at the defaults, 2026-11-23: 50 epochs of 100 images take
2.65 s against 0.084 s (32 times), a pass over 5,000 images in steady state 0.56 s against 0.081 s (6.9 times), a whole
ConvNet-3 step 136 ms against 75 ms (1.8 times).

Published: `ImageFolder` of PNG files, PIL transforms, `DataLoader(num_workers=2, shuffle=True)`, whose workers start
again every epoch; a training step with a second, logging-only forward pass and an unfused optimizer. Ours: uint8 on the
device, crops and flips of the whole batch as matrix products. Outputs are compared with the same parameters (1e-4).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision.transforms as T
import torchvision.transforms.functional as tv
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmark.core.compute import fast_layout, generator
from benchmark.training import augment
from benchmark.training.augment import IMAGENET_MEAN, IMAGENET_STD, Augmenter

RECIPE = [
    {"op": "random_resized_crop", "scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3], "rounding": "uint8"},
    {"op": "flip", "p": 0.5},
]
TRANSFORMS = [T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)]


def pictures(count: int, side: int) -> torch.Tensor:
    """Smooth random images, uint8 ``[count, 3, side, side]``."""
    coarse = torch.rand(count, 3, 6, 6, generator=generator("pictures", count))
    return (F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255).round().to(torch.uint8)


def folder_of(images: torch.Tensor, root: Path) -> ImageFolder:
    """The images as ten class folders of PNG files, with the published transforms."""
    for i, image in enumerate(images):
        file = root / f"{i % 10:05d}" / f"{i:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        tv.to_pil_image(image).save(file)
    size = images.shape[-1]
    pipeline = [T.RandomResizedCrop(size, scale=(0.08, 1.0)), T.RandomHorizontalFlip(), *TRANSFORMS]
    return ImageFolder(str(root), T.Compose(pipeline))


def equal_outputs(images: torch.Tensor) -> float:
    """Largest difference between both pipelines on the same crops and flips."""
    size = images.shape[-1]
    ours = Augmenter(RECIPE, size, IMAGENET_MEAN, IMAGENET_STD)(images, generator("equal"))
    source = generator("equal")
    boxes = augment.crop_boxes(len(images), size, size, (0.08, 1.0), (3 / 4, 4 / 3), source)
    flips = augment.random_flips(len(images), 0.5, source)
    worst = 0.0
    for i, box in enumerate(boxes.tolist()):
        crop = tv.resized_crop(tv.to_pil_image(images[i]), *box, [size, size])
        crop = tv.hflip(crop) if flips[i] else crop
        worst = max(worst, float((T.Compose(TRANSFORMS)(crop) - ours[i]).abs().max()))
    return worst


def epochs_of_loader(data: ImageFolder, batch: int, epochs: int, workers: int) -> float:
    """Seconds of ``epochs`` passes as published scripts make them."""
    loader = DataLoader(data, batch_size=batch, shuffle=True, num_workers=workers)
    start = time.perf_counter()
    for _ in range(epochs):
        for _batch in loader:
            pass
    return time.perf_counter() - start


def steady_loader(data: ImageFolder, batch: int, workers: int) -> float:
    """Seconds an epoch with workers that are already running."""
    loader = DataLoader(data, batch_size=batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    for _batch in loader:
        pass
    start = time.perf_counter()
    for _batch in loader:
        pass
    return time.perf_counter() - start


def epochs_of_ours(images: torch.Tensor, batch: int, epochs: int) -> float:
    """Seconds of ``epochs`` passes here."""
    pipeline = Augmenter(RECIPE, images.shape[-1], IMAGENET_MEAN, IMAGENET_STD)
    pipeline(images[:batch], generator(0))
    start = time.perf_counter()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator("order", epoch))
        for i in range(0, len(images), batch):
            pipeline(images[order[i : i + batch]], generator("batch", epoch, i))
    return time.perf_counter() - start


def steps(kind: str, batch: int, count: int, side: int = 32) -> tuple[float, torch.Tensor]:
    """(seconds of ``count`` training steps of a ConvNet-3 with online soft labels, the student's logits after one).

    ``kind`` is ``published`` or ``ours``; both start from the same weights and see the same batch.
    """
    from benchmark.evaluation.optimisers import loss_of, make_optimizer, set_bn_updates
    from benchmark.evaluation.protocols import load_protocol
    from benchmark.students import build_student

    protocol = load_protocol("rded-paper")
    student, teacher = (build_student("convnet3_bn", 10, 3, side, s) for s in (0, 1))
    teacher.eval().requires_grad_(False)
    x = torch.randn(batch, 3, side, side, generator=generator("x"))
    labels = torch.arange(batch) % 10
    if kind == "ours":
        student, teacher = fast_layout(student), fast_layout(teacher)
        set_bn_updates(student, protocol.bn_updates)
        optimizer = make_optimizer(student, protocol, 1e-3)
    else:
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.01)
    start, after_one = 0.0, torch.empty(0)
    for step in range(count + 2):
        if step == 2:  # two steps to warm up
            start = time.perf_counter()
        if kind == "published":
            with torch.no_grad():
                logged = student(x)
                soft = F.softmax(teacher(x) / 20, dim=1)
            (logged.argmax(dim=1) == labels).float().mean().item()
            optimizer.zero_grad()
            logits = student(x)
            loss = F.kl_div(F.log_softmax(logits / 20, dim=1), soft, reduction="batchmean")
            loss.backward()
            optimizer.step()
            loss.item()
        else:
            with torch.no_grad():
                soft = teacher(x)
            optimizer.zero_grad(set_to_none=True)
            logits = student(x)
            loss_of(protocol, logits, labels, soft, None, 1.0).backward()
            optimizer.step()
        if step == 1:  # of the network that has made one step
            after_one = logits.detach()
    return time.perf_counter() - start, after_one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--large", type=int, default=5000, help="images of the steady state (0: leave out)")
    parser.add_argument("--steps", type=int, default=20, help="training steps to time (0: leave out)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    small = pictures(100, options.side)
    report = {"largest_difference": equal_outputs(small)}
    assert report["largest_difference"] < 1e-4, report
    with tempfile.TemporaryDirectory() as folder:
        data = folder_of(small, Path(folder))
        theirs = epochs_of_loader(data, options.batch, options.epochs, options.workers)
        ours = epochs_of_ours(small, options.batch, options.epochs)
        report |= {"short_published_s": theirs, "short_ours_s": ours, "short_ratio": theirs / ours}
    if options.large:
        with tempfile.TemporaryDirectory() as folder:
            images = pictures(options.large, options.side)
            theirs = steady_loader(folder_of(images, Path(folder)), options.batch, options.workers)
            ours = epochs_of_ours(images, options.batch, 1)
            report |= {"steady_published_s": theirs, "steady_ours_s": ours, "steady_ratio": theirs / ours}
    if options.steps:
        pairs = [
            (steps("published", options.batch, options.steps), steps("ours", options.batch, options.steps))
            for _ in range(3)
        ]
        theirs, ours = (min(run[0] for run in column) for column in zip(*pairs))
        report["largest_logit_difference"] = float((pairs[0][0][1] - pairs[0][1][1]).abs().max())
        assert report["largest_logit_difference"] < 1e-4, report
        report |= {"step_published_s": theirs / options.steps, "step_ours_s": ours / options.steps}
        report["step_ratio"] = theirs / ours
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
