"""Keys: a SHA-256 over canonical JSON of what determines a stage's result, known before anything runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any


def canonical_json(document: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal documents give equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(document: Any) -> str:
    """SHA-256 (hex) of a JSON document's canonical form."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


_anew: ContextVar[bool] = ContextVar("anew", default=False)


@contextlib.contextmanager
def hashing_anew() -> Iterator[None]:
    """Inside, digests that are remembered by path, size and modification time are worked out again, and remembered.

    Data whose content changed while these stayed the same (``rsync -t``, ``cp -p``, restored archives) is so noticed.
    """
    token = _anew.set(True)
    try:
        yield
    finally:
        _anew.reset(token)


def is_hashing_anew() -> bool:
    """Whether this is inside :func:`hashing_anew`."""
    return _anew.get()


def digest_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return digest_open(file)


def digest_open(file: IO[bytes]) -> str:
    """SHA-256 (hex) of the bytes of an open file."""
    return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slow(file)


def _slow(file) -> str:  # Python 3.10
    sha = hashlib.sha256()
    while block := file.read(1 << 20):
        sha.update(block)
    return sha.hexdigest()


@dataclass(frozen=True)
class Stage:
    """One piece of work, named by everything that determines its result.

    Args:
        name: dotted, e.g. ``d3hr.statistics``; the folder in the store.
        version: raised whenever the same inputs would give another output.
        params: JSON-able settings that matter to this stage and no others.
        inputs: name to *key* (of another stage) or content digest (of an external input).
        seed: the seed, where the stage is random.
        precision: dtype, TF32, autocast, compile (`benchmark.core.compute.Precision.document`).
        chunk: size of the canonical chunks that the work is cut into.

    Never the device, a path or a number of workers.
    """

    name: str
    version: int
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    precision: Mapping[str, Any] = field(default_factory=dict)
    chunk: int | None = None

    def document(self) -> dict[str, Any]:
        """The JSON document that is hashed."""
        return {
            "stage": self.name,
            "version": self.version,
            "params": dict(self.params),
            "inputs": dict(self.inputs),
            "seed": self.seed,
            "precision": dict(self.precision),
            "chunk": self.chunk,
        }

    @cached_property
    def key(self) -> str:
        """64 hex digits."""
        return digest_of(self.document())
