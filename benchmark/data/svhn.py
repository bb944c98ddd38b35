"""``svhn``: street view house numbers, cropped digits (format 2), Stanford's two MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import DataError
from benchmark.data.base import ArraySplit, Dataset, folder_names
from benchmark.data.digest import array_statistics, digest_arrays
from benchmark.data.options import check_options
from benchmark.data.sources import download_root, missing_data, present

CLASSES = tuple("0123456789")  # the files call the digit 0 class 10; torchvision makes it 0


def find(root: Path | None) -> Path | None:
    """The folder that holds both files, or None."""
    for folder in [root / "svhn", root / "SVHN", root] if root else []:
        if all((folder / f"{part}_32x32.mat").is_file() for part in ("train", "test")):
            return folder
    return None


def locate(name: str, root: Path | None) -> Path:
    """Where the data lies (`DatasetInfo.find`)."""
    return present(name, root, find(root))


def load(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """73,257 training and 26,032 test images of 32x32, through torchvision, which checks their MD5."""
    check_options("svhn", options, ("download",))
    folder = find(root)
    if folder is None and not options.get("download"):
        raise missing_data("svhn", root)

    from torchvision.datasets import SVHN

    if folder is None:
        folder = download_root("svhn", root) / "svhn"
        for part in ("train", "test"):
            SVHN(str(folder), part, download=True)
    arrays = {}
    for part in ("train", "test"):
        try:
            data = SVHN(str(folder), part)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise DataError(
                "the file does not have its MD5",
                where=str(folder / f"{part}_32x32.mat"),
                allowed=SVHN.split_list[part][2],
                hint=f"get {SVHN.split_list[part][0]} again",
            ) from error
        arrays[f"{part} images"] = np.ascontiguousarray(data.data.transpose(0, 2, 3, 1))
        arrays[f"{part} labels"] = data.labels.astype(np.int64)
    mean, std = array_statistics(arrays["train images"])
    return Dataset(
        name="svhn",
        classes=CLASSES,
        folders=folder_names(CLASSES),
        image_size=32,
        channels=3,
        train=ArraySplit(arrays["train images"], arrays["train labels"]),
        test=ArraySplit(arrays["test images"], arrays["test labels"]),
        digest=digest_arrays(CLASSES, arrays),
        mean=mean,
        std=std,
        notes={"root": str(folder), "format": "official"},
    )
