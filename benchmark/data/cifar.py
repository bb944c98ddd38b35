"""``cifar10`` and ``cifar100``: the official python batches, Hugging Face's parquet files, CIFAR-10's image tree.

The parquet files hold the official images as PNG, so they give the official pixels, in the official order and with the
official digest.

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
from benchmark.data.packed import Shards, find_shards, label_names, numbered, read_index
from benchmark.data.sources import download_root, missing_data, present
from benchmark.data.trees import FILE_OPTIONS, file_dataset, tree_indexes

# Order of the labels 0..9: batches.meta of the official archive (www.cs.toronto.edu/~kriz/cifar.html).
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FIRST_LABELS = (6, 9, 9, 4, 1, 1, 2, 7, 8, 3)  # of data_batch_1: frog, truck, truck, deer, automobile …
# The fine labels 0..99, alphabetical: the meta file of the official archive.
_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
CIFAR100 = tuple(_FINE.split())
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


def find_parquet(name: str, root: Path | None) -> Shards | None:
    """Hugging Face's copy (``uoft-cs/cifar10``), or None."""
    places = (f"uoft-cs/{name}", name, name.replace("cifar", "cifar-"), ".")
    return find_shards([root / place for place in places]) if root else None


def find_cifar10(root: Path | None) -> Path | None:
    """Where CIFAR-10 lies in any form, or None."""
    return find_batches("cifar10", root) or find_tree(root) or _base(find_parquet("cifar10", root))


def find_cifar100(root: Path | None) -> Path | None:
    """Where CIFAR-100 lies, or None."""
    return find_batches("cifar100", root) or _base(find_parquet("cifar100", root))


def _base(shards: Shards | None) -> Path | None:
    return shards.base if shards else None


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
    shards = None if folder else find_parquet(name, root)
    if shards:
        return from_parquet(name, shards)
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
    return _dataset(name, classes, arrays, {"root": str(folder / BATCHES[name]), "format": "official"})


def from_parquet(name: str, shards: Shards) -> Dataset:
    """The official images from PNGs in parquet files, in the official order.

    Raises:
        DataError: labels or class names of another dataset, an image that is not 32x32 RGB.
    """
    classes = CIFAR10 if name == "cifar10" else CIFAR100
    told = [{"cra": "crab"}.get(label, label) for label in label_names(shards.train[0])]  # a slip in that copy
    if told and tuple(told) != classes:
        raise DataError(
            f"classes {', '.join(told[:4])} … ({len(told)})",
            where=str(shards.train[0]),
            allowed=f"the {len(classes)} of {name}: {', '.join(classes[:4])} …",
            hint="give --data-root the folder that holds this dataset's parquet files",
        )
    arrays = {}
    for part, files in (("train", shards.train), ("test", shards.test)):
        index = read_index(files, numbered(len(classes), shards.base), in_order=True)
        images = np.empty((len(index), 32, 32, 3), np.uint8)
        for i in range(len(index)):
            image = index.image(i, "RGB")
            if image.size != (32, 32):
                raise DataError(f"an image of {image.size[0]}x{image.size[1]} px", where=index.path(i), allowed="32x32")
            images[i] = np.asarray(image)
        order = official_order(index.labels) if (name, part) == ("cifar10", "train") else np.arange(len(index))
        arrays[f"{part} images"], arrays[f"{part} labels"] = images[order], index.labels[order]
    return _dataset(name, classes, arrays, {"root": str(shards.base), "format": "parquet"})


def official_order(labels: np.ndarray) -> np.ndarray:
    """Positions that put the five batches of a CIFAR-10 training split back into their order.

    Hugging Face's copy holds data_batch_4, 3, 2, 5, 1 in this turn; told by where the labels of data_batch_1 begin.
    """
    blocks = np.arange(len(labels))
    if len(labels) % 5:
        return blocks
    blocks = blocks.reshape(5, -1)
    if tuple(labels[blocks[4][: len(FIRST_LABELS)]]) == FIRST_LABELS:
        blocks = blocks[[4, 2, 1, 0, 3]]
    return blocks.ravel()


def _dataset(name: str, classes: tuple[str, ...], arrays: dict[str, np.ndarray], notes: dict[str, str]) -> Dataset:
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
        notes=notes,
    )
