"""``NAME=PATH``, ``imagefolder:PATH``: anybody's images: class folders, tables, parquet, Arrow, tars, npz."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.core.foreign import is_odd
from benchmark.core.outputs import expanded
from benchmark.data import listed
from benchmark.data.arrays import load_npz
from benchmark.data.base import Dataset
from benchmark.data.files import Index, Names, class_folders, scan, some
from benchmark.data.holdout import stratified
from benchmark.data.options import check_options
from benchmark.data.packed import (
    Shards,
    find_shards,
    is_saved,
    label_names,
    numbered,
    read_index,
    unsplit_shards,
)
from benchmark.data.trees import (
    FILE_OPTIONS,
    TEST_NAMES,
    TRAIN_NAMES,
    check_classes,
    file_dataset,
    has_train,
    split_roots,
    tree_indexes,
)
from benchmark.plugins.registry import named_path


def find(argument: str, root: Path | None) -> Path:
    """The folder meant by ``imagefolder:ARGUMENT``: as given, or below the data root."""
    if not argument.strip():
        raise UsageError(
            "imagefolder: names no folder",
            where="--dataset",
            allowed="NAME=PATH or imagefolder:PATH, with PATH/train/CLASS/* and PATH/val/CLASS/*",
            hint="e.g. --dataset pets=~/pets",
        )
    base = expanded(argument, "--dataset")
    if not base.is_dir() and root is not None and (root / base).is_dir():
        return root / base
    return base


def locate(name: str, root: Path | None) -> Path:
    """What ``imagefolder:PATH`` means (`DatasetInfo.find`): folders with or without a split, shards, a table, npz."""
    named = named_path(name)
    found = find(named[1] if named else name.partition(":")[2], root)
    if found.is_file() and found.suffix.lower() in (".npz", *listed.SUFFIXES):
        return found
    if listed.tables_in(found) or unsplit_shards(found):
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
    tables = listed.tables_in(base)
    if tables:
        check_options(name, options, (*FILE_OPTIONS, "split"))
        return load_listed(name, listed.read_rows(tables), options)
    if not base.is_dir() or (has_train(base) and not is_saved(base)):
        check_options(name, options, FILE_OPTIONS)
        folders, train, test = tree_indexes(base)
        return file_dataset(name, train, test, options, folders=folders)
    shards = find_shards([base])
    if shards:
        check_options(name, options, FILE_OPTIONS)
        return load_shards(name, shards, options)
    check_options(name, options, (*FILE_OPTIONS, "split"))
    whole = unsplit_shards(base)
    if whole:
        classes: list[str] = label_names(whole[0])
        fraction = _fraction(options, str(base), "one part of the images")
        index = read_index(whole, _labelled(classes, base))
        return _split_dataset(name, index, classes, fraction, options, {"container": whole[0].suffix[1:]})
    return load_unsplit(name, base, options)


def load_listed(name: str, rows: listed.Rows, options: dict[str, Any]) -> Dataset:
    """Images that a table names, with the split that it, its name or the files' folders say, or ``split``.

    Raises:
        MissingError: neither says what the test split is. DataError: a file is missing, classes differ.
    """
    classes = listed.class_order(set(rows.labels))
    parts = listed.parts_of(rows, TRAIN_NAMES, TEST_NAMES)
    width = max(map(len, classes)) if all(c.isdecimal() for c in classes) else 0
    folders = [c.zfill(width) for c in classes]
    position = {label: i for i, label in enumerate(classes)}
    labels = np.array([position[label] for label in rows.labels], np.int64)
    notes = {"table": ", ".join(rows.tables)}
    if parts is None:
        whole = listed.index_of(rows, labels, range(len(labels)))
        fraction = _fraction(options, rows.where, "images without a split")
        return _split_dataset(name, whole, folders, fraction, options, notes)
    if options.get("split"):
        raise UsageError("the table says which images are for testing", where="--split", hint="leave it out")
    train, test, other = parts
    if other:
        notes["not read"] = f"rows of other parts: {len(other)}"
    indexes = [listed.index_of(rows, labels, chosen) for chosen in (train, test)]
    for index in indexes:
        check_classes(index.root, classes, [classes[i] for i in np.unique(index.labels)])
    return file_dataset(name, *indexes, options, folders=folders, notes=notes)


def _fraction(options: dict[str, Any], where: str, what: str) -> float:
    """The option ``split`` of data without a test split.

    Raises:
        MissingError: it was not given.
    """
    fraction = options.get("split")
    if not fraction:
        raise MissingError(
            f"{what}, none for testing",
            where=where,
            allowed="a training and a test part",
            hint="--split 0.2 holds out a fifth of each class, always the same images",
        )
    return fraction


def _split_dataset(
    name: str, whole: Index, folders: Sequence[str], fraction: float, options: dict[str, Any], notes: dict[str, str]
) -> Dataset:
    """A dataset whose test split is the share ``fraction`` of each class, always the same images."""
    members = [np.flatnonzero(whole.labels == c) for c in range(len(folders))]
    kept, held = stratified(members, fraction, "ddbench split 0")
    notes = {"split": f"{fraction:g} of each class is the test split, seed 0", **notes}
    return file_dataset(name, whole.take(kept), whole.take(held), options, folders=folders, notes=notes)


def _last(base: Path) -> str:
    """The last part of a path: where the data lies on this machine is no part of its name."""
    return Path(os.path.abspath(base)).name or "root"


def load_shards(name: str, shards: Shards, options: dict[str, Any]) -> Dataset:
    """Parquet files or webdataset tars: class names from the metadata, from labels that are text, or numbers."""
    classes: list[str] = label_names(shards.train[0])
    label_of = _labelled(classes, shards.base)
    train, test = (read_index(files, label_of) for files in (shards.train, shards.test))
    return file_dataset(name, train, test, options, folders=classes, notes={"container": shards.format})


def _labelled(classes: list[str], base: Path) -> Callable[[Sequence[Any], Names], np.ndarray]:
    """A ``label_of`` (`read_index`) that fills ``classes`` from the first labels where the shards name none."""

    def label_of(labels: Sequence[Any], names: Names) -> np.ndarray:
        array = np.asarray(labels)
        if array.dtype.kind in "iu":
            count = len(classes) or int(array.max()) + 1
            classes[:] = classes or [f"{i:0{len(str(count - 1))}d}" for i in range(count)]
            return numbered(count, base)(labels, names)
        classes[:] = classes or sorted(set(array.tolist()))
        strange = sorted({text for text in array.tolist() if text not in classes or not text or is_odd(text)})
        if strange:
            raise DataError(f"labels {some(strange)}", where=str(base), allowed=some(classes))
        position = {text: i for i, text in enumerate(classes)}
        return np.array([position[text] for text in array.tolist()], np.int64)

    return label_of


def load_unsplit(name: str, base: Path, options: dict[str, Any]) -> Dataset:
    """Class folders without a split: the share ``split`` of each class becomes the test split, always the same images.

    Raises:
        MissingError: no ``split`` was given, or there are no class folders.
    """
    fraction = options.get("split")
    if not fraction or not class_folders(base) or set(class_folders(base)) & set(TEST_NAMES):
        split_roots(base)
    folders = class_folders(base)
    return _split_dataset(name, scan(base, folders), folders, fraction, options, {})
