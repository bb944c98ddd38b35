"""A validation set cut out of the training split, so that tuning never sees the test split."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from benchmark.core.errors import DataError
from benchmark.core.store import digest_of
from benchmark.data.base import Dataset, Split


class SubsetSplit(Split):
    """Some images of another split, in the order of ``indices``."""

    def __init__(self, parent: Split, indices: Sequence[int]) -> None:
        super().__init__(parent.channels, parent.image_size)
        self._parent, self.indices = parent, np.asarray(indices, dtype=np.int64)
        self.labels = parent.labels[self.indices]

    @property
    def index(self):
        """The files of the whole split that this is a part of, where it is made of files; else None."""
        return getattr(self._parent, "index", None)

    def pil(self, index: int) -> Image.Image:
        return self._parent.pil(int(self.indices[index]))

    def rows_digest(self, indices):
        return self._parent.rows_digest(self.indices[np.asarray(indices, dtype=np.int64)])

    def map(self, function, indices):
        return self._parent.map(function, self.indices[np.asarray(indices, dtype=np.int64)])

    def images(self, indices, size=None, channels=None, resize="bicubic"):
        chosen = self.indices[np.asarray(indices, dtype=np.int64)]
        filtered = {} if resize == "bicubic" else {"resize": resize}
        return self._parent.images(chosen, size or self.image_size, channels or self.channels, **filtered)


def stable_order(count: int, salt: str) -> np.ndarray:
    """A fixed permutation of ``range(count)``: by the SHA-256 of salt and position, so no library can change it."""
    keys = [hashlib.sha256(f"{salt} {i}".encode()).digest() for i in range(count)]
    return np.array(sorted(range(count), key=keys.__getitem__), dtype=np.int64)


def stratified(by_class: Sequence[np.ndarray], fraction: float, salt: str) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out): of each class ``round(fraction * n)`` positions held out, at least one, both ascending."""
    kept, held = [], []
    for c, members in enumerate(by_class):
        if len(members) < 2:
            raise DataError(f"class {c} has {len(members)} image(s): too few to hold one out", allowed="at least 2")
        order = members[stable_order(len(members), f"{salt} class {c}")]
        cut = min(max(1, round(fraction * len(members))), len(members) - 1)
        held.append(order[:cut])
        kept.append(order[cut:])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held))


def holdout(dataset: Dataset, fraction: float = 0.2, seed: int = 0) -> Dataset:
    """``dataset`` with a part of its *training* split as test split; the real test split is not touched.

    Args:
        fraction: share of each class of the training split that is held out, in (0, 1).
        seed: another seed holds out other images.

    Returns:
        A dataset named ``NAME@val`` with a digest of its own and the training statistics of the whole.
    """
    assert 0 < fraction < 1, fraction
    kept, held = stratified(dataset.train.by_class, fraction, f"ddbench holdout {seed}")
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}@val",
        train=SubsetSplit(dataset.train, kept),
        test=SubsetSplit(dataset.train, held),
        digest=digest_of({"holdout": 1, "of": dataset.digest, "fraction": fraction, "seed": seed}),
        notes={**dataset.notes, "held out": f"{fraction:g} of the training split, seed {seed}"},
    )
