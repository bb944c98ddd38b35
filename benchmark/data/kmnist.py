"""``kmnist``: Kuzushiji-MNIST, ten cursive Japanese characters: four gzip IDX files, known by their MD5."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from benchmark.core.errors import DataError
from benchmark.core.foreign import read_bytes
from benchmark.data.base import ArraySplit, Dataset, folder_names
from benchmark.data.digest import array_statistics, digest_arrays
from benchmark.data.fashionmnist import FILES, read_idx
from benchmark.data.options import check_options
from benchmark.data.sources import SOURCES, download_root, missing_data, present

CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")  # kmnist_classmap.csv, in label order


def find(root: Path | None) -> Path | None:
    """The first folder that holds all four gzipped files, or None."""
    for folder in [root / "KMNIST" / "raw", root / "kmnist", root] if root else []:
        if all((folder / f"{stem}.gz").is_file() for stem in FILES.values()):
            return folder
    return None


def locate(name: str, root: Path | None) -> Path:
    """Where the data lies (`DatasetInfo.find`)."""
    return present(name, root, find(root))


def load(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """60,000 training and 10,000 test images of 28x28 grey pixels.

    Raises:
        DataError: a file does not have its MD5: damaged, or of another dataset in files of the same names.
    """
    check_options("kmnist", options, ("download",))
    folder = find(root)
    if folder is None and options.get("download"):
        from torchvision.datasets import KMNIST

        KMNIST(str(download_root("kmnist", root)), download=True)
        folder = find(root)
    if folder is None:
        raise missing_data("kmnist", root)
    for archive in SOURCES["kmnist"].archives:
        file = folder / archive.url.rpartition("/")[2]
        found = hashlib.md5(read_bytes(file, links=True), usedforsecurity=False).hexdigest()
        if found != archive.md5:
            raise DataError(
                f"is not KMNIST's (MD5 {found})",
                where=str(file),
                allowed=str(archive.md5),
                hint="get the file again, or name the dataset whose files lie there",
            )
    arrays = {part: read_idx(folder, stem) for part, stem in FILES.items()}
    mean, std = array_statistics(arrays["train images"])
    return Dataset(
        name="kmnist",
        classes=CLASSES,
        folders=folder_names(CLASSES),
        image_size=28,
        channels=1,
        train=ArraySplit(arrays["train images"], arrays["train labels"]),
        test=ArraySplit(arrays["test images"], arrays["test labels"]),
        digest=digest_arrays(CLASSES, arrays),
        mean=mean,
        std=std,
    )
