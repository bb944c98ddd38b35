"""``cifar10``: the common image tree ``train/<class>``, ``test/<class>``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.datasets.base import Dataset
from benchmark.datasets.options import check_options
from benchmark.datasets.trees import FILE_OPTIONS, file_dataset, tree_indexes
from benchmark.errors import MissingError

# Order of the labels 0..9: batches.meta of the official archive (www.cs.toronto.edu/~kriz/cifar.html).
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_cifar10(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """50,000 training and 10,000 test images of 32x32."""
    check_options("cifar10", options, FILE_OPTIONS)
    for base in [root / "cifar10", root / "CIFAR-10-images", root / "cifar", root] if root else []:
        if (base / "train" / CIFAR10[0]).is_dir():
            folders, train, test = tree_indexes(base, CIFAR10)
            return file_dataset("cifar10", train, test, options, folders=folders, image_size=32, channels=3)
    raise MissingError(
        "CIFAR-10 is not there",
        where=str(root) if root else "no --data-root and no DDBENCH_DATA",
        allowed="DATA/cifar10/train/airplane/*.jpg …",
        hint="get https://www.cs.toronto.edu/~kriz/cifar.html and give --data-root DATA",
    )
