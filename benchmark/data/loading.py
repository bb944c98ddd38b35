"""`load_dataset`: from a name on the command line to a `Dataset`, once a process."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmark.core.outputs import expanded
from benchmark.core.store.keys import is_hashing_anew
from benchmark.data.base import Dataset
from benchmark.data.classes import restricted
from benchmark.data.holdout import holdout

VALIDATION = "@val"  # `digits@val`: the training split cut in two, for tuning without touching the test split
VALIDATION_FRACTION, VALIDATION_SEED = 0.2, 0


def data_root(root: str | None = None) -> Path | None:
    """``--data-root``, else ``$DDBENCH_DATA``, else None; absolute, so that it means the same in another folder."""
    chosen = root or os.environ.get("DDBENCH_DATA")
    return expanded(chosen, "--data-root").absolute() if chosen else None


def load_dataset(name: str, root: str | None = None, **options: Any) -> Dataset:
    """The dataset registered as ``name``; ``NAME@val`` is its training split cut into training and held-out part.

    Args:
        name: ``digits``, ``imagefolder:/data/pets``, ``pets=/data/pets``, ``cifar10@val``, …
        root: folder with the data (``--data-root``); default ``$DDBENCH_DATA``.
        options: ``classes`` (some of them: `benchmark.data.classes`), ``image_size``, ``on_corrupt`` (``error`` or
            ``skip``), ``download``; what a dataset does not know it refuses.

    Raises:
        UsageError: unknown name or option.
        MissingError: the data is not there; says how to get it.
        DataError: the data is there and cannot be right (corrupt image, a class missing, another class order).
    """
    found = data_root(root)
    arguments = name, str(found) if found else None, tuple(sorted(options.items()))
    if is_hashing_anew():
        _load.cache_clear()
    dataset = _load(*arguments)
    if dataset.changed():  # by a plug-in, whose own job has failed for it: nobody else is to see that
        _load.cache_clear()
        dataset = _load(*arguments)
    return dataset


@lru_cache(maxsize=16)
def _load(name: str, root: str | None, options: tuple[tuple[str, Any], ...]) -> Dataset:
    from benchmark.plugins.registry import OWN_DATA, named_path, registry

    given = {k: v for k, v in options if v is not None}
    if "classes" in given:
        spec = str(given.pop("classes"))
        return restricted(_load(name, root, tuple(sorted(given.items()))), spec)
    base, at, _ = name.rpartition(VALIDATION)
    if at and name.endswith(VALIDATION):
        return holdout(_load(base, root, options), VALIDATION_FRACTION, VALIDATION_SEED)
    info = registry().get("dataset", name, where="--dataset")
    named = named_path(name) if info.name == OWN_DATA else None
    if named:
        given["name"], argument = named
    else:
        argument = name[len(info.name) :] if info.name.endswith(":") else ""
    return info.load()(argument, Path(root) if root else None, given)
