"""Image files of a split: an index of who is where (built for a million files), and a split that decodes on demand."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from benchmark.core.errors import DataError, MissingError
from benchmark.core.foreign import is_odd, is_transient, open_regular
from benchmark.core.progress import Progress
from benchmark.core.store import default_cache, digest_of
from benchmark.core.store.keys import digest_open
from benchmark.data.base import FILTERS, Split, resize_crop
from benchmark.data.decode import EXTENSIONS, header, open_image

THREADS = min(16, max(2, os.cpu_count() or 1))  # PIL decodes, and the kernel lists folders, outside Python's lock
BATCH = 1024  # images in flight at a time
PAUSES = (0.5, 2.0, 8.0)  # s, between attempts to read a file from a disk that does not answer
LOST = -1  # size of a file that is listed and not there
ROWS_CONTENT_BYTES = 32 << 20  # a class of more bytes is known by its files' names and sizes (ImageNet's have 140 MB)
CACHED_FROM = 100_000  # indexes of at least so many files are kept in the store

T = TypeVar("T")


class Names:
    """Many short strings in one block of bytes: 1.28 million file names in 40 MB instead of 130."""

    def __init__(self, block: bytes, ends: np.ndarray) -> None:
        self.block, self.ends = block, ends

    @staticmethod
    def of(names: Sequence[str]) -> Names:
        encoded = [os.fsencode(name) for name in names]
        return Names(b"".join(encoded), np.cumsum([len(e) for e in encoded], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.block[start : self.ends[index]])

    def take(self, indices: np.ndarray) -> Names:
        return Names.of([self[int(i)] for i in indices])

    @staticmethod
    def join(parts: Sequence[Names]) -> Names:
        offsets = np.cumsum([0, *(len(p.block) for p in parts)])
        ends = [p.ends + offset for p, offset in zip(parts, offsets)]
        return Names(b"".join(p.block for p in parts), np.concatenate(ends) if ends else np.zeros(0, np.int64))


@dataclass
class Index:
    """The image files of one split, by class, then by file name.

    File ``i`` is ``root / folders[folder[i]] / names[i]`` and shows class ``labels[i]``.
    """

    root: Path
    folders: tuple[str, ...]
    folder: np.ndarray  # int32 [n]
    labels: np.ndarray  # int64 [n]
    names: Names
    sizes: np.ndarray  # int64 [n], bytes
    mtimes: np.ndarray  # int64 [n], nanoseconds

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        return os.path.join(self.root, self.folders[self.folder[index]], self.names[index])

    def image(self, index: int, mode: str | None = None, size: int | None = None) -> Image.Image:
        """One image, decoded (`open_image`)."""
        path = self.path(index)
        return retried(path, lambda: open_image(path, mode, size))

    def header(self, index: int) -> tuple[tuple[int, int], str]:
        """(width, height) and mode of one image, without decoding it."""
        path = self.path(index)
        return retried(path, lambda: header(path))

    def digest(self, index: int) -> str:
        """SHA-256 of one file's bytes."""
        return file_digest(self.path(index))

    def take(self, indices: np.ndarray) -> Index:
        """The index of some of the files, in the order given."""
        picked = (array[indices] for array in (self.folder, self.labels, self.sizes, self.mtimes))
        folder, labels, sizes, mtimes = picked
        return Index(self.root, self.folders, folder, labels, self.names.take(indices), sizes, mtimes)

    def listing_digest(self) -> str:
        """SHA-256 over labels, file names and sizes; not over the folders, so layouts of the same data agree."""
        sha = hashlib.sha256()
        for array in (self.labels, self.sizes, self.names.ends):
            sha.update(array.astype("<i8").tobytes())
        sha.update(self.names.block)
        return sha.hexdigest()


class FileSplit(Split):
    """Images read from files on demand, decoded by a few threads."""

    def __init__(self, index: Index, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        self.index, self.labels = index, index.labels

    def pil(self, index: int) -> Image.Image:
        return self.index.image(index, "L" if self.channels == 1 else "RGB")

    def rows_digest(self, indices):
        """Over every file's bytes, or over names and sizes where the files are large; not over folders and times."""
        chosen = np.asarray(indices, dtype=np.int64)
        sizes = self.index.sizes[chosen]
        sha = hashlib.sha256(sizes.astype("<i8").tobytes())
        if int(sizes.sum()) > ROWS_CONTENT_BYTES:
            for i in chosen:
                sha.update(os.fsencode(self.index.names[int(i)]) + b"\0")
            return sha.hexdigest()
        with ThreadPoolExecutor(THREADS) as pool:
            for digest in pool.map(lambda i: self.index.digest(int(i)), chosen):
                sha.update(digest.encode())
        return sha.hexdigest()

    def map(self, function, indices):
        indices = [int(i) for i in indices]
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(indices), BATCH):  # not all at once: results would pile up
                yield from pool.map(lambda i: function(self.pil(i)), indices[start : start + BATCH])

    def images(self, indices, size=None, channels=None, resize="bicubic"):
        import torch

        size, channels = size or self.image_size, channels or self.channels
        mode = "L" if channels == 1 else "RGB"
        out = np.empty((len(indices), size, size, channels), np.uint8)

        def decode(row: int) -> None:
            image = self.index.image(int(indices[row]), mode, size)
            out[row] = np.asarray(resize_crop(image, size, FILTERS[resize])).reshape(size, size, channels)

        if len(indices) < 4:
            for row in range(len(indices)):
                decode(row)
        else:
            with ThreadPoolExecutor(THREADS) as pool:
                for _ in pool.map(decode, range(len(indices))):
                    pass
        return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()


