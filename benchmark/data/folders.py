"""``imagefolder:PATH``: anybody's images, a folder a class in ``train/`` and ``val/`` (``validation/``, ``test/``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.core.errors import UsageError
from benchmark.core.outputs import expanded
from benchmark.data.base import Dataset
from benchmark.data.options import check_options
from benchmark.data.trees import FILE_OPTIONS, file_dataset, tree_indexes


def find(argument: str, root: Path | None) -> Path:
    """The folder meant by ``imagefolder:ARGUMENT``: as given, or below the data root."""
    if not argument.strip():
        raise UsageError(
            "imagefolder: names no folder",
            where="--dataset",
            allowed="imagefolder:PATH with PATH/train/CLASS/* and PATH/val/CLASS/*",
            hint="e.g. --dataset imagefolder:~/pets",
        )
    base = expanded(argument, "--dataset")
    if not base.is_dir() and root is not None and (root / base).is_dir():
        return root / base
    return base


def locate(name: str, root: Path | None) -> Path:
    """The folder of ``imagefolder:PATH`` (`DatasetInfo.find`), which must have a training and a test split."""
    from benchmark.data.trees import split_roots

    found = find(name.partition(":")[2], root)
    split_roots(found)
    return found


def load(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """The user's own tree. Label order is the sorted order of the folders' names."""
    name = f"imagefolder:{argument}"
    check_options(name, options, FILE_OPTIONS)
    folders, train, test = tree_indexes(find(argument, root))
    return file_dataset(name, train, test, options, folders=folders)
