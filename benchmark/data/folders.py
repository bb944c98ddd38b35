"""``imagefolder:PATH``: anybody's images: class folders with or without a split, parquet, webdataset tars, npz."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import DataError, UsageError
from benchmark.core.foreign import is_odd
from benchmark.core.outputs import expanded
from benchmark.data.arrays import load_npz
from benchmark.data.base import Dataset
from benchmark.data.files import Names, class_folders, scan, some
from benchmark.data.holdout import stratified
from benchmark.data.options import check_options
from benchmark.data.packed import Shards, find_shards, is_saved, label_names, numbered, read_index
from benchmark.data.trees import FILE_OPTIONS, TEST_NAMES, file_dataset, has_train, split_roots, tree_indexes
from benchmark.plugins.registry import named_path


def find(argument: str, root: Path | None) -> Path:
    """The folder meant by ``imagefolder:ARGUMENT``: as given, or below the data root."""
    if not argument.strip():
        raise UsageError(
            "imagefolder: names no folder",
            where="--dataset",
            allowed="NAME=PATH or imagefolder:PATH, with PATH/train/CLASS/* and PATH/val/CLASS/*",
            hint="e.g. --dataset imagefolder:~/pets",
        )
    base = expanded(argument, "--dataset")
    if not base.is_dir() and root is not None and (root / base).is_dir():
        return root / base
    return base


def locate(name: str, root: Path | None) -> Path:
    """What ``imagefolder:PATH`` means (`DatasetInfo.find`): splits, shards, an npz file, or class folders to split."""
    named = named_path(name)
    found = find(named[1] if named else name.partition(":")[2], root)
    if found.suffix == ".npz" and found.is_file():
        return found
    if (not has_train(found) or is_saved(found)) and (
        find_shards([found]) or (found.is_dir() and class_folders(found))
    ):
        return found  # without a split, loading says that --split is needed
    split_roots(found)
    return found


def load(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """The user's own images. Label order is the sorted order of the folders' names, or that of the labels' numbers."""
    base = find(argument, root)
    name = options.pop("name", "") or f"imagefolder:{_last(base)}"
    if base.suffix == ".npz":
        check_options(name, options, ())
        return load_npz(name, base)
    if not base.is_dir() or (has_train(base) and not is_saved(base)):
        check_options(name, options, FILE_OPTIONS)
        folders, train, test = tree_indexes(base)
        return file_dataset(name, train, test, options, folders=folders)
    shards = find_shards([base])
    if shards:
        check_options(name, options, FILE_OPTIONS)
        return load_shards(name, shards, options)
    check_options(name, options, (*FILE_OPTIONS, "split"))
    return load_unsplit(name, base, options)


def _last(base: Path) -> str:
    """The last part of a path: where the data lies on this machine is no part of its name."""
    return Path(os.path.abspath(base)).name or "root"


def load_shards(name: str, shards: Shards, options: dict[str, Any]) -> Dataset:
    """Parquet files or webdataset tars: class names from the metadata, from labels that are text, or numbers."""
    classes: list[str] = label_names(shards.train[0])

    def label_of(labels: Sequence[Any], names: Names) -> np.ndarray:
        array = np.asarray(labels)
        if array.dtype.kind in "iu":
            count = len(classes) or int(array.max()) + 1
            classes[:] = classes or [f"{i:0{len(str(count - 1))}d}" for i in range(count)]
            return numbered(count, shards.base)(labels, names)
        classes[:] = classes or sorted(set(array.tolist()))
        strange = sorted({text for text in array.tolist() if text not in classes or not text or is_odd(text)})
        if strange:
            raise DataError(f"labels {some(strange)}", where=str(shards.base), allowed=some(classes))
        position = {text: i for i, text in enumerate(classes)}
        return np.array([position[text] for text in array.tolist()], np.int64)

    train, test = (read_index(files, label_of) for files in (shards.train, shards.test))
    return file_dataset(name, train, test, options, folders=classes, notes={"container": shards.format})


def load_unsplit(name: str, base: Path, options: dict[str, Any]) -> Dataset:
    """Class folders without a split: the share ``split`` of each class becomes the test split, always the same images.

    Raises:
        MissingError: no ``split`` was given, or there are no class folders.
    """
    fraction = options.get("split")
    if not fraction or not class_folders(base) or set(class_folders(base)) & set(TEST_NAMES):
        split_roots(base)
    folders = class_folders(base)
    whole = scan(base, folders)
    members = [np.flatnonzero(whole.labels == c) for c in range(len(folders))]
    kept, held = stratified(members, fraction, "ddbench split 0")
    notes = {"split": f"{fraction:g} of each class is the test split, seed 0"}
    return file_dataset(name, whole.take(kept), whole.take(held), options, folders=folders, notes=notes)
