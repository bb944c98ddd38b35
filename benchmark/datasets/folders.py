"""``imagefolder:PATH``: anybody's images, a folder a class in ``train/`` and ``val/`` (``validation/``, ``test/``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.datasets.base import Dataset, folder_names
from benchmark.datasets.decode import GREY_MODES, header
from benchmark.datasets.external import cached_json, content_digest
from benchmark.datasets.files import FileSplit, Index, class_folders, scan, some
from benchmark.datasets.options import check_options
from benchmark.errors import DataError, MissingError

TEST_NAMES = ("val", "validation", "test")  # the first that exists is the test split
NATIVE_LIMIT = 64  # images all of one size, shorter side up to this, keep their size; others become DEFAULT_SIZE
DEFAULT_SIZE = 224
SAMPLE = 512  # images looked at to find size, mode and mean


def load(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """The user's own tree; ``argument`` is its path (relative to the data root if it is not found from here)."""
    name = f"imagefolder:{argument}"
    check_options(name, options, ("image_size", "on_corrupt"))
    base = Path(argument).expanduser()
    if not base.is_dir() and root is not None and (root / base).is_dir():
        base = root / base
    return image_tree(name, base, options)


def image_tree(
    name: str,
    base: Path,
    options: dict[str, Any],
    *,
    classes: Sequence[str] | None = None,
    folders: Sequence[str] | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    notes: dict[str, str] | None = None,
) -> Dataset:
    """A dataset from ``base/train`` and ``base/{val,validation,test}``.

    Args:
        classes, folders: names and folder names in label order; None takes the sorted folders of ``train/``.
        image_size, channels: None looks at a sample of the training images.

    Raises:
        MissingError: a folder is not there.
        DataError: classes differ between the splits, a class is empty, a sampled image cannot be read.
    """
    train_root, test_root = split_roots(base)
    found = class_folders(train_root)
    if not found:
        raise DataError("no class folders", where=str(train_root), allowed="one folder a class, with images in it")
    if folders is None:
        folders = found
    check_classes(train_root, folders, found)
    check_classes(test_root, folders, class_folders(test_root))
    train, test = scan(train_root, folders), scan(test_root, folders)
    size, depth = shape(train, options.get("image_size") or image_size, channels)
    splits = FileSplit(train, depth, size), FileSplit(test, depth, size)
    labels = tuple(classes or folders)
    digest = content_digest(labels, {"train": train, "test": test})
    mean, std = statistics(splits[0], digest)
    return Dataset(
        name=name,
        classes=labels,
        folders=folder_names(folders),
        image_size=size,
        channels=depth,
        train=splits[0],
        test=splits[1],
        digest=digest,
        mean=mean,
        std=std,
        notes={"root": str(base), **(notes or {})},
    )


def split_roots(base: Path) -> tuple[Path, Path]:
    """The folders of the training and of the test split."""
    layout = f"{base}/train/CLASS/*.jpg and {base}/val/CLASS/*.jpg (or validation/, or test/)"
    if not base.is_dir():
        raise MissingError(f"no folder {base}", where="--dataset", allowed=layout, hint="check the path")
    if not (base / "train").is_dir():
        raise MissingError("no folder train/", where=str(base), allowed=layout, hint="put the training images there")
    for name in TEST_NAMES:
        if (base / name).is_dir():
            return base / "train", base / name
    raise MissingError(
        "no folder val/, validation/ or test/", where=str(base), allowed=layout, hint="put the test images there"
    )


def check_classes(root: Path, wanted: Sequence[str], found: Sequence[str]) -> None:
    """The class folders in ``root`` must be those wanted, no more, no fewer."""
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or extra:
        parts = [f"missing: {some(missing)}"] * bool(missing) + [f"not expected: {some(extra)}"] * bool(extra)
        raise DataError(
            f"class folders differ; {'; '.join(parts)}",
            where=str(root),
            allowed=f"{len(wanted)} classes: {some(list(wanted))}",
            hint="a label is the position of the folder's name in sorted order, so both splits need the same folders",
        )


def sample_indices(count: int, limit: int) -> np.ndarray:
    """At most ``limit`` positions spread evenly over ``count``."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))


def shape(index: Index, image_size: int | None, channels: int | None) -> tuple[int, int]:
    """(image size, channels): given, or from the headers of a sample."""
    if image_size is not None and channels is not None:
        return image_size, channels
    heads = [header(index.path(int(i))) for i in sample_indices(len(index), SAMPLE)]
    if image_size is None:
        sides = {size for size, _ in heads}
        side = min(heads[0][0])
        image_size = side if len(sides) == 1 and side <= NATIVE_LIMIT else DEFAULT_SIZE
    if channels is None:
        channels = 1 if all(mode in GREY_MODES for _, mode in heads) else 3
    return image_size, channels


def statistics(split: FileSplit, digest: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixel values in 0..1, over a fixed sample of the training images."""

    def measure() -> dict[str, list[float]]:
        chosen = sample_indices(len(split), SAMPLE)
        total, square, count = 0.0, 0.0, 0
        for start in range(0, len(chosen), 64):
            pixels = split.images(chosen[start : start + 64]).numpy().astype(np.float64) / 255
            total = total + pixels.sum((0, 2, 3))
            square = square + (pixels**2).sum((0, 2, 3))
            count += pixels.shape[0] * pixels.shape[2] * pixels.shape[3]
        mean = total / count
        std = np.sqrt(np.maximum(square / count - mean**2, 1e-6))
        return {"mean": [round(float(m), 6) for m in mean], "std": [round(float(s), 6) for s in std]}

    got = cached_json("statistics", [digest, split.image_size, split.channels, SAMPLE], measure)
    return tuple(got["mean"]), tuple(got["std"])
