"""``fashionmnist``: torchvision's four gzip IDX files, under the data root or where Debian's package puts them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.archives import gunzip
from benchmark.core.errors import DataError
from benchmark.core.foreign import read_bytes
from benchmark.data.base import ArraySplit, Dataset, folder_names
from benchmark.data.digest import array_statistics, digest_arrays
from benchmark.data.options import check_options
from benchmark.data.sources import download_root, missing_data, present

# Order of the labels 0..9: the table in the README of github.com/zalandoresearch/fashion-mnist.
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FILES = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}
MOST = 64 << 20  # bytes of an unpacked file: the largest has 47 MB
DIGEST = "46264f442a019eae82d8b2a337fbe9d175a8a32aab5ee9cab8adaca4d6b6f075"  # of the four official files' content
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist installs the files


def load(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """60,000 training and 10,000 test images of 28x28 grey pixels."""
    check_options("fashionmnist", options, ("download",))
    folder = find(root)
    if folder is None and options.get("download"):
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(download_root("fashionmnist", root)), download=True)
        folder = find(root)
    if folder is None:
        raise missing_data("fashionmnist", root)
    arrays = {part: read_idx(folder, stem) for part, stem in FILES.items()}
    for part in ("train", "test"):
        images, labels = arrays[f"{part} images"], arrays[f"{part} labels"]
        if images.shape[1:] != (28, 28) or len(images) != len(labels) or set(np.unique(labels)) != set(range(10)):
            raise DataError(
                f"{part}: images {images.shape}, labels {labels.shape} of {sorted(map(int, set(labels.tolist())))}",
                where=str(folder),
                allowed="n images of 28x28 and n labels 0..9, every class present",
            )
    digest = digest_arrays(CLASSES, arrays)
    if DIGEST and digest != DIGEST:  # MNIST, KMNIST and others come in files of the same names and shapes
        raise DataError(
            f"the files are whole and not Fashion-MNIST's (digest {digest[:16]})",
            where=str(folder),
            allowed=DIGEST[:16],
            hint="another dataset lies there: --dataset kmnist if it is KMNIST; others as imagefolder:FILE.npz",
        )
    mean, std = array_statistics(arrays["train images"])
    return Dataset(
        name="fashionmnist",
        classes=CLASSES,
        folders=folder_names(CLASSES),
        image_size=28,
        channels=1,
        train=ArraySplit(arrays["train images"], arrays["train labels"]),
        test=ArraySplit(arrays["test images"], arrays["test labels"]),
        digest=digest,
        mean=mean,
        std=std,
    )


def places(root: Path | None) -> list[Path]:
    """Folders that may hold the files, first choice first."""
    given = [root / "FashionMNIST" / "raw", root] if root else []
    return [*given, DEBIAN]


def find(root: Path | None) -> Path | None:
    """The first folder that holds all four files, gzipped or not."""
    for folder in places(root):
        if all((folder / f"{stem}.gz").is_file() or (folder / stem).is_file() for stem in FILES.values()):
            return folder
    return None


def locate(name: str, root: Path | None) -> Path:
    """Where the data lies (`DatasetInfo.find`)."""
    return present(name, root, find(root))


def read_idx(folder: Path, stem: str) -> np.ndarray:
    """One IDX file of unsigned bytes (yann.lecun.com/exdb/mnist: magic 0, 0, 8, dimensions; big-endian sizes; data).

    Raises:
        DataError: not an IDX file of bytes, truncated, or with bytes left over; names the file.
    """
    path = folder / f"{stem}.gz"
    path = path if path.is_file() else folder / stem
    raw = gunzip(path, MOST) if path.suffix == ".gz" else read_bytes(path, links=True, most=MOST)
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise DataError("not an IDX file of unsigned bytes", where=str(path), hint="get the file again")
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    start = 4 + 4 * raw[3]
    if len(raw) - start != int(np.prod(shape)):
        raise DataError(
            f"holds {len(raw) - start} bytes of data, its header says {'x'.join(map(str, shape))}",
            where=str(path),
            hint="get the file again",
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
