"""Content digests of datasets: equal for equal labels, class order and images, whatever the path or the machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from benchmark.core.store import digest_of


def digest_arrays(classes: Sequence[str], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over class names in order and, by name, each array's dtype, shape and bytes."""
    parts = {}
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        parts[name] = [array.dtype.str, list(array.shape), hashlib.sha256(array.data).hexdigest()]
    return digest_of({"classes": list(classes), "arrays": parts})


def array_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 ``[n, H, W]`` or ``[n, H, W, C]``, of values in 0..1; exact."""
    channels = images[..., None] if images.ndim == 3 else images
    values = np.arange(256) / 255
    mean, std = [], []
    for c in range(channels.shape[-1]):
        share = np.bincount(channels[..., c].ravel(), minlength=256) / channels[..., c].size
        m = float(share @ values)
        mean.append(m)
        std.append(float(np.sqrt(share @ (values - m) ** 2)))
    return tuple(mean), tuple(std)
