"""What is expensive to know about external data, cached in the store: content digests, statistics, decoded pixels.

A cached content digest is keyed by the list of files with sizes and modification times; a store that cannot be
written only costs time.
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

from benchmark.datasets.files import THREADS, Index
from benchmark.progress import Progress
from benchmark.store import default_cache, digest_file, digest_of

CONTENT_LIMIT = 2 << 30  # bytes; a larger dataset is identified by its file list with sizes
CONTENT_FILES = 300_000


def cached_json(kind: str, key: Any, make: Callable[[], Any]) -> Any:
    """``make()``, remembered under ``<store>/external/<kind>/`` by the digest of ``key``."""
    path = default_cache() / "external" / kind / f"{digest_of(key)}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        pass
    value = make()
    with contextlib.suppress(OSError):  # the cache is a convenience; the run itself reports a store it cannot write
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}")
        temporary.write_text(json.dumps(value))
        os.replace(temporary, path)
    return value


def content_digest(classes: Sequence[str], indexes: Mapping[str, Index]) -> str:
    """The digest of a dataset of files: over every file's bytes, or over names and sizes where that takes minutes."""
    listings = {split: index.listing_digest() for split, index in indexes.items()}
    identity: dict[str, Any] = {"classes": list(classes), "listings": listings}
    total = sum(int(index.sizes.sum()) for index in indexes.values())
    if total > CONTENT_LIMIT or sum(len(index) for index in indexes.values()) > CONTENT_FILES:
        return digest_of({"kind": "listing", **identity})
    stamps = {split: [str(Path(i.root).resolve()), digest_of(i.mtimes.tolist())] for split, i in indexes.items()}

    def hash_all() -> dict[str, str]:
        return {split: _hash_files(index) for split, index in indexes.items()}

    return digest_of({"kind": "content", **identity, "files": cached_json("content", [identity, stamps], hash_all)})


def _hash_files(index: Index) -> str:
    with Progress(len(index), f"hashing {index.root}", "files") as bar, ThreadPoolExecutor(THREADS) as pool:
        digests = []
        for digest in pool.map(lambda i: digest_file(Path(index.path(i))), range(len(index)), chunksize=64):
            digests.append(digest)
            bar.update()
    return digest_of(digests)