def file_digest(path: str) -> str:
    """SHA-256 of a file's bytes."""

    def digest() -> str:
        with open_regular(path, links=True) as file:
            return digest_open(file)

    with readable(path):
        return retried(path, digest)


def retried(path: str, read: Callable[[], T]) -> T:
    """``read()``, tried again after each of `PAUSES` where the disk or the network fails rather than the file.

    Raises:
        DataError: it still fails; names the file.
    """
    pauses = iter(PAUSES)
    while True:
        try:
            return read()
        except OSError as error:
            if not is_transient(error):
                raise
            pause = next(pauses, None)
            if pause is None:
                raise DataError(
                    f"cannot be read now: {error.strerror or error} ({1 + len(PAUSES)} attempts)",
                    where=path,
                    hint="a fault of the disk or the network, not of the file: repeat the command when it is mended",
                ) from error
            time.sleep(pause)


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the folders in ``root``, sorted; hidden ones left out.

    Raises:
        DataError: the folder cannot be listed, or a name is no text (not UTF-8) or holds control characters.
    """
    with readable(root), os.scandir(root) as entries:
        names = tuple(sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir()))
    odd = [name for name in names if is_odd(name)]
    if odd:
        raise DataError(
            f"{ascii(odd[0])} is no name for a class",
            where=str(root),
            allowed="printable characters in UTF-8: names go into records and tables",
            hint="rename the folder, in every split alike",
        )
    return names


@contextlib.contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Turn an `OSError` inside into a `DataError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError) -> DataError:
    return DataError(
        f"cannot be read: {error.strerror or error}",
        where=str(path),
        hint="check that it is there (a link: its target) and that this user may read it; for single files "
        "--on-corrupt skip leaves them out and counts them",
    )


def scan(root: Path, folders: Sequence[str]) -> Index:
    """Index the image files in ``root/<folder>``, a folder a class, in label order.

    Raises:
        MissingError: a class folder is not there.
        DataError: a class folder cannot be read, or holds no images.
    """
    listings = list_folders(root, folders)
    empty = [folder for folder, listing in zip(folders, listings) if not len(listing[0])]
    if empty:
        raise DataError(
            f"class folder(s) without images: {some(empty)}",
            where=str(root),
            allowed="at least one image a class: " + ", ".join(EXTENSIONS),
            hint="put the class's images there (unpack its archive again); only of your own data, a class may be "
            "removed from both splits",
        )
    counts = [len(listing[0]) for listing in listings]
    of = np.repeat(np.arange(len(folders), dtype=np.int32), counts)
    names = Names.join([listing[0] for listing in listings])
    sizes, mtimes = (np.concatenate([listing[k] for listing in listings]) for k in (1, 2))
    return Index(Path(root), tuple(folders), of, of.astype(np.int64), names, sizes, mtimes)


def unread_files(index: Index) -> str:
    """How many entries of the class folders are no images that are read, by extension: ``36 (30 .tif, 6 .gif)``; or "".

    Hidden files are not counted.
    """
    if type(index) is not Index:  # images in shards
        return ""

    def extensions(folder: str) -> list[str]:
        path = os.path.join(index.root, folder)
        with readable(path), os.scandir(path) as entries:
            names = [e.name for e in entries if not e.name.startswith(".")]
        other = [name for name in names if not name.lower().endswith(EXTENSIONS)]
        return [os.path.splitext(name)[1].lower() or "without extension" for name in other]

    with ThreadPoolExecutor(THREADS) as pool:
        counts = Counter(e for found in pool.map(extensions, index.folders) for e in found)
    listed = ", ".join(f"{count} {extension}" for extension, count in counts.most_common(5))
    return f"{counts.total()} ({listed})" if counts else ""


def scan_flat(root: Path, folder: str, label_of: Mapping[str, int], stem: bool = False) -> Index:
    """Index the images of one flat folder whose labels come from a table (ImageNet's and Tiny ImageNet's ``val``).

    Args:
        label_of: file name to label (-1: leave it out); with ``stem``, file name without its extension.

    Raises:
        DataError: a file that the table does not know, or a file of the table that is not there.
    """
    (names, sizes, mtimes) = list_folders(root, [folder])[0]
    listed = [names[i] for i in range(len(names))]
    keys = [os.path.splitext(name)[0] if stem else name for name in listed]
    unknown, absent = [k for k in keys if k not in label_of], sorted(set(label_of) - set(keys))
    if unknown or absent:
        parts = [f"{len(unknown)} file(s) without a label: {some(unknown, 3)}"] * bool(unknown)
        parts += [f"{len(absent)} labelled file(s) missing: {some(absent, 3)}"] * bool(absent)
        raise DataError("; ".join(parts), where=str(root / folder), hint="unpack the archive again")
    labels = np.array([label_of[k] for k in keys], np.int64)
    order = np.argsort(labels, kind="stable")  # names are sorted already
    order = order[labels[order] >= 0]
    whole = Index(Path(root), (folder,), np.zeros(len(labels), np.int32), labels, names, sizes, mtimes)
    return whole.take(order)


Listing = tuple[Names, np.ndarray, np.ndarray]  # names, sizes in bytes (or LOST), modification times in nanoseconds


def list_folders(root: Path, folders: Sequence[str]) -> list[Listing]:
    """The image files of each folder, sorted by name; large results are cached by the folders' modification times.

    (A file whose content changes in place does not touch its folder; ``ddbench doctor --full`` reads every file.)
    """
    stamps, missing = [], []
    for folder in folders:
        path = os.path.join(root, folder)
        try:
            stamps.append(os.stat(path).st_mtime_ns)
        except FileNotFoundError:
            missing.append(folder)
        except OSError as error:
            raise _unreadable(path, error) from error
    if missing:
        raise MissingError(
            f"folder(s) missing: {some(missing)}",
            where=str(root),
            allowed=f"{len(folders)} folders: {some(list(folders))}",
            hint="unpack the archive again, or correct --data-root",
        )
    key = digest_of(["index 1", str(Path(root).resolve()), list(folders), stamps])
    cache = default_cache() / "external" / "index" / f"{key}.npz"
    cached = _load_listings(cache)
    if cached is not None:
        return cached
    with Progress(len(folders), f"listing {root}", "folders") as bar, ThreadPoolExecutor(THREADS) as pool:
        listings = []
        for listing in pool.map(lambda folder: _list_folder(os.path.join(root, folder)), folders):
            listings.append(listing)
            bar.update()
    whole = not any((listing[1] == LOST).any() for listing in listings)  # a link's target may come back unnoticed
    if whole and sum(len(listing[0]) for listing in listings) >= CACHED_FROM:
        _save_listings(cache, listings)
    return listings


def _list_folder(path: str) -> Listing:
    found = []
    with readable(path), os.scandir(path) as entries:
        for entry in entries:
            if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith("."):
                found.append((entry.name, *_stat(entry)))
    found.sort()
    return (
        Names.of([f[0] for f in found]),
        np.array([f[1] for f in found], np.int64),
        np.array([f[2] for f in found], np.int64),
    )


def _stat(entry: os.DirEntry) -> tuple[int, int]:
    try:
        stat = entry.stat()
    except OSError:  # a link without a target: reading the file says so, or skips it
        return LOST, 0
    return stat.st_size, stat.st_mtime_ns


def _save_listings(path: Path, listings: Sequence[Listing]) -> None:
    names = Names.join([listing[0] for listing in listings])
    arrays = {
        "counts": np.array([len(listing[0]) for listing in listings], np.int64),
        "block": np.frombuffer(names.block, np.uint8),
        "lengths": np.diff(names.ends, prepend=0),
        "sizes": np.concatenate([listing[1] for listing in listings]),
        "mtimes": np.concatenate([listing[2] for listing in listings]),
    }
    with contextlib.suppress(OSError):  # the cache is a convenience
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}.npz")
        np.savez(temporary, **arrays)
        os.replace(temporary, path)


def _load_listings(path: Path) -> list[Listing] | None:
    try:
        with np.load(path, allow_pickle=False) as data:
            counts, block, lengths = data["counts"], data["block"].tobytes(), data["lengths"]
            sizes, mtimes = data["sizes"], data["mtimes"]
    except (OSError, ValueError, KeyError):
        return None
    bounds = np.cumsum([0, *counts])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    listings = []
    for a, b in zip(bounds, bounds[1:]):
        names = Names(block[starts[a] : starts[b]], np.cumsum(lengths[a:b]))
        listings.append((names, sizes[a:b], mtimes[a:b]))
    return listings


def some(names: Sequence[str], limit: int = 8) -> str:
    """The first few names, and how many there are."""
    more = f", … ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(map(str, names[:limit])) + more
