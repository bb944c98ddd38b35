"""``cifar10`` and ``cifar100``: the official python batches, and for CIFAR-10 the common image tree.

A tree of JPEGs has been encoded again, so it is not the official data: ``notes["format"]`` says ``jpeg``, and the
digest differs.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import DataError
from benchmark.data.base import ArraySplit, Dataset, folder_names
from benchmark.data.digest import array_statistics, digest_arrays
from benchmark.data.options import check_options
from benchmark.data.sources import download_root, missing_data, present
from benchmark.data.trees import FILE_OPTIONS, file_dataset, tree_indexes

# Order of the labels 0..9: batches.meta of the official archive (www.cs.toronto.edu/~kriz/cifar.html).
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
CLASSES = {"cifar10": 10, "cifar100": 100}


def find_batches(name: str, root: Path | None) -> Path | None:
    """The folder that holds the official batches' folder, or None."""
    first = {"cifar10": "data_batch_1", "cifar100": "train"}[name]
    for folder in [root, root / name, root / name.upper()] if root else []:
        if (folder / BATCHES[name] / first).is_file():
            return folder
    return None


def find_tree(root: Path | None) -> Path | None:
    """The folder with CIFAR-10's ``train/airplane`` and so on, or None."""
    for folder in [root / "cifar10", root / "CIFAR-10-images", root / "cifar", root] if root else []:
        if (folder / "train" / CIFAR10[0]).is_dir():
            return folder
    return None


def find_cifar10(root: Path | None) -> Path | None:
    """Where CIFAR-10 lies in either form, or None."""
    return find_batches("cifar10", root) or find_tree(root)


def find_cifar100(root: Path | None) -> Path | None:
    """Where CIFAR-100 lies, or None."""
    return find_batches("cifar100", root)


def locate(name: str, root: Path | None) -> Path:
    """Where the data lies (`DatasetInfo.find`)."""
    return present(name, root, find_cifar10(root) if name == "cifar10" else find_cifar100(root))


def load_cifar10(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """50,000 training and 10,000 test images of 32x32: the official batches if they are there, else the tree."""
    tree = None if find_batches("cifar10", root) else find_tree(root)
    if tree is None:
        return official("cifar10", root, options)
    check_options("cifar10", options, (*FILE_OPTIONS, "download"))
    folders, train, test = tree_indexes(tree, CIFAR10)
    notes = {"root": str(tree)}
    return file_dataset("cifar10", train, test, options, folders=folders, image_size=32, channels=3, notes=notes)


def load_cifar100(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """50,000 training and 10,000 test images of 32x32; the 100 fine labels."""
    return official("cifar100", root, options)


def official(name: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """The official batches through torchvision, which checks their MD5 before it unpickles them."""
    check_options(name, options, ("download",))
    folder = find_batches(name, root)
    if folder is None and not options.get("download"):
        raise missing_data(name, root)

    from torchvision import datasets

    cls = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    if folder is None:
        folder = download_root(name, root)
        cls(str(folder), download=True)
    try:
        parts = {"train": cls(str(folder), train=True), "test": cls(str(folder), train=False)}
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise DataError(
            "a batch file is missing or does not have its MD5",
            where=str(folder / BATCHES[name]),
            allowed="the files of the official archive",
            hint=f"remove that folder and unpack {cls.filename} again (MD5 {cls.tgz_md5})",
        ) from error
    classes = tuple(parts["train"].classes)
    if len(classes) != CLASSES[name] or (name == "cifar10" and classes != CIFAR10):
        raise DataError(f"class names {classes[:3]}…", where=str(folder / BATCHES[name]), allowed=", ".join(CIFAR10))
    arrays = {}
    for part, data in parts.items():
        arrays[f"{part} images"], arrays[f"{part} labels"] = data.data, np.array(data.targets, np.int64)
    mean, std = array_statistics(arrays["train images"])
    return Dataset(
        name=name,
        classes=classes,
        folders=folder_names(classes),
        image_size=32,
        channels=3,
        train=ArraySplit(arrays["train images"], arrays["train labels"]),
        test=ArraySplit(arrays["test images"], arrays["test labels"]),
        digest=digest_arrays(classes, arrays),
        mean=mean,
        std=std,
        notes={"root": str(folder / BATCHES[name]), "format": "official"},
    )
