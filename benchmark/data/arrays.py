"""``NAME=FILE.npz``: images and labels as arrays, as MedMNIST and Keras store them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.core.archives import read_npz
from benchmark.core.errors import DataError
from benchmark.data.base import ArraySplit, Dataset, folder_names
from benchmark.data.digest import array_statistics, digest_arrays
from benchmark.data.files import readable

NAMES = (  # of the arrays: training images and labels, test images and labels
    ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST; its val_* are not used
    ("x_train", "y_train", "x_test", "y_test"),  # Keras
)
LAYOUT = "train_images, train_labels, test_images, test_labels (or x_train, y_train, x_test, y_test)"


def load_npz(name: str, file: Path) -> Dataset:
    """The dataset in an npz file; classes are named by their numbers.

    Raises:
        DataError: no npz, truncated, other arrays, images that are not 8-bit squares, a class that is missing.
    """
    with readable(file):
        try:
            found = list(read_npz(file, NAMES).values())
        except DataError as error:
            error.allowed = error.allowed or f"a whole npz file with {LAYOUT}"
            raise
    arrays = {}
    for part, images, labels in (("train", *found[:2]), ("test", *found[2:])):
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        images = images[..., 0] if images.ndim == 4 and images.shape[3] == 1 else images
        square = images.ndim in (3, 4) and images.shape[1] == images.shape[2] and images.shape[3:] in ((), (3,))
        fits = labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels) == len(images) > 0
        if images.dtype != np.uint8 or not square or not fits:
            raise DataError(
                f"{part}: images {images.dtype} {list(images.shape)}, labels {labels.dtype} {list(labels.shape)}",
                where=str(file),
                allowed="images uint8 [n, side, side] or [n, side, side, 3], labels whole numbers [n] or [n, 1]",
            )
        arrays[f"{part} images"], arrays[f"{part} labels"] = images, labels.astype(np.int64)
    count = int(arrays["train labels"].max()) + 1
    for part in ("train", "test"):
        present = np.unique(arrays[f"{part} labels"])
        if not np.array_equal(present, np.arange(count)):
            raise DataError(
                f"{part}: labels {present.min()} to {present.max()}, {len(present)} different ones",
                where=str(file),
                allowed=f"0 to {count - 1}, each at least once",
            )
    width = len(str(count - 1))
    classes = tuple(f"{i:0{width}d}" for i in range(count))
    mean, std = array_statistics(arrays["train images"])
    return Dataset(
        name=name,
        classes=classes,
        folders=folder_names(classes),
        image_size=int(arrays["train images"].shape[1]),
        channels=1 if arrays["train images"].ndim == 3 else 3,
        train=ArraySplit(arrays["train images"], arrays["train labels"]),
        test=ArraySplit(arrays["test images"], arrays["test labels"]),
        digest=digest_arrays(classes, arrays),
        mean=mean,
        std=std,
        notes={"root": str(file), "format": "npz"},
    )
