"""What is expensive to know about external data, cached in the store: content digests, statistics, decoded pixels.

A cached content digest is keyed by the list of files with sizes and modification times; a store that cannot be
written only costs time here (the run itself reports it).
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from benchmark.core.errors import DataError
from benchmark.core.progress import Progress
from benchmark.core.store import default_cache, digest_of
from benchmark.core.store.keys import is_hashing_anew
from benchmark.data.base import ArraySplit, Split
from benchmark.data.files import LOST, THREADS, FileSplit, Index

CONTENT_BYTES = 2 << 30  # a larger dataset is identified by its file list with sizes
CONTENT_FILES = 300_000
DECODED_BYTES = 2 << 30  # a split of small images is decoded once if its pixels take no more


def cached_json(kind: str, key: Any, make: Callable[[], Any]) -> Any:
    """``make()``, remembered under ``<store>/external/<kind>/`` by the digest of ``key``.

    Inside `hashing_anew` it is made again; where it was remembered otherwise, `changed` names the kind.
    """
    path = default_cache() / "external" / kind / f"{digest_of(key)}.json"
    known = None
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_text(encoding="utf-8"))
    if known is not None and not is_hashing_anew():
        return known
    value = make()
    if value == known:
        return value
    if known is not None:
        changed.append(kind)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        temporary.write_text(json.dumps(value), encoding="utf-8")
        os.replace(temporary, path)
    return value


changed: list[str] = []  # kinds of what `cached_json` had remembered of data that has changed since, unseen


def content_digest(classes: Sequence[str], indexes: Mapping[str, Index]) -> str:
    """The digest of a dataset of files: over every file's bytes, or over names and sizes where that takes minutes.

    Class names, labels and the order of the files count; paths, folders and modification times do not.

    Raises:
        DataError: a file is listed and cannot be read; names it.
    """
    for index in indexes.values():
        for lost in np.flatnonzero(index.sizes == LOST)[:1]:
            index.digest(int(lost))
    total = sum(int(index.sizes.sum()) for index in indexes.values())
    if total > CONTENT_BYTES or sum(len(index) for index in indexes.values()) > CONTENT_FILES:
        listings = {split: index.listing_digest() for split, index in indexes.items()}
        return digest_of({"kind": "listing", "classes": list(classes), "splits": listings})
    splits = {}
    for split, index in indexes.items():
        key = ["content 1", *file_stamp(index)]
        splits[split] = cached_json("content", key, lambda index=index: _hash_files(index))
    return digest_of({"kind": "content", "classes": list(classes), "splits": splits})


def file_stamp(index: Index) -> list[str]:
    """What tells whether files have changed: path, names, labels, sizes and modification times."""
    return [str(Path(index.root).resolve()), *index.folders, index.listing_digest(), digest_of(index.mtimes.tolist())]


def _hash_files(index: Index) -> str:
    digests = []
    with Progress(len(index), f"hashing {index.root}", "files") as bar, ThreadPoolExecutor(THREADS) as pool:
        for digest in pool.map(lambda i: index.digest(i), range(len(index))):
            digests.append(digest)
            bar.update()
    return digest_of({"labels": index.labels.tolist(), "files": digests})


def corrupt_files(index: Index) -> list[list]:
    """Decode every file: ``[position, path, what is wrong]`` of those that cannot be decoded; cached."""

    def check(i: int) -> str | None:
        try:
            index.image(i)
        except DataError as error:
            return error.what
        return None

    def scan_all() -> list[list]:
        bad = []
        with Progress(len(index), f"reading {index.root}", "images") as bar, ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(index), 4096):  # not all tasks at once: a million futures are a gigabyte
                for i, fault in enumerate(pool.map(check, range(start, min(start + 4096, len(index)))), start):
                    if fault:
                        bad.append([i, index.path(i), fault])
                    bar.update(note=f"{len(bad)} corrupt" if bad else "")
        return bad

    return cached_json("corrupt", ["corrupt 1", PIL.__version__, *file_stamp(index)], scan_all)


class DecodedSplit(ArraySplit):
    """The pixels of a split of files in memory; a class is still known by its files, at whatever size it is read."""

    def __init__(self, array: np.ndarray, files: FileSplit) -> None:
        super().__init__(array, files.labels)
        self.files = files

    def rows_digest(self, indices):
        return self.files.rows_digest(indices)


def decoded(split: FileSplit, digest: str, part: str) -> Split:
    """``split`` in memory-mapped pixels, where all images have its native size; else ``split`` itself.

    Made once, in ``<store>/external/decoded``; decoding names the first file that is corrupt.
    """
    side, count = split.image_size, len(split)
    shape = (count, side, side) if split.channels == 1 else (count, side, side, 3)
    probe = range(0, count, max(1, count // 16))
    if int(np.prod(shape)) > DECODED_BYTES or any(split.index.header(i)[0] != (side, side) for i in probe):
        return split
    key = digest_of(["decoded 1", PIL.__version__, digest, part, list(shape)])
    path = default_cache() / "external" / "decoded" / f"{key}.npy"
    array = _mapped(path, shape)
    if array is None:
        array = np.empty(shape, np.uint8)
        mode = "L" if split.channels == 1 else "RGB"

        def decode(i: int) -> bool:
            image = split.index.image(i, mode)
            if image.size != (side, side):
                return False
            array[i] = np.asarray(image)
            return True

        with Progress(count, f"decoding {split.index.root}", "images") as bar, ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, count, 1024):
                batch = range(start, min(start + 1024, count))
                if not all(pool.map(decode, batch)):
                    return split
                bar.update(len(batch))
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = _beside(path)
            with open(temporary, "wb") as file:
                np.save(file, array)
            os.replace(temporary, path)
            array = _mapped(path, shape) if path.is_file() else array
    return DecodedSplit(array, split)


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}")
