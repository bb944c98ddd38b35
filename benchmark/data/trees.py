"""From the indexes of two splits of image files to a `Dataset`: shape, corrupt files, digest, statistics."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import DataError, MissingError
from benchmark.core.store import digest_of
from benchmark.data.base import Dataset, Split, folder_names
from benchmark.data.decode import GREY_MODES
from benchmark.data.external import cached_json, content_digest, corrupt_files, decoded
from benchmark.data.files import FileSplit, Index, class_folders, scan, some, unread_files

TRAIN_NAMES = ("train", "training", "Train", "Training")  # the first that exists
TEST_NAMES = ("val", "validation", "valid", "test", "testing", "Val", "Valid", "Validation", "Test", "Testing")
NATIVE_LIMIT = 64  # images all of one square size up to this keep it and are decoded once; others become DEFAULT_SIZE
DEFAULT_SIZE = 224
SAMPLE = 512  # images looked at to find size, mode and mean
FILE_OPTIONS = ("image_size", "on_corrupt")  # options of every dataset of image files


def file_dataset(
    name: str,
    train: Index,
    test: Index,
    options: dict[str, Any],
    *,
    folders: Sequence[str],
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    backbone_classes: Sequence[int] | None = None,
    notes: dict[str, str] | None = None,
) -> Dataset:
    """A dataset of image files.

    Args:
        folders: folder names of the classes in label order; ``classes`` their names for people.
        image_size, channels: None looks at a sample of the training images.
        statistics: mean and standard deviation per channel; None measures them on a sample of the training images.

    Raises:
        DataError: a sampled image cannot be read, or skipping corrupt ones leaves a class without images.
    """
    notes = {"root": str(train.root), "format": file_format(train), **(notes or {})}
    left = {part: unread_files(index) for part, index in (("train", train), ("test", test))}
    if any(left.values()):
        notes["not read"] = "; ".join(f"{part}: {text}" for part, text in left.items() if text)
    if options.get("on_corrupt") == "skip":
        train, test = without_corrupt(train, notes, "train"), without_corrupt(test, notes, "test")
    size, depth = shape(train, options.get("image_size") or image_size, channels)
    labels = tuple(classes or folders)
    digest = content_digest(labels, {"train": train, "test": test})
    if options.get("image_size"):  # another size is another dataset: other latents, sets, students and scores
        digest = digest_of({"content": digest, "image_size": size})
    splits: list[Split] = [FileSplit(train, depth, size), FileSplit(test, depth, size)]
    if size <= NATIVE_LIMIT:
        splits = [decoded(split, digest, part) for split, part in zip(splits, ("train", "test"))]
    mean, std = statistics or measure_statistics(splits[0], digest)
    return Dataset(
        name=name,
        classes=labels,
        folders=folder_names(folders),
        image_size=size,
        channels=depth,
        train=splits[0],
        test=splits[1],
        digest=digest,
        mean=mean,
        std=std,
        backbone_classes=tuple(backbone_classes) if backbone_classes is not None else None,
        notes=notes,
    )


def tree_indexes(base: Path, folders: Sequence[str] | None = None) -> tuple[tuple[str, ...], Index, Index]:
    """(class folders, training index, test index) of ``base/train`` and ``base/{val,validation,test}``.

    Args:
        folders: the class folders in label order; None takes the sorted folders of ``train/``.

    Raises:
        MissingError: a folder is not there.
        DataError: classes differ between the splits, or a class is empty.
    """
    train_root, test_root = split_roots(base)
    found = class_folders(train_root)
    if not found:
        raise DataError("no class folders", where=str(train_root), allowed="one folder a class, with images in it")
    folders = tuple(folders or found)
    check_classes(train_root, folders, found)
    check_classes(test_root, folders, class_folders(test_root))
    return folders, scan(train_root, folders), scan(test_root, folders)


def has_train(base: Path) -> bool:
    """Whether there is a folder of the training split."""
    return any((base / name).is_dir() for name in TRAIN_NAMES)


def split_roots(base: Path) -> tuple[Path, Path]:
    """The folders of the training and of the test split.

    Raises:
        MissingError: one of them is not there.
    """
    layout = f"{base}/train/CLASS/*.jpg and {base}/val/CLASS/*.jpg (or validation/, valid/, test/, testing/)"
    if not base.is_dir():
        raise MissingError(
            f"{base} is a file, none of those that are read" if base.is_file() else f"no folder {base}",
            where="--dataset",
            allowed=layout,
            hint="check the path; of data that has a name in records: --dataset NAME=PATH",
        )
    train = next((base / name for name in TRAIN_NAMES if (base / name).is_dir()), None)
    if train is None:
        raise MissingError(
            "no folder train/",
            where=str(base),
            allowed=layout,
            hint="put the training images there; of class folders without a split, --split 0.2 makes one",
        )
    for name in TEST_NAMES:
        if (base / name).is_dir():
            return train, base / name
    raise MissingError(
        "no folder val/, validation/, valid/, test/ or testing/",
        where=str(base),
        allowed=layout,
        hint="put the test images there",
    )


def check_classes(root: Path, wanted: Sequence[str], found: Sequence[str]) -> None:
    """The class folders in ``root`` must be those wanted, no more, no fewer.

    Raises:
        DataError: names those missing and those not expected.
    """
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or extra:
        parts = [f"missing: {some(missing)}"] * bool(missing) + [f"not expected: {some(extra)}"] * bool(extra)
        raise DataError(
            f"class folders differ; {'; '.join(parts)}",
            where=str(root),
            allowed=f"{len(wanted)} classes: {some(list(wanted))}",
            hint=_mend(root, missing, extra),
        )


def _mend(root: Path, missing: Sequence[str], extra: Sequence[str]) -> str:
    """What to do so that the class folders in ``root`` are those wanted: a command where one does it."""
    packed = [name for name in missing if (root / f"{name}.tar").is_file()]
    if packed:
        tars = f"{shlex.quote(str(root))}/*.tar"
        return f'for t in {tars}; do mkdir -p "${{t%.tar}}" && tar -xf "$t" -C "${{t%.tar}}"; done'
    broken = [name for name in missing if (root / name).is_symlink()]
    if broken:
        link = root / broken[0]
        return f"{link} is a link to {os.readlink(link)}, which is not there: mount or restore that, or link anew"
    if extra and not missing:
        away = root.parent / "unused"
        moved = " ".join(shlex.quote(str(root / name)) for name in extra)
        return f"mkdir -p {shlex.quote(str(away))} && mv {moved} {shlex.quote(str(away))}"
    return (
        f"put the missing class folders into {root} (unpack the archive again) and move the others away; a label is "
        "the position of the folder's name in sorted order, so both splits need the same folders"
    )


def without_corrupt(index: Index, notes: dict[str, str], part: str) -> Index:
    """``index`` without the files that cannot be decoded; ``notes["skipped"]`` counts them.

    Raises:
        DataError: a class has no readable image left.
    """
    bad = corrupt_files(index)
    if not bad:
        return index
    for _, path, fault in bad:
        notes["skipped files"] = "; ".join(filter(None, [notes.get("skipped files"), f"{path}: {fault}"]))
    kept = np.setdiff1d(np.arange(len(index)), [b[0] for b in bad])
    lost = sorted(set(index.labels.tolist()) - set(index.labels[kept].tolist()))
    if lost:
        raise DataError(
            f"no readable image left in class(es) {some(lost)}", where=str(index.root), hint="get the data again"
        )
    notes["skipped"] = ", ".join(filter(None, [notes.get("skipped"), f"{len(bad)} corrupt in {part}"]))
    return index.take(kept)


def sample_indices(count: int, limit: int) -> np.ndarray:
    """At most ``limit`` positions spread evenly over ``count``."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))


