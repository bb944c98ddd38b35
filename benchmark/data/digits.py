"""``digits``: 1797 handwritten digits of 8x8 pixels, shipped inside scikit-learn's wheel (UCI, Alpaydin and Kaynak)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import DataError
from benchmark.data.base import ArraySplit, Dataset, folder_names
from benchmark.data.digest import array_statistics, digest_arrays
from benchmark.data.holdout import stratified
from benchmark.data.options import check_options

CLASSES = tuple("0123456789")
TEST_FRACTION = 0.25  # scikit-learn gives no split; a quarter of each class keeps the test error's noise near 2 points
DIGEST = "d99e9fdf3edd2f5bf195c14553db378d001b81122413b8ec2fbbb081997b0c5b"


def load(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """The fixed stratified split: 1347 training and 450 test images, grey values 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits

    check_options("digits", options, ())
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    members = [np.flatnonzero(labels == c) for c in range(10)]
    train, test = stratified(members, TEST_FRACTION, "ddbench digits")
    arrays = {
        "train images": images[train],
        "train labels": labels[train],
        "test images": images[test],
        "test labels": labels[test],
    }
    digest = digest_arrays(CLASSES, arrays)
    if digest != DIGEST:
        raise DataError(
            f"scikit-learn's digits are not those this benchmark knows (digest {digest[:16]})",
            allowed=DIGEST[:16],
            hint="pip install --force-reinstall scikit-learn",
        )
    mean, std = array_statistics(images[train])
    return Dataset(
        name="digits",
        classes=CLASSES,
        folders=folder_names(CLASSES),
        image_size=8,
        channels=1,
        train=ArraySplit(images[train], labels[train]),
        test=ArraySplit(images[test], labels[test]),
        digest=digest,
        mean=mean,
        std=std,
    )
