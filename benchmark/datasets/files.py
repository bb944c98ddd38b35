"""A split whose images are files, and the index of a tree of class folders (built for a million files)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.datasets.base import Split, resize_crop
from benchmark.datasets.decode import EXTENSIONS, open_image
from benchmark.errors import DataError, MissingError

THREADS = min(8, os.cpu_count() or 1)  # PIL decodes outside the interpreter lock


class Names:
    """Many short strings in one block of bytes: 1.28 million file names in 40 MB instead of 130."""

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.ends = np.cumsum([len(e) for e in encoded], dtype=np.int64) if encoded else np.zeros(0, np.int64)
        self.block = b"".join(encoded)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.block[start : self.ends[index]])


@dataclass
class Index:
    """The image files of one split: ``folders[labels[i]] / names[i]``, by class, then by name."""

    root: Path
    folders: tuple[str, ...]
    labels: np.ndarray  # int64 [n]
    names: Names
    sizes: np.ndarray  # int64 [n], bytes
    mtimes: np.ndarray  # int64 [n], nanoseconds

    def path(self, index: int) -> str:
        return os.path.join(self.root, self.folders[self.labels[index]], self.names[index])

    def __len__(self) -> int:
        return len(self.labels)

    def listing_digest(self) -> str:
        """SHA-256 over class folders, file names and file sizes."""
        sha = hashlib.sha256()
        for folder in self.folders:
            sha.update(os.fsencode(folder) + b"\0")
        for array in (self.labels.astype("<i8"), self.sizes.astype("<i8"), self.names.ends.astype("<i8")):
            sha.update(array.tobytes())
        sha.update(self.names.block)
        return sha.hexdigest()


class FileSplit(Split):
    """Images read from files on demand, decoded by a few threads."""

    def __init__(self, index: Index, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        self.index, self.labels = index, index.labels

    def pil(self, index: int) -> Image.Image:
        return open_image(self.index.path(index), "L" if self.channels == 1 else "RGB")

    def images(self, indices, size=None, channels=None):
        import torch

        size, channels = size or self.image_size, channels or self.channels
        mode = "L" if channels == 1 else "RGB"
        out = np.empty((len(indices), size, size, channels), np.uint8)

        def decode(row: int) -> None:
            image = open_image(self.index.path(int(indices[row])), mode, size)
            out[row] = np.asarray(resize_crop(image, size)).reshape(size, size, channels)

        if len(indices) < 4 or THREADS == 1:
            for row in range(len(indices)):
                decode(row)
        else:
            with ThreadPoolExecutor(THREADS) as pool:
                for _ in pool.map(decode, range(len(indices))):
                    pass
        return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the folders in ``root``, sorted; hidden ones left out."""
    with os.scandir(root) as entries:
        return tuple(sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir()))


def scan(root: Path, folders: Sequence[str]) -> Index:
    """Index the image files in ``root/<folder>`` for each of ``folders``, in that order.

    Raises:
        MissingError: a class folder is not there.
        DataError: a class folder holds no images.
    """
    labels, names, sizes, mtimes, empty, missing = [], [], [], [], [], []
    for label, folder in enumerate(folders):
        found = []
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith("."):
                        stat = entry.stat()
                        found.append((entry.name, stat.st_size, stat.st_mtime_ns))
        except (FileNotFoundError, NotADirectoryError):
            missing.append(folder)
            continue
        if not found:
            empty.append(folder)
        found.sort()
        labels += [label] * len(found)
        names += [f[0] for f in found]
        sizes += [f[1] for f in found]
        mtimes += [f[2] for f in found]
    if missing:
        raise MissingError(f"class folder(s) missing: {some(missing)}", where=str(root), allowed=some(folders))
    if empty:
        raise DataError(
            f"class folder(s) without images: {some(empty)}",
            where=str(root),
            allowed="at least one image a class: " + ", ".join(EXTENSIONS),
        )
    return Index(
        Path(root),
        tuple(folders),
        np.array(labels, np.int64),
        Names(names),
        np.array(sizes, np.int64),
        np.array(mtimes, np.int64),
    )


def some(names: Sequence[str], limit: int = 8) -> str:
    """The first few names, and how many there are."""
    more = f", … ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