def shape(index: Index, image_size: int | None, channels: int | None) -> tuple[int, int]:
    """(image size, channels): given, or from the headers of a sample."""
    if image_size is not None and channels is not None:
        return image_size, channels
    heads = [index.header(int(i)) for i in sample_indices(len(index), SAMPLE)]
    if image_size is None:
        sides = {side for size, _ in heads for side in size}
        image_size = sides.pop() if len(sides) == 1 and min(sides) <= NATIVE_LIMIT else DEFAULT_SIZE
    if channels is None:
        channels = 1 if all(mode in GREY_MODES for _, mode in heads) else 3
    return image_size, channels


def file_format(index: Index) -> str:
    """``jpeg``, ``png``, … from the extensions of a sample: a re-encoded dataset is not the original one."""
    sample = {Path(index.names[int(i)]).suffix.lower().lstrip(".") for i in sample_indices(len(index), SAMPLE)}
    return " and ".join(sorted({"jpeg" if s == "jpg" else s for s in sample}))


def measure_statistics(split: Split, digest: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixel values in 0..1, over a fixed sample of the training images."""

    def measure() -> dict[str, list[float]]:
        chosen = sample_indices(len(split), 8 * SAMPLE if split.image_size <= NATIVE_LIMIT else SAMPLE)
        total, square, count = 0.0, 0.0, 0
        for start in range(0, len(chosen), 64):
            pixels = split.images(chosen[start : start + 64]).numpy().astype(np.float64) / 255
            total = total + pixels.sum((0, 2, 3))
            square = square + (pixels**2).sum((0, 2, 3))
            count += pixels.shape[0] * pixels.shape[2] * pixels.shape[3]
        mean = total / count
        std = np.sqrt(np.maximum(square / count - mean**2, 1e-6))
        return {"mean": [round(float(m), 6) for m in mean], "std": [round(float(s), 6) for s in std]}

    got = cached_json("statistics", ["statistics 1", digest, split.image_size, split.channels], measure)
    return tuple(got["mean"]), tuple(got["std"])
