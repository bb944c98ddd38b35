"""A synthetic data set in ImageNet's on-disk format: each class has its shape and its colours, in small JPEGs.

From a shell, for runs at scale:  ``python tests/data/imagenet_tree.py FOLDER --train 20 --val 5``
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmark.data.wordnet import imagenet_wnids

SIZES = ((64, 48), (48, 64), (56, 56), (80, 60), (72, 72))  # mixed, as on ImageNet
CMYK, GREY, TRUNCATED = (3, 1), (5, 2), (7, 3)  # (class, index) in train of the odd images


def picture(label: int, seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """An RGB image that carries its class: one of 10 colours on one of 10 grounds, as one of 10 shapes.

    Place, size and noise vary with ``seed``; colour, ground and shape are the three digits of ``label``.
    """
    rng = np.random.default_rng([label, seed])
    width, height = size
    hue = [(220, 40, 40), (40, 180, 60), (50, 80, 230), (230, 210, 50), (200, 60, 200)]
    hue += [(50, 200, 210), (250, 250, 250), (20, 20, 20), (250, 140, 30), (130, 80, 40)]
    shape, colour, ground = label % 10, label // 10 % 10, label // 100
    back = np.array(hue[ground], float) * 0.55 + 40
    image = Image.fromarray(np.clip(back + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    r = min(size) * rng.uniform(0.3, 0.4)
    x, y = width / 2 + rng.uniform(-4, 4), height / 2 + rng.uniform(-4, 4)
    box, fill = (x - r, y - r, x + r, y + r), hue[colour]
    if shape == 0:
        draw.ellipse(box, fill=fill)
    elif shape == 1:
        draw.rectangle(box, fill=fill)
    elif shape in (2, 3, 4):
        draw.regular_polygon((x, y, r * 1.1), (3, 5, 6)[shape - 2], fill=fill)
    elif shape == 5:
        draw.regular_polygon((x, y, r * 1.1), 3, rotation=180, fill=fill)
    elif shape == 6:
        draw.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=fill)
    elif shape == 7:
        draw.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=fill)
    elif shape == 8:
        draw.ellipse(box, outline=fill, width=max(3, int(r / 3)))
    else:
        draw.rectangle(box, outline=fill, width=max(3, int(r / 3)))
    return image


def write_jpeg(path: Path, image: Image.Image, *, truncated: bool = False) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    data = buffer.getvalue()
    path.write_bytes(data[: len(data) // 2] if truncated else data)


def build(
    base: Path,
    *,
    train: int = 2,
    val: int = 1,
    wnids: Sequence[str] | None = None,
    odd: bool = True,
    truncated: bool = False,
) -> Path:
    """Write ``base/train/WNID/WNID_I.JPEG`` and ``base/val/WNID/ILSVRC2012_val_%08d.JPEG``.

    Args:
        train, val: images a class.
        wnids: classes to write, default all 1000; a class looks like its position in ImageNet-1K in any case.
        odd: the training images ``CMYK`` and ``GREY`` (class position in ``wnids``, index) are stored so.
        truncated: cut off the file ``TRUNCATED``.
    """
    position = {wnid: i for i, wnid in enumerate(imagenet_wnids())}
    chosen = list(wnids or imagenet_wnids())
    for rank, wnid in enumerate(chosen):
        label = position[wnid]
        folder = base / "train" / wnid
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(train):
            image = picture(label, i, SIZES[(rank + i) % len(SIZES)])
            if odd and (rank, i) == CMYK:
                image = image.convert("CMYK")
            if odd and (rank, i) == GREY:
                image = image.convert("L")
            write_jpeg(folder / f"{wnid}_{i + 1}.JPEG", image, truncated=truncated and (rank, i) == TRUNCATED)
        folder = base / "val" / wnid
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(val):
            # As on ImageNet, numbers do not run with the classes.
            number = (i * len(chosen) + (rank * 7919) % len(chosen)) % (val * len(chosen)) + 1
            image = picture(label, 10_000 + i, SIZES[(rank + i + 2) % len(SIZES)])
            write_jpeg(folder / f"ILSVRC2012_val_{number:08d}.JPEG", image)
    return base


def flat_val(base: Path, target: Path) -> dict[str, str]:
    """Link the images of ``base/val/WNID`` into one folder; returns WordNet id by file name without extension."""
    target.mkdir(parents=True)
    answer = {}
    for file in (base / "val").glob("*/*.JPEG"):
        answer[file.stem] = file.parent.name
        os.link(file, target / file.name)
    return answer


def write_kaggle(base: Path, answer: dict[str, str]) -> None:
    """``LOC_val_solution.csv`` as in Kaggle's imagenet-object-localization-challenge: id, then class and boxes."""
    with open(base / "LOC_val_solution.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ImageId", "PredictionString"])
        for stem in sorted(answer, reverse=True):
            writer.writerow([stem, f"{answer[stem]} 85 1 499 272 {answer[stem]} 1 2 3 4 "])


def write_devkit(base: Path, answer: dict[str, str], *, archive: bool = False) -> None:
    """``ILSVRC2012_devkit_t12``: ``meta.mat`` and ground truth by *ILSVRC id*, which is not the sorted order."""
    from scipy.io import savemat

    wnids = imagenet_wnids()
    shuffled = [wnids[i] for i in np.random.default_rng(0).permutation(len(wnids))]
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    records = [(np.uint8(0) + i + 1 if i < 255 else i + 1, w, w, w, 0) for i, w in enumerate(shuffled)]
    records += [(1001 + i, f"n0000000{i}", "inner node", "", 2) for i in range(3)]
    synsets = np.array([tuple(r) for r in records], dtype=fields).reshape(-1, 1)
    ilsvrc = {wnid: i + 1 for i, wnid in enumerate(shuffled)}
    truth = "".join(f"{ilsvrc[answer[stem]]}\n" for stem in sorted(answer))
    data = base / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": synsets})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    if archive:
        with tarfile.open(base / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
            tar.add(base / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
        for file in data.iterdir():
            file.unlink()
        data.rmdir()
        data.parent.rmdir()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=20)
    parser.add_argument("--val", type=int, default=5)
    parser.add_argument("--truncated", action="store_true")
    given = parser.parse_args()
    build(given.folder, train=given.train, val=given.val, truncated=given.truncated)
