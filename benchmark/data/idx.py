"""``fashionmnist``, ``kmnist``, ``emnist-letters`` …: MNIST's four IDX files, gzipped or not, 28x28 grey pixels.

All come in files of the same format, so each is known by its content: a digest, MD5s, or names and counts.
"""

from __future__ import annotations

import hashlib
import math
import string
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.archives import gunzip
from benchmark.core.errors import DataError
from benchmark.core.foreign import read_bytes
from benchmark.data.base import ArraySplit, Dataset, folder_names
from benchmark.data.digest import array_statistics, digest_arrays
from benchmark.data.options import check_options
from benchmark.data.sources import SOURCES, download_root, missing_data, present

SIDE = 28
MOST = 256 << 20  # bytes of an unpacked file: the largest, EMNIST's 240,000 digits, has 188 MB
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist installs the files


@dataclass(frozen=True)
class Kind:
    """What is particular to one of the datasets.

    Attributes:
        classes: in label order. Fashion-MNIST's: the README of github.com/zalandoresearch/fashion-mnist; KMNIST's:
            kmnist_classmap.csv; EMNIST's: torchvision.
        folders: below the data root, first choice first.
        stems: of the files of training images and labels, test images and labels.
        digest: of the content; "": it is not known by it.
        first: the label of the first class in the files (EMNIST's letters begin at 1).
        transposed: whether rows and columns are exchanged in the files, as in EMNIST's; images are read upright.
    """

    classes: Sequence[str]
    folders: tuple[str, ...]
    stems: tuple[str, str, str, str] = (
        "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
    )  # fmt: skip
    digest: str = ""
    first: int = 0
    transposed: bool = False


def _emnist(split: str, classes: Sequence[str], first: int = 0) -> Kind:
    stems = [f"emnist-{split}-{part}-{what}" for part in ("train", "test")
             for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]  # fmt: skip
    folders = ("EMNIST/raw", "EMNIST/raw/gzip", "emnist", "gzip", "")
    return Kind(tuple(classes), folders, tuple(stems), first=first, transposed=True)


_MERGED = set("cijklmopsuvwxyz")  # letters whose two cases are one class of `balanced`
KINDS = {
    "fashionmnist": Kind(
        ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ("FashionMNIST/raw", ""),
        digest="46264f442a019eae82d8b2a337fbe9d175a8a32aab5ee9cab8adaca4d6b6f075",
    ),
    "kmnist": Kind(("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"), ("KMNIST/raw", "kmnist", "")),
    "emnist-letters": _emnist("letters", string.ascii_lowercase, first=1),
    "emnist-balanced": _emnist("balanced", sorted(set(string.digits + string.ascii_letters) - _MERGED)),
    "emnist-digits": _emnist("digits", string.digits),
}


