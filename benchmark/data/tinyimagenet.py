"""``tinyimagenet``: Stanford's ``tiny-imagenet-200``, 200 classes of ImageNet-1K at 64x64, in its original layout.

Label order is that of the sorted WordNet ids; ``wnids.txt`` lists them in another order, which nobody trains with.
The labels of the original ``test/`` are not public, so ``val/`` is the test split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.core.errors import DataError, MissingError
from benchmark.data.base import Dataset
from benchmark.data.files import Index, class_folders, scan, scan_flat
from benchmark.data.options import check_options
from benchmark.data.packed import Shards, find_shards, label_names, numbered, read_index
from benchmark.data.sources import download_root, missing_data, present
from benchmark.data.trees import FILE_OPTIONS, check_classes, file_dataset
from benchmark.data.wordnet import class_names, imagenet_positions, imagenet_wnids

CLASSES = 200


def find(root: Path | None) -> Path | None:
    """The folder that holds ``train/`` and ``val/``, or None."""
    for folder in [root / "tiny-imagenet-200", root / "tinyimagenet", root] if root else []:
        if (folder / "wnids.txt").is_file() and (folder / "train").is_dir():
            return folder
    return None


def find_parquet(root: Path | None) -> Shards | None:
    """Hugging Face's copy (zh-plus/tiny-imagenet), or None."""
    names = ("tinyimagenet", "tiny-imagenet", "zh-plus/tiny-imagenet", "tiny-imagenet-200", ".")
    return find_shards([root / name for name in names]) if root else None


def locate(name: str, root: Path | None) -> Path:
    """Where the data lies (`DatasetInfo.find`)."""
    shards = None if find(root) else find_parquet(root)
    return present(name, root, shards.base if shards else find(root))


def load(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """100,000 training and 10,000 test images; ``val/`` as unpacked, or sorted into class folders."""
    check_options("tinyimagenet", options, (*FILE_OPTIONS, "download"))
    base = find(root)
    shards = None if base else find_parquet(root)
    if shards:
        return from_parquet(shards, options)
    if base is None:
        if options.get("download"):
            download_root("tinyimagenet", root)
        raise missing_data("tinyimagenet", root)
    wnids = tuple(sorted((base / "wnids.txt").read_text().split()))
    if len(wnids) != CLASSES or not set(wnids) <= set(imagenet_wnids()):
        raise DataError(
            f"{len(wnids)} classes", where=str(base / "wnids.txt"), allowed=f"{CLASSES} WordNet ids of ImageNet-1K"
        )
    check_classes(base / "train", wnids, class_folders(base / "train"))
    return file_dataset(
        "tinyimagenet",
        scan(base / "train", inner_folders(base / "train", wnids)),
        val_index(base, wnids),
        options,
        folders=wnids,
        classes=class_names(wnids),
        image_size=64,
        channels=3,
        backbone_classes=imagenet_positions(wnids),
        notes={"root": str(base)},
    )


def from_parquet(shards: Shards, options: dict[str, Any]) -> Dataset:
    """Hugging Face's copy: labels are positions in the order of the sorted WordNet ids, which its metadata lists.

    Its rows carry no file names, so images have another order and the dataset another digest than Stanford's archive.
    """
    wnids = tuple(label_names(shards.train[0]))
    if len(wnids) != CLASSES or list(wnids) != sorted(wnids) or not set(wnids) <= set(imagenet_wnids()):
        raise DataError(
            f"the metadata lists {len(wnids)} classes, {', '.join(wnids[:3])} …",
            where=str(shards.train[0]),
            allowed=f"{CLASSES} WordNet ids of ImageNet-1K, sorted",
            hint="get the original archive: ddbench show dataset tinyimagenet",
        )
    train, test = (read_index(f, numbered(CLASSES, shards.base)) for f in (shards.train, shards.test))
    return file_dataset(
        "tinyimagenet",
        train,
        test,
        options,
        folders=wnids,
        classes=class_names(wnids),
        image_size=64,
        channels=3,
        backbone_classes=imagenet_positions(wnids),
        notes={"root": str(shards.base), "container": shards.format},
    )


def inner_folders(root: Path, wnids: tuple[str, ...]) -> tuple[str, ...]:
    """``WNID/images`` where there is such a folder (as unpacked), else ``WNID``."""
    return tuple(f"{wnid}/images" if (root / wnid / "images").is_dir() else wnid for wnid in wnids)


def val_index(base: Path, wnids: tuple[str, ...]) -> Index:
    """The test split: ``val/images`` with ``val_annotations.txt`` (file name, WordNet id, box), or class folders."""
    val = base / "val"
    table = val / "val_annotations.txt"
    if (val / "images").is_dir() and any((val / "images").iterdir()):
        if not table.is_file():
            raise MissingError("no val_annotations.txt", where=str(val), hint="unpack the archive again")
        label = {wnid: i for i, wnid in enumerate(wnids)}
        rows = [line.split() for line in table.read_text().splitlines() if line.strip()]
        strange = sorted({row[1] for row in rows if len(row) < 2 or row[1] not in label})
        if strange:
            raise DataError(f"classes that wnids.txt does not list: {', '.join(strange[:8])}", where=str(table))
        return scan_flat(val, "images", {row[0]: label[row[1]] for row in rows})
    check_classes(val, wnids, [f for f in class_folders(val) if f != "images"])
    return scan(val, inner_folders(val, wnids))
