"""Distilled sets released as parquet files on the Hugging Face hub: ``image`` with ``class_id`` or ``label``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.core.errors import DataError
from benchmark.data.base import resize_crop
from benchmark.data.packed import INNER, label_names, number_columns, numbered, read_index

if TYPE_CHECKING:
    import torch

    from benchmark.data import Dataset


def parquet_files(root: Path) -> list[Path]:
    """The parquet files of a set, in ``root`` or in the folder ``data`` that the hub puts inside; or none."""
    for inner in INNER:
        base = root / inner if inner else root
        found = sorted(base.glob("*.parquet")) if base.is_dir() else []
        if found:
            return found
    return []


def read_parquet(files: list[Path], dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """A set as images uint8 ``[N, C, side, side]`` and labels int64 ``[N]``, class after class; sides as in `released`.

    Raises:
        DataError: a file that is damaged or missing, labels that are not the dataset's, class names in another order,
            stored soft labels.
        MissingError: pyarrow is not installed.
    """
    import torch

    where, count = files[0].parent, len(dataset.classes)
    names = label_names(files[0])
    for ours in (list(dataset.folders), list(dataset.classes)):
        if names != ours and sorted(names) == sorted(ours):
            at = next(i for i, (a, b) in enumerate(zip(names, ours)) if a != b)
            raise DataError(
                f"another class order: label {at} is {names[at]!r} there and {ours[at]!r} here", where=str(where)
            )
    soft = number_columns(files[0])
    if soft:
        raise DataError(
            f"columns of numbers beside images and labels: {', '.join(soft)}",
            where=str(files[0]),
            allowed="an image and a label in each row: no protocol trains with labels or weights from a file",
            hint="to score the images alone, write the files again without these columns",
        )
    index = read_index(files, numbered(count, where), in_order=True)
    order = np.argsort(index.labels, kind="stable")
    index = index.take(order)
    sizes = {index.header(i)[0] for i in range(len(index))}
    (width, height), *others = sizes
    side = width if width == height >= dataset.image_size and not others else dataset.image_size
    images = torch.empty(len(index), dataset.channels, side, side, dtype=torch.uint8)
    for row in range(len(index)):
        pixels = np.array(resize_crop(index.image(row, "L" if dataset.channels == 1 else "RGB"), side))
        images[row] = torch.from_numpy(pixels.reshape(side, side, dataset.channels)).permute(2, 0, 1)
    return images, torch.from_numpy(index.labels.copy())


def count_rows(files: list[Path]) -> int | None:
    """Images a class as the labels tell it; None where classes differ."""

    def label_of(labels: Any, names: Any) -> np.ndarray:
        return np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64)

    counts = set(np.bincount(read_index(files, label_of).labels).tolist())
    return counts.pop() if len(counts) == 1 else None