def load_fashionmnist(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """60,000 training and 10,000 test images of clothes."""
    return _load("fashionmnist", root, options)


def load_kmnist(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """60,000 training and 10,000 test images of ten cursive Japanese characters."""
    return _load("kmnist", root, options)


def load_letters(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """124,800 training and 20,800 test images of 26 letters, upper and lower case one class."""
    return _load("emnist-letters", root, options)


def load_balanced(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """112,800 training and 18,800 test images of digits and letters, 47 classes."""
    return _load("emnist-balanced", root, options)


def load_digits(argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """240,000 training and 40,000 test images of digits."""
    return _load("emnist-digits", root, options)


def _load(name: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """The dataset; ``options`` may say to download it.

    Raises:
        MissingError: the files are not there.
        DataError: they are damaged, or those of another dataset.
    """
    check_options(name, options, ("download",))
    kind = KINDS[name]
    folder = find(name, root)
    if folder is None and options.get("download"):
        _download(name, download_root(name, root))
        folder = find(name, root)
    if folder is None:
        raise missing_data(name, root)
    _check_md5(name, folder)
    parts = ("train images", "train labels", "test images", "test labels")
    arrays = {part: read_idx(folder, stem) for part, stem in zip(parts, kind.stems)}
    for part, count in (("train", SOURCES[name].train), ("test", SOURCES[name].test)):
        images, labels = arrays[f"{part} images"], arrays[f"{part} labels"]
        wanted = set(range(kind.first, kind.first + len(kind.classes)))
        counts = kind.transposed and len(images) != count  # EMNIST publishes no checksum of these files
        if images.shape[1:] != (SIDE, SIDE) or len(images) != len(labels) or set(labels.tolist()) != wanted or counts:
            raise DataError(
                f"{part}: images {images.shape}, labels {labels.shape} of {sorted(set(labels.tolist()))}",
                where=str(folder),
                allowed=f"{count:,} images of {SIDE}x{SIDE} and as many labels {min(wanted)}..{max(wanted)}, "
                "every class present",
            )
        if kind.transposed:
            arrays[f"{part} images"] = np.ascontiguousarray(images.transpose(0, 2, 1))
        if kind.first:
            arrays[f"{part} labels"] = labels - np.uint8(kind.first)
    digest = digest_arrays(tuple(kind.classes), arrays)
    if kind.digest and digest != kind.digest:  # MNIST, KMNIST and others come in files of the same names and shapes
        raise DataError(
            f"the files are whole and not Fashion-MNIST's (digest {digest[:16]})",
            where=str(folder),
            allowed=kind.digest[:16],
            hint="another dataset lies there: --dataset kmnist if it is KMNIST; others as NAME=FILE.npz",
        )
    mean, std = array_statistics(arrays["train images"])
    return Dataset(
        name=name,
        classes=tuple(kind.classes),
        folders=folder_names(kind.classes),
        image_size=SIDE,
        channels=1,
        train=ArraySplit(arrays["train images"], arrays["train labels"]),
        test=ArraySplit(arrays["test images"], arrays["test labels"]),
        digest=digest,
        mean=mean,
        std=std,
    )


def _download(name: str, root: Path) -> None:
    from torchvision import datasets

    if name.startswith("emnist"):
        datasets.EMNIST(str(root), name.partition("-")[2], download=True)
    else:
        {"fashionmnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}[name](str(root), download=True)


def _check_md5(name: str, folder: Path) -> None:
    """Compare the files with the MD5s of a dataset whose digest is not known."""
    if name != "kmnist":
        return
    for archive in SOURCES[name].archives:
        file = folder / archive.url.rpartition("/")[2]
        found = hashlib.md5(read_bytes(file, links=True), usedforsecurity=False).hexdigest()
        if found != archive.md5:
            raise DataError(
                f"is not KMNIST's (MD5 {found})",
                where=str(file),
                allowed=str(archive.md5),
                hint="get the file again, or name the dataset whose files lie there",
            )


def find(name: str, root: Path | None) -> Path | None:
    """The first folder that holds all four files, gzipped or not; of KMNIST gzipped, as their MD5s are known."""
    kind = KINDS[name]
    places = [root / inner if inner else root for inner in kind.folders] if root else []
    for folder in [*places, DEBIAN] if name == "fashionmnist" else places:
        if all((folder / f"{s}.gz").is_file() or (name != "kmnist" and (folder / s).is_file()) for s in kind.stems):
            return folder
    return None


def locate(name: str, root: Path | None) -> Path:
    """Where the data lies (`DatasetInfo.find`)."""
    return present(name, root, find(name.removesuffix("@val"), root))


def read_idx(folder: Path, stem: str) -> np.ndarray:
    """One IDX file of unsigned bytes (yann.lecun.com/exdb/mnist: magic 0, 0, 8, dimensions; big-endian sizes; data).

    Raises:
        DataError: not an IDX file of bytes, truncated, or with bytes left over; names the file.
    """
    path = next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), folder / stem)
    raw = gunzip(path, MOST) if path.suffix == ".gz" else read_bytes(path, links=True, most=MOST)
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or raw[3] not in (1, 3) or len(raw) < 4 + 4 * raw[3]:
        raise DataError("not an IDX file of unsigned bytes", where=str(path), hint="get the file again")
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    start = 4 + 4 * raw[3]
    if len(raw) - start != math.prod(shape):
        raise DataError(
            f"holds {len(raw) - start} bytes of data, its header says {'x'.join(map(str, shape))}",
            where=str(path),
            hint="get the file again",
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
